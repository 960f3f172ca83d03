"""Transactions in one call: all of it or nothing, once for each request id.

A call is a task of its own, so that a caller who goes away leaves nothing half done. Before the
home was told to commit, a failure or an abandoned call rolls back. After that only the home knows,
and it is asked until it answers. An attempt that lost against another is made again, with a new id.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hub.core.backoff import Backoff
from hub.core.transactions.attempt import Attempt
from hub.core.transactions.cuts import Cuts
from hub.core.transactions.endings import Endings
from hub.core.transactions.limits import ANSWER_SHARE, WORKING_SHARE
from hub.core.transactions.live_attempts import LiveAttempts
from hub.core.transactions.locks import LockTable
from hub.core.transactions.states import Happening, Phase
from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.transaction import (
    Advanced,
    Header,
    PartResult,
    PartState,
    Record,
    Resolution,
    Work,
)
from hub.core.transactions.two_phase_commit import TwoPhaseCommit
from hub.core.transactions.verdicts import Verdict, denies_change, judge
from messagehub.errors import (
    Cancelled,
    CursorEpochChanged,
    DeadlineExceeded,
    HubError,
    InternalError,
    QueueFull,
    RequestIdReused,
    StorageUnavailable,
    TransactionConflict,
    TransactionNotFound,
)

_log = logging.getLogger(__name__)


class Call(NamedTuple):
    """A transaction as its caller wants it; `work` is by database.

    `chosen` = the request id was given by the caller, so that it may have been used before.
    """

    source_service: str
    correlation_id: str
    request_id: str
    chosen: bool
    fingerprint: bytes
    work: Mapping[str, Work]


class Done(NamedTuple):
    """A committed transaction; `replayed` = by an earlier call with the same request id."""

    transaction_id: str
    replayed: bool
    results: Sequence[PartResult]


class _Run:
    """One call on its way, over all of its attempts."""

    def __init__(self, call: Call, *, deadline: float, backoff: Backoff) -> None:
        self.call = call
        self.deadline = deadline
        self.backoff = backoff
        self.abandoned = False
        self.passing_failures = 0
        self.attempt: Attempt | None = None
        self.forward: asyncio.Task[Advanced] | None = None

    @property
    def may_be_decided(self) -> bool:
        """True once a home was told to commit and did not say no."""
        return self.attempt is not None and self.attempt.phase in (Phase.DECIDING, Phase.COMMITTED)

    def abandon(self) -> None:
        """Nobody waits any more: what is not on its way to be decided is not worth to go on."""
        self.abandoned = True
        if self.forward is not None and not self.may_be_decided:
            self.forward.cancel()


class Coordinator:
    """Runs transactions; `lanes` and `commits` are the locks of this hub.

    A lane is held by whoever holds the database itself, `commits` while parts are prepared.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        endings: Endings,
        live: LiveAttempts,
        *,
        lanes: LockTable,
        commits: LockTable,
    ) -> None:
        self._around = surroundings
        self._endings = endings
        self._lanes = lanes
        self._commits = commits
        self._two_phases = TwoPhaseCommit(surroundings)
        self._running = 0
        self._live = live

    async def execute(self, call: Call, seconds: float) -> Done:
        """Commits everything or nothing; raises the `HubError` that says why not.

        An outcome that nobody knows in the caller's time is `StorageUnavailable` with the ids to
        ask for; the same call again finds it.
        """
        around = self._around
        if self._running >= around.limits.running_max:
            raise QueueFull(
                f"{self._running} transactions are under way, the limit is "
                f"{around.limits.running_max}: call again later, and less often",
                retry_after=around.limits.busy_seconds,
            )
        deadline = around.clock() + seconds * WORKING_SHARE
        run = _Run(call, deadline=deadline, backoff=around.backoff())
        working = around.background.start(self._run(run), name="transaction")
        try:
            async with asyncio.timeout(seconds * ANSWER_SHARE):
                return await asyncio.shield(working)
        except TimeoutError:
            raise self._late(run) from None
        finally:
            run.abandon()

    async def read(self, call: Call, cuts: Cuts, seconds: float) -> Done:
        """Reads everything at one moment; nothing is recorded."""

        def make_header() -> Header:
            return self._header(call, seconds, read_only=True)

        header, results = await cuts.read(make_header, call.work, seconds * WORKING_SHARE)
        return Done(header.transaction_id, replayed=False, results=results)

    async def _run(self, run: _Run) -> Done:
        self._running += 1
        try:
            while True:
                try:
                    return await self._try(run)
                except HubError as failure:
                    delay = self._delay(run, failure)
                    if delay is None:
                        raise await self._told(run, failure) from failure
                await self._around.sleep(delay)
        finally:
            self._running -= 1

    async def _try(self, run: _Run) -> Done:
        again = run.attempt is not None
        run.attempt = attempt = self._attempt(run)
        self._live.add(attempt)
        try:
            forward = self._around.background.start(
                self._forward(attempt, run.deadline, in_order=again), name="transaction-attempt"
            )
            run.forward = forward
            if run.abandoned:
                forward.cancel()
            await asyncio.wait([forward])
            failure = _failure(forward)
            if failure is None:
                return await self._decided(run, attempt, forward.result())
            if attempt.phase is Phase.DECIDING:
                return await self._ask_home(run, attempt, failure)
            return await self._give_up(attempt, failure)
        except asyncio.CancelledError:
            self._live.forget(attempt)
            raise

    def _attempt(self, run: _Run) -> Attempt:
        call = run.call
        seconds = max(0.0, run.deadline - self._around.clock())
        return Attempt(
            self._header(call, seconds, read_only=False),
            call.work,
            request_id=call.request_id,
            fingerprint=call.fingerprint,
        )

    def _header(self, call: Call, seconds: float, *, read_only: bool) -> Header:
        return self._around.header(
            tuple(sorted(call.work)),
            source_service=call.source_service,
            correlation_id=call.correlation_id,
            read_only=read_only,
            idle_seconds=seconds,
            seconds=seconds,
        )

    async def _forward(self, attempt: Attempt, deadline: float, *, in_order: bool) -> Advanced:
        databases = attempt.header.databases
        if attempt.header.others:
            for table in (self._lanes, self._commits):
                seconds = max(0.0, deadline - self._around.clock())
                attempt.hold(await table.take(databases, seconds=seconds))
        return await self._two_phases.run(attempt, deadline=deadline, in_order=in_order)

    async def _decided(self, run: _Run, attempt: Attempt, answer: Advanced) -> Done:
        if answer.replayed:
            self._live.tell(attempt, attempt.begun - {attempt.header.home}, commit=False)
            return _replay(answer.record)
        return await self._committed(run, attempt, attempt.results)

    async def _committed(self, run: _Run, attempt: Attempt, results: Sequence[PartResult]) -> Done:
        heard = self._live.tell(attempt, attempt.header.others, commit=True)
        await self._live.show(heard, deadline=run.deadline)
        return Done(attempt.header.transaction_id, replayed=False, results=results)

    async def _ask_home(self, run: _Run, attempt: Attempt, failure: HubError) -> Done:
        """The home was told to commit and did not answer: only its word counts."""
        header = attempt.header
        for database in header.databases:
            # Others need not wait here as well; the databases guard themselves.
            attempt.release(database)
        try:
            resolved = await self._endings.resolve(
                Resolution(header.home, commit=False, header=header, error=failure)
            )
        except HubError as silence:
            self._live.forget(attempt)
            raise _unknown(attempt) from silence
        record = resolved.record
        if record.state is PartState.COMMITTED:
            attempt.happens(Happening.HOME_COMMITTED)
            return await self._committed(run, attempt, record.results)
        if record.state is not PartState.ROLLED_BACK:
            self._live.forget(attempt)
            raise _unknown(attempt)
        attempt.happens(Happening.HOME_ROLLED_BACK)
        self._live.tell(attempt, attempt.begun - {header.home}, commit=False, error=failure)
        raise failure

    async def _give_up(self, attempt: Attempt, failure: HubError) -> Done:
        """Nobody was told to commit: rolls back, and records a failure that will stay."""
        header, begun = attempt.header, set(attempt.begun)
        if judge(failure) is not Verdict.FINAL:
            attempt.happens(Happening.GIVE_UP)
            if begun:
                begun.add(header.home)
            self._live.tell(attempt, begun, commit=False, error=failure)
            raise failure
        attempt.happens(Happening.GIVE_UP)
        self._live.tell(attempt, begun - {header.home}, commit=False, error=failure)
        return await self._record(attempt, failure)

    async def _record(self, attempt: Attempt, failure: HubError) -> Done:
        resolution = Resolution(
            attempt.header.home,
            commit=False,
            header=attempt.header,
            error=failure,
            request_id=attempt.request_id,
            fingerprint=attempt.fingerprint,
        )
        try:
            resolved = await self._endings.resolve(resolution)
        except RequestIdReused:
            raise
        except HubError as silence:
            # The request id may stand for a success, so this failure may not be told.
            raise _unknown(attempt) from silence
        if resolved.replayed is not None:
            return _replay(resolved.replayed)
        raise failure

    def _delay(self, run: _Run, failure: HubError) -> float | None:
        """Gives the seconds before the next attempt; None if there is none."""
        verdict = judge(failure)
        if run.abandoned or run.may_be_decided:
            return None
        if verdict is Verdict.PASSING:
            run.passing_failures += 1
            if run.passing_failures >= self._around.limits.passing_attempts_max:
                return None
        elif verdict is not Verdict.CONFLICT:
            return None
        delay = run.backoff.next()
        return delay if self._around.clock() + delay < run.deadline else None

    async def _told(self, run: _Run, failure: HubError) -> HubError:
        """Gives what the caller is told: never that nothing was done, where that is not known."""
        call, attempt = run.call, run.attempt
        if attempt is None:
            return failure
        recorded = judge(failure) is Verdict.FINAL or isinstance(failure, RequestIdReused)
        if call.chosen and denies_change(failure) and not recorded:
            home = attempt.header.home
            if await self._may_be_recorded(home, call.request_id):
                return _unknown(attempt)
        if isinstance(failure, TransactionNotFound | CursorEpochChanged):
            failure = TransactionConflict(
                f"a part of the transaction was lost, run the whole transaction again: "
                f"{failure.message}"
            )
        failure.metadata.setdefault("request_id", call.request_id)
        if attempt.begun:
            failure.metadata.setdefault("transaction_id", attempt.header.transaction_id)
        return failure

    async def _may_be_recorded(self, home: str, request_id: str) -> bool:
        seconds = self._around.limits.answer_seconds
        try:
            record = await self._around.participants.look_up(
                home, "", request_id=request_id, seconds=seconds
            )
        except HubError:
            return True
        return record is not None

    def _late(self, run: _Run) -> HubError:
        if run.attempt is not None and run.may_be_decided:
            return _unknown(run.attempt)
        return DeadlineExceeded(
            "the transaction took longer than it may: it is rolled back; set a deadline that fits "
            "it, and send the same call again",
            metadata={"request_id": run.call.request_id},
        )


def _failure(forward: asyncio.Task[Advanced]) -> HubError | None:
    if forward.cancelled():
        return Cancelled("the caller of the transaction went away")
    failure = forward.exception()
    if failure is None or isinstance(failure, HubError):
        return failure
    _log.error("a transaction failed by a defect", exc_info=failure)
    return InternalError("the hub failed in a way that it should not: its log has the trace")


def _replay(record: Record | None) -> Done:
    if record is None:
        raise InternalError("the home gave no record of the request id")
    name = record.header.transaction_id
    if record.state is PartState.COMMITTED:
        return Done(name, replayed=True, results=record.results)
    failure = record.error or TransactionConflict(
        "the transaction with this request id was rolled back: run the whole transaction again, "
        "with a new request id"
    )
    failure.metadata.setdefault("transaction_id", name)
    raise failure


def _unknown(attempt: Attempt) -> StorageUnavailable:
    name, request_id = attempt.header.transaction_id, attempt.request_id
    return StorageUnavailable(
        f"the home of the transaction, {attempt.header.home}, did not say how it ended: ask "
        f"GetTransaction for {name}, or send the same call again with the request_id {request_id}",
        metadata={"transaction_id": name, "request_id": request_id},
    )
