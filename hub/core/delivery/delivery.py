"""Delivers what the inbox holds: in order for each service and database, exactly once.

**Who owns which state.** The inbox (a file of this hub) owns what was accepted and has no recorded
outcome here. The journal of the database owns what was executed: data, outcome and event are one
commit there, under the operation's request id. This module owns nothing but tasks, one for each
queue that has something; all of it can be lost at any moment.

**What is left when the process dies**

    accepted, not answered            QUEUED; the caller submits again with the same request id and
                                      is told `replayed`
    answered, not delivered           QUEUED; delivered after the restart
    claimed, not sent                 RUNNING; sent after the restart, cannot be taken back any more
    sent, no outcome                  RUNNING; sent again: the journal has it and gives its outcome,
                                      or has not and executes it
    executed, outcome not recorded    the same
    recorded, event not seen          the event is in the journal; a subscriber resumes by cursor

**Why this is exactly once.** It is sent at least once, always with the same request id, and a
journal executes a request id once for as long as it remembers it. That is the one condition. So
`age_seconds_max` of the inbox must be below the age that storage servers keep their journals for:
what is older is not sent. And because they also trim by size, and the hub does not know their
settings, what may have been executed is not sent again before the journal was asked whether it
still reaches back to the first attempt. If it does not, the operation fails, and says that its
outcome cannot be known.

**Cancelled means never executed.** A claim makes operations RUNNING on disk before the first can
leave, and the inbox writes one change at a time. So a cancellation comes before the claim, and then
the operation never leaves, or after it, and is refused; a crash changes nothing about either. While
a database cannot be used nothing is claimed, and what was claimed but not sent goes back to QUEUED.

**Order.** One operation of a queue is on its way at a time. Writes of one caller keep their order
in the storage server, but with several on their way one could fail for a passing reason (its time
was over, a queue was full) and those behind it would be executed before it. Only the storage
server could stop them, so here the next one waits for the outcome. What cannot be reordered is
shared: operations of different queues travel in the same frames and commit together, claims are
made for several operations at once, and an outcome is recorded while the next operation is sent.

**Failures.** See `hub.core.delivery.verdict`. What passes is tried again, after a delay that grows
with jitter, until the operation is too old; while a circuit is open nothing is tried, and its trial lets
the queues flow again. What is permanent ends the operation as FAILED and the queue goes on with
the next one: a queue that stops would make one bad statement an outage of its service. Whoever
needs "all or nothing after a failure" wants a transaction. A failure that the journal does not
tell of (the operation never ran) is announced by an event of the inbox's own.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from hub.core.backoff import Backoff
from hub.core.circuits.gate import Gate
from hub.core.delivery.entries import HUB, Ending, Entry, Queue, State
from hub.core.delivery.inbox import MICROSECONDS, Inbox
from hub.core.delivery.verdict import Verdict, judge
from hub.core.ports import Operation, Outcome, Storage
from hub.core.routing.routes import Routes
from messagehub.errors import CircuitOpen, DeadlineExceeded, HubError, RequestIdReused

# How far the clocks of hub and storage servers may be apart.
CLOCKS_APART_US: Final = 60 * MICROSECONDS

_log = logging.getLogger(__name__)


class Destination(Protocol):
    """Where operations are delivered to."""

    async def deliver(self, operation: Operation, seconds: float) -> Outcome:
        """Executes an operation; raises the `HubError` that it ended with."""


class Reach(Protocol):
    """How far back the journals reach."""

    async def reaches(self, database: str, time_us: int) -> bool:
        """True if the journal still has everything since a time; raises a `HubError`."""


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """The bounds of the delivery; see `HubConfig` for defaults.

    `attempt_seconds` bounds one attempt; it must be longer than a storage server lets a statement
    run, so that it is the storage server that says that one takes too long. `setbacks_max` is how
    often it may say so before the operation has failed.
    """

    attempt_seconds: float
    setbacks_max: int
    retry_seconds_min: float
    retry_seconds_max: float


class _Again(NamedTuple):
    """An attempt that decided nothing."""

    failure: HubError
    verdict: Verdict


class Delivery:
    """Drains the queues of an inbox, between `start` and `stop`.

    `clock` is monotonic, in seconds; `random` gives numbers in [0, 1).
    """

    def __init__(
        self,
        inbox: Inbox,
        limits: DeliveryLimits,
        *,
        destination: Destination,
        storage: Storage,
        reach: Reach,
        routes: Routes,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
    ) -> None:
        self._inbox = inbox
        self._limits = limits
        self._destination = destination
        self._storage = storage
        self._reach = reach
        self._routes = routes
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._gates = {database: Gate(sleep) for database in routes.databases}
        self._drains: dict[Queue, asyncio.Task[None]] = {}
        self._woken: set[Queue] = set()
        self._busy: set[Queue] = set()
        self._stopping = False

    async def start(self) -> None:
        """Opens the inbox and begins with what an earlier process left in it."""
        await self._inbox.open(self.wake)

    async def stop(self, seconds: float) -> None:
        """Ends; what is on its way may finish within `seconds`, the rest stays in the inbox."""
        self._stopping = True
        for queue, drain in self._drains.items():
            if queue not in self._busy:
                drain.cancel()
        if drains := set(self._drains.values()):
            _, late = await asyncio.wait(drains, timeout=seconds)
            for drain in late:
                drain.cancel()
            await asyncio.wait(drains)

    def wake(self, queue: Queue) -> None:
        """Something waits in a queue."""
        self._woken.add(queue)
        drain = self._drains.get(queue)
        if not self._stopping and (drain is None or drain.done()):
            self._drains[queue] = asyncio.create_task(
                self._drain(queue), name=f"deliver-{queue.owner}-{queue.database}"
            )

    def set_available(self, database: str, *, available: bool) -> None:
        """A database can be used, or cannot: its storage server says so, or its circuit is open.

        Nothing is claimed while it cannot; circuits make their trials by themselves.
        """
        self._gates[database].set(is_open=available)

    async def _drain(self, queue: Queue) -> None:
        gate = self._gates.get(queue.database) or Gate(self._sleep)
        backoff = Backoff(
            seconds_min=self._limits.retry_seconds_min,
            seconds_max=self._limits.retry_seconds_max,
            random=self._random,
        )
        while not self._stopping:
            await gate.wait()
            self._woken.discard(queue)
            self._busy.add(queue)
            try:
                batch = await self._inbox.claim(queue)
                if not batch and queue not in self._woken:
                    return
                delay = await self._deliver_all(batch, gate, backoff)
            except HubError as failure:
                _log.warning("the inbox cannot be used", extra={"detail": failure.message})
                delay = backoff.next()
            except Exception:  # noqa: BLE001 - a defect must not end the delivery for ever
                _log.exception("a delivery failed by a defect", extra={"queue": queue})
                delay = backoff.next()
            finally:
                self._busy.discard(queue)
            if delay and not self._stopping:
                await gate.rest(delay)

    async def _deliver_all(self, batch: Sequence[Entry], gate: Gate, backoff: Backoff) -> float:
        """Delivers claimed operations one after the other; gives the delay before the next claim.

        Ends early when one has to wait: those behind it go back.
        """
        recording: asyncio.Task[None] | None = None
        try:
            for place, entry in enumerate(batch):
                if self._stopping or not gate.is_open:
                    await self._put_back(batch[place:])
                    break
                done = await self._attempt(entry)
                if isinstance(done, _Again):
                    await self._put_back(batch[place:], done)
                    return self._delay(entry, done, backoff)
                backoff.reset()
                if recording is not None:
                    await recording
                recording = asyncio.create_task(self._record(entry, done))
        finally:
            if recording is not None:
                await recording
        return 0.0

    async def _put_back(self, left: Sequence[Entry], again: _Again | None = None) -> None:
        """What never left becomes QUEUED again; what may have left stays RUNNING."""
        tried = None
        if again is not None and again.verdict is not Verdict.REFUSED:
            tried, left = left[0], left[1:]
        untried = [entry for entry in left if entry.state is State.QUEUED]
        if untried or tried is not None:
            setback = again is not None and again.verdict is Verdict.SETBACK
            await self._inbox.postpone(untried, tried, setback=setback)

    def _delay(self, entry: Entry, again: _Again, backoff: Backoff) -> float:
        failure = again.failure
        seconds = backoff.next()
        if failure.retry_after is not None:
            # The next trial of a circuit is not to be missed.
            seconds = 0.0 if isinstance(failure, CircuitOpen) else seconds
            seconds = max(seconds, failure.retry_after)
        _log.info(
            "an operation is delivered again later",
            extra={
                "correlation_id": entry.correlation_id,
                "request_id": entry.request_id,
                "database": entry.queue.database,
                "reason": failure.reason,
                "detail": failure.message,
                "seconds": seconds,
            },
        )
        return seconds

    async def _attempt(self, entry: Entry) -> Ending | _Again:
        try:
            obstacle = await self._obstacle(entry)
            if obstacle is not None:
                return await self._fail(entry, obstacle, sent=entry.state is State.RUNNING)
        except HubError as failure:
            # A question about the operation has no answer yet; it was not sent.
            return _Again(failure, Verdict.REFUSED)
        return await self._send(entry)

    async def _obstacle(self, entry: Entry) -> HubError | None:
        """Why an operation must not be sent; None if it may."""
        if (stale := self._inbox.too_old(entry)) is not None:
            return stale
        owner, database = entry.queue
        # The configuration may have changed since it was accepted.
        try:
            if owner != HUB:
                self._routes.resolve_writable(owner, database)
            else:
                self._routes.check_database(database)
        except HubError as refusal:
            return refusal
        if entry.state is State.RUNNING and not await self._remembers(entry):
            return _forgotten(entry)
        return None

    async def _send(self, entry: Entry) -> Ending | _Again:
        operation = Operation(
            database=entry.queue.database,
            read_only=False,
            source_service=entry.source_service,
            correlation_id=entry.correlation_id,
            request_id=entry.request_id,
            content=entry.content,
            submitted=entry.queue.owner != HUB,
        )
        began = self._clock()
        try:
            outcome = await self._destination.deliver(operation, self._limits.attempt_seconds)
        except HubError as failure:
            answered = self._clock() - began < self._limits.attempt_seconds
            verdict = judge(failure, answered=answered)
            often = verdict is Verdict.SETBACK and entry.setbacks + 1 >= self._limits.setbacks_max
            if verdict is not Verdict.FINAL and not often:
                return _Again(failure, verdict)
            try:
                return await self._fail(entry, failure, sent=True)
            except HubError as silence:
                return _Again(silence, Verdict.LATER)
        return Ending(
            State.COMPLETED,
            result=outcome.result,
            sequence=outcome.sequence,
            attempts=entry.attempts + 1,
        )

    async def _fail(self, entry: Entry, error: HubError, *, sent: bool) -> Ending:
        """Gives the ending of an operation that cannot succeed any more.

        If it was ever sent, the journal has the last word. Raises a `HubError` if that cannot be
        had.
        """
        attempts = entry.attempts + int(sent)
        known = entry.queue.database in self._routes.databases
        if sent and known and not isinstance(error, RequestIdReused):
            recorded = await self._storage.look_up(
                entry.queue.database,
                entry.request_id,
                correlation_id=entry.correlation_id,
                seconds=self._limits.attempt_seconds,
            )
            if recorded is not None and recorded.source_service == entry.source_service:
                state = State.COMPLETED if recorded.error is None else State.FAILED
                return Ending(state, recorded.result, recorded.error, recorded.sequence, attempts)
            if entry.state is State.RUNNING and not await self._remembers(entry):
                error = _forgotten(entry)
        announced = known and entry.queue.owner != HUB
        return Ending(State.FAILED, error=error, attempts=attempts, announced=announced)

    async def _remembers(self, entry: Entry) -> bool:
        """True if the journal still knows about an operation that may have been executed."""
        since = entry.update_time_us - CLOCKS_APART_US
        return await self._reach.reaches(entry.queue.database, since)

    async def _record(self, entry: Entry, ending: Ending) -> None:
        """Records an ending, however often it takes; without it the operation is sent again."""
        backoff = Backoff(
            seconds_min=self._limits.retry_seconds_min,
            seconds_max=self._limits.retry_seconds_max,
            random=self._random,
        )
        if ending.error is not None:
            _log.warning(
                "a submitted operation failed",
                extra={
                    "correlation_id": entry.correlation_id,
                    "request_id": entry.request_id,
                    "service": entry.source_service,
                    "database": entry.queue.database,
                    "reason": ending.error.reason,
                    "detail": ending.error.message,
                },
            )
        while True:
            try:
                await self._inbox.finish(entry, ending)
            except HubError as failure:
                _log.warning("an outcome cannot be recorded", extra={"detail": failure.message})
            else:
                return
            if self._stopping:
                return
            await self._sleep(backoff.next())


def _forgotten(entry: Entry) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the operation may have been executed, and the journal of {entry.queue.database} does not "
        "reach back far enough any more to tell: look at the data before you submit it again",
        metadata={"outcome": "unknown"},
    )
