"""One database as a participant of transactions.

At most one part that may write is there at a time, and it holds the write lane. What a hub asks is
carried out to its end even if the hub goes away meanwhile: a commit is never split from its
bookkeeping. `states.TRANSITIONS` says what may follow what.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from messagehub.errors import Cancelled, HubError, InternalError, TransactionExpired
from messagehub.storage.v1.participant_service_pb2 import TransactionHeader, TransactionRecord
from messagehub.storage.v1.schema_pb2 import SchemaOperation, SchemaReport
from storage.core.engine import EngineLost
from storage.core.operation import Applied, Operation, ask
from storage.core.transactions.answers import Answers
from storage.core.transactions.commit_gate import CommitGate
from storage.core.transactions.endings import ENDING_SECONDS, Ended, Endings, ended
from storage.core.transactions.engine_part import (
    Advance,
    Advanced,
    Step,
    TransactionEngine,
    Whole,
)
from storage.core.transactions.limits import TransactionLimits
from storage.core.transactions.part import FROM_THE_WIRE, Asked, Part, Resolution
from storage.core.transactions.refusals import not_found, refusal, rolled_back
from storage.core.transactions.snapshots import Snapshots
from storage.core.transactions.states import TRANSITIONS, Answer, State, Verb
from storage.core.write_lane import WriteLane

Answered = TypeVar("Answered")

MICROSECONDS: Final = 1_000_000
_VERBS: Final = {
    Step.STAY_OPEN: Verb.RUN,
    Step.PREPARE: Verb.PREPARE,
    Step.COMMIT: Verb.COMMIT,
}

_log = logging.getLogger(__name__)


class Participant:
    """The parts of one open database. Everything runs on the loop.

    `committed` hears of every commit, `lost` of an engine that is lost, `told` when a part comes
    to be in doubt or is resolved. `wall_clock_us` gives microseconds since 1970 UTC; `reached` is
    called with the names of the steps.
    """

    def __init__(
        self,
        name: str,
        engine: TransactionEngine,
        epoch: str,
        lane: WriteLane,
        endings: Endings,
        limits: TransactionLimits,
        *,
        committed: Callable[[Applied], None],
        lost: Callable[[HubError], None],
        told: Callable[[], None],
        wall_clock_us: Callable[[], int],
        reached: Callable[[str], None],
    ) -> None:
        self._name = name
        self._engine = engine
        self._epoch = epoch
        self._lane = lane
        self._endings = endings
        self._limits = limits
        self._committed = committed
        self._lost = lost
        self._told = told
        self._wall_clock_us = wall_clock_us
        self._reached = reached
        self._loop = asyncio.get_running_loop()
        self._parts: dict[str, Part] = {}
        self._rehearsals: set[Operation] = set()
        self._running: set[asyncio.Task[Any]] = set()
        self._ending: HubError | None = None
        self.gate = CommitGate(name, self._loop.time)
        self.snapshots = Snapshots(name, engine, epoch, limits)

    @property
    def idle(self) -> bool:
        """True while no transaction needs this database."""
        return not self._parts and not len(self.snapshots) and not self._running

    @property
    def in_doubt(self) -> TransactionRecord | None:
        """The transaction that somebody should ask its home about."""
        return next((part.record() for part in self._parts.values() if part.in_doubt), None)

    async def recover(self) -> None:
        """Takes over what was prepared when the process died, before anybody may write."""
        recovered = await self._engine.recover()
        if recovered is None:
            return
        self._reached("participant.recovered")
        part = self._part(recovered.header, recovered.since_us)
        part.state, part.advanced = State.PREPARED, recovered.advanced
        self._parts[recovered.header.transaction_id] = part
        await self._lane.hold(self._loop.time() + ENDING_SECONDS)
        await self.gate.enter(self._loop.time() + ENDING_SECONDS)
        self._doubt(part)

    async def advance(self, asked: Asked) -> Advanced:
        """Begins a part if it is not there and takes it on; raises the `HubError` that stops it."""
        if self._ending is not None:
            raise self._ending
        if self.snapshots.has(asked.transaction_id) or (asked.header and asked.header.read_only):
            return await self._asked_for(asked, self.snapshots.advance(asked))
        part = self._parts.get(asked.transaction_id)
        if part is None:
            if asked.header is None:
                return await self._after_the_end(asked)
            part = self._part(asked.header, self._wall_clock_us())
            self._parts[asked.transaction_id] = part
        return await self._asked_for(asked, self._advance(part, asked))

    def _part(self, header: TransactionHeader, since_us: int) -> Part:
        answers = Answers(self._limits.answers_bytes_max)
        return Part(header, self._loop.time(), since_us, answers)

    async def run_whole(self, whole: Whole, control: Operation) -> Advanced:
        """Runs a transaction that has no other participant, in the group commit of the lane."""
        control.transaction = whole
        outcome = await ask(self._lane.submit, control)
        if outcome.error is not None:
            raise outcome.error
        if outcome.advanced is None:
            raise InternalError("a transaction ended without an answer")
        return outcome.advanced

    async def resolve(self, resolution: Resolution) -> Ended:
        """Ends a part and tells how the transaction ended here in truth."""
        header = resolution.header
        if header.read_only or self.snapshots.has(header.transaction_id):
            await self._carry_out(self.snapshots.release(header.transaction_id))
            return ended(TransactionRecord(header=header))
        return await self._carry_out(self._resolve(resolution))

    async def rehearse(
        self, operations: Sequence[SchemaOperation], control: Operation, *, until: float
    ) -> list[SchemaReport]:
        """Runs changes of the schema for their reports, while nothing else is written.

        Waits for the lane until `until`; raises `TransactionConflict` then.
        """
        if self._ending is not None:
            raise self._ending
        self._rehearsals.add(control)
        try:
            return await self._carry_out(self._rehearse(operations, control, until))
        except asyncio.CancelledError:
            control.cancelled = True
            raise
        finally:
            self._rehearsals.discard(control)

    async def _rehearse(
        self, operations: Sequence[SchemaOperation], control: Operation, until: float
    ) -> list[SchemaReport]:
        await self._lane.hold(until)
        try:
            return await self._engine.rehearse(operations, control)
        finally:
            self._lane.release()

    def has(self, transaction_id: str) -> bool:
        """True if a part of the transaction is here."""
        return transaction_id in self._parts

    async def look_up(self, transaction_id: str, request_id: str) -> TransactionRecord | None:
        """Tells what is known of a transaction that lives or has ended."""
        part = self._parts.get(transaction_id)
        if part is not None and part.begun:
            return part.record()
        return await self._engine.look_up(transaction_id, request_id)

    async def hold_commits(self, holder: str, *, until: float, lease_seconds: float) -> None:
        """Holds commits back for at most so long; see `CommitGate.hold`."""
        most = self._limits.hold_seconds_max
        await self.gate.hold(holder, until=until, lease_seconds=min(lease_seconds or most, most))

    async def list(self, *, ended: int) -> list[TransactionRecord]:
        """Tells which transactions are here, and at most so many that ended."""
        records = [p.record() for p in self._parts.values() if p.begun]
        records += self.snapshots.records()
        return records + (await self._engine.ended(ended) if ended else [])

    async def end(self, reason: HubError) -> None:
        """Rolls back what is open; what is prepared stays so on disk, for the next start."""
        self._ending = reason
        for part in self._parts.values():
            part.interrupt(reason)
        for control in self._rehearsals:
            control.cancelled = True
        if self._running:
            await asyncio.wait(self._running)
        for part in list(self._parts.values()):
            try:
                if part.state is State.OPEN:
                    await self._undo(part, Resolution(part.header, commit=False, error=reason))
                else:
                    await self._engine.roll_back()
            except (HubError, EngineLost) as failure:
                _log.warning("could not end", extra={**self._named(part), "detail": str(failure)})
            finally:
                self._leave(part, part.state)
        await self.snapshots.end()

    async def _asked_for(self, asked: Asked, work: Coroutine[Any, Any, Advanced]) -> Advanced:
        """Carries a step out; when the hub went away, its statements are interrupted."""
        try:
            return await self._carry_out(work)
        except asyncio.CancelledError:
            asked.control.cancelled = True
            raise

    async def _carry_out(self, work: Coroutine[Any, Any, Answered]) -> Answered:
        """Runs to its end what a hub asked for, also if the hub does not wait for it."""
        return await asyncio.shield(self._start(self._vouched(work)))

    def _start(self, work: Coroutine[Any, Any, Answered]) -> asyncio.Task[Answered]:
        task = self._loop.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        failure = None if task.cancelled() else task.exception()
        # A refusal is for the hub that asked, which may have gone away; a defect is for the log.
        if failure is not None and not isinstance(failure, HubError):
            _log.error("a step of a transaction broke", exc_info=failure)

    async def _vouched(self, work: Coroutine[Any, Any, Answered]) -> Answered:
        try:
            return await work
        except EngineLost as loss:
            self._lost(loss.error)
            for part in list(self._parts.values()):
                self._leave(part, part.state)
            raise loss.error from loss

    async def _advance(self, part: Part, asked: Asked) -> Advanced:
        async with part.turn:
            begins = part.state is State.ABSENT
            if self._parts.get(asked.transaction_id) is not part:
                return await self._after_the_end(asked)
            if begins:
                await self._join(part, asked.wait_until)
            after = TRANSITIONS[part.state, Verb.BEGIN if begins else _VERBS[asked.step]]
            if after is Answer.AS_BEFORE and part.advanced is not None:
                return part.advanced
            if isinstance(after, Answer):
                raise refusal(after, asked.transaction_id, self._name)
            part.disarm()
            return await self._take_on(part, asked, begins=begins)

    async def _join(self, part: Part, until: float) -> None:
        """Waits for the lane. Who gives up is no part any more."""
        part.waiting = asyncio.current_task()
        try:
            await self._lane.hold(until)
        except asyncio.CancelledError:
            self._parts.pop(part.header.transaction_id, None)
            if part.doomed is None:
                raise
            raise part.doomed from None
        except BaseException:
            self._parts.pop(part.header.transaction_id, None)
            raise
        finally:
            part.waiting = None
        self._reached("participant.begun")

    async def _take_on(self, part: Part, asked: Asked, *, begins: bool) -> Advanced:
        entered = False
        part.control = asked.control
        try:
            if asked.step is Step.PREPARE:
                await self.gate.enter(asked.wait_until)
                entered = True
            advanced = await self._run(part, asked, begins=begins)
        except BaseException as failure:
            if entered:
                self.gate.leave()
            # Its caller did not go away: somebody else rolls back.
            doom = part.doomed if isinstance(failure, Cancelled) else None
            await self._after_failure(part, doom or failure, begins=begins)
            if doom is not None:
                raise doom from failure
            raise
        finally:
            part.control = None
        if advanced.record is not None:
            if entered:
                self.gate.leave()
            self._leave(part, FROM_THE_WIRE[advanced.record.state], advanced.applied)
        else:
            self._stay(part, State.PREPARED if entered else State.OPEN, advanced)
        return advanced

    async def _run(self, part: Part, asked: Asked, *, begins: bool) -> Advanced:
        first = asked.operations[0] if asked.operations else None
        if asked.step is Step.STAY_OPEN and first is not None:
            known = part.answers.find(first)
            if known is not None:
                return Advanced([known], self._epoch, known.sequence)
        try:
            advanced = await self._engine.advance(
                Advance(
                    part.header,
                    begins,
                    asked.operations,
                    asked.step,
                    asked.control,
                    asked.events,
                    asked.decision,
                )
            )
        except HubError as failure:
            if first is not None:
                part.answers.keep_failure(first, failure)
            raise
        part.answers.keep(asked.operations, advanced.results)
        return advanced

    async def _after_failure(self, part: Part, failure: BaseException, *, begins: bool) -> None:
        """The part is still open, or gone; if it was there before, that is written down."""
        if self._engine.is_open and part.state is State.OPEN and isinstance(failure, HubError):
            self._stay(part, State.OPEN, None)
            return
        if self._engine.is_open:
            await self._engine.roll_back()
        self._leave(part, State.ROLLED_BACK)
        if not begins and isinstance(failure, HubError):
            self._end_soon(Resolution(part.header, commit=False, error=failure))

    async def _after_the_end(self, asked: Asked) -> Advanced:
        """The answer for a part that is not there and shall not begin."""
        record = await self._engine.look_up(asked.transaction_id)
        if record is None:
            raise not_found(asked.transaction_id, self._name)
        answer = TRANSITIONS[FROM_THE_WIRE[record.state], _VERBS[asked.step]]
        if answer is Answer.AS_BEFORE:
            return Advanced(list(record.results), self._epoch, record.sequence, record=record)
        if answer is Answer.TOO_LATE:
            raise refusal(Answer.TOO_LATE, asked.transaction_id, self._name)
        raise rolled_back(record)

    async def _resolve(self, resolution: Resolution) -> Ended:
        part = self._parts.get(resolution.header.transaction_id)
        if part is None:
            return await self._resolve_absent(resolution)
        if not resolution.commit:
            part.interrupt(resolution.error or TransactionExpired("it was rolled back"))
        async with part.turn:
            if self._parts.get(resolution.header.transaction_id) is not part:
                return await self._resolve_absent(resolution)
            after = TRANSITIONS[part.state, resolution.verb]
            if isinstance(after, Answer):
                raise refusal(after, resolution.header.transaction_id, self._name)
            part.disarm()
            if after is State.COMMITTED:
                return await self._finish(part, forced=resolution.forced)
            return await self._undo(part, resolution)

    async def _finish(self, part: Part, *, forced: bool) -> Ended:
        self._reached("participant.before_commit")
        try:
            advanced = await self._engine.commit(forced=forced)
        except HubError:
            self._doubt(part)  # it is prepared still, and will be tried again
            raise
        self._reached("participant.committed")
        await self._engine.forget()
        self.gate.leave()
        self._leave(part, State.COMMITTED, advanced.applied)
        self._reached("participant.resolved")
        return ended(advanced.record or TransactionRecord())

    async def _undo(self, part: Part, resolution: Resolution) -> Ended:
        """Rolls back and writes that down before anybody else may write."""
        was_prepared = part.state is State.PREPARED
        await self._engine.roll_back()
        try:
            told = await self._endings.write_now(resolution)
        except HubError:
            if was_prepared:  # it is prepared still, on disk, and will be tried again
                self._doubt(part)
            else:
                self._leave(part, State.ROLLED_BACK)
            raise
        if was_prepared:
            await self._engine.forget()
            self.gate.leave()
        self._leave(part, State.ROLLED_BACK)
        self._reached("participant.resolved")
        return told

    async def _resolve_absent(self, resolution: Resolution) -> Ended:
        header = resolution.header
        record = await self._engine.look_up(header.transaction_id)
        if record is None and (resolution.commit or self._is_too_old(header)):
            raise not_found(header.transaction_id, self._name)
        if record is None:
            return await self._endings.write(resolution)
        if TRANSITIONS[FROM_THE_WIRE[record.state], resolution.verb] is Answer.TOO_LATE:
            raise rolled_back(record)
        return ended(record)

    def _is_too_old(self, header: TransactionHeader) -> bool:
        """True if a record of it could have been forgotten: then nothing found says nothing."""
        if header.home != self._name:
            return False
        age_us = self._wall_clock_us() - header.create_time_us
        other_life = header.home_epoch not in ("", self._epoch)
        return other_life or age_us > self._limits.keep_seconds * MICROSECONDS

    def _stay(self, part: Part, state: State, advanced: Advanced | None) -> None:
        part.state = state
        if state is State.OPEN:
            when = self._limits.expiry(part.header, part.began_at, self._loop.time())
            part.timer = self._loop.call_at(when, self._expire, part)
            return
        part.advanced = advanced
        part.since_us = self._wall_clock_us()
        part.timer = self._loop.call_later(self._limits.in_doubt_seconds, self._doubt, part)
        self._reached("participant.prepared")

    def _expire(self, part: Part) -> None:
        why = TransactionExpired("nothing came for it in time, or it was over its time")
        self._end_soon(Resolution(part.header, commit=False, error=why))

    def _end_soon(self, resolution: Resolution) -> None:
        async def end() -> None:
            try:
                await self._vouched(self._resolve(resolution))
            except HubError as failure:
                _log.warning(
                    "could not record an end",
                    extra={"database": self._name, "detail": failure.message},
                )

        self._start(end())

    def _doubt(self, part: Part) -> None:
        part.in_doubt = True
        _log.warning("a transaction is in doubt", extra=self._named(part))
        self._told()

    def _leave(self, part: Part, state: State, applied: Applied | None = None) -> None:
        part.state = state
        part.disarm()
        if self._parts.pop(part.header.transaction_id, None) is None:
            return
        if applied is not None:
            self._committed(applied)
        self._lane.release()
        if part.in_doubt:
            part.in_doubt = False
            self._told()

    def _named(self, part: Part) -> dict[str, str]:
        return {
            "database": self._name,
            "transaction_id": part.header.transaction_id,
            "correlation_id": part.header.correlation_id,
        }
