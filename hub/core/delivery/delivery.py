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
leave, and the inbox writes one change at a time. So a cancellation comes before the claim, and
then the operation never leaves, or after it, and is refused; a crash changes nothing about either.
While a database cannot be used nothing is claimed, and what was claimed but not begun goes back to
QUEUED.

**Order.** The head of a queue is the first operation that has not ended. A batch begins with it,
and each operation behind it names the one before it, which the storage server wants to find in its
journal first (`Operation.follows`). So every copy that was ever sent either began a batch, and then
all before it had ended for good, or is executed only after the one that it names has an outcome. No
transient failure, lost answer, late copy, crash or failover lets one overtake another. What is
refused for that reason left nothing; it goes with the next batch.

**Failed means never executed.** What was sent is FAILED only once its journal says so: where the
database left no line of a failure, the hub has it record one under the request id (a refusal), and
a copy that comes later, out of a connection that was stuck, is answered with that line. If an
outcome is there already, that is the truth and the ending. While the database cannot be asked the
operation stays RUNNING, however old it becomes: nobody knows yet. That is bounded by the one batch
of a queue that is on its way, and counts as what waits. The two exceptions say `outcome = unknown`
in their error: the journal forgot the time of the first attempt, or the database is not configured
any more.

**Failures.** See `hub.core.delivery.verdict`. What passes is tried again, after a delay that grows
with jitter, until the operation is too old; while a circuit is open nothing is tried, and its trial
lets the queues flow again. What is permanent ends the operation as FAILED and the queue goes on
with the next one: a queue that stops would make one bad statement an outage of its service.
Whoever needs "all or nothing after a failure" wants a transaction. A failure that no journal tells
of (the operation was never sent) is announced by an event of the inbox's own.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from hub.core.backoff import Backoff
from hub.core.circuits.gate import Gate
from hub.core.delivery.dispatch import Again, DeliveryLimits, Destination, Dispatch, Reach
from hub.core.delivery.entries import Ending, Entry, Queue, State
from hub.core.delivery.inbox import Inbox
from hub.core.delivery.verdict import Verdict
from hub.core.routing.routes import Routes
from messagehub.errors import CircuitOpen, HubError, PredecessorMissing

_log = logging.getLogger(__name__)


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
        reach: Reach,
        routes: Routes,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
    ) -> None:
        self._inbox = inbox
        self._limits = limits
        self._dispatch = Dispatch(
            inbox,
            limits,
            destination=destination,
            reach=reach,
            routes=routes,
            clock=clock,
        )
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
        backoff = self._backoff()
        while not self._stopping:
            await gate.wait()
            openings = gate.openings
            self._woken.discard(queue)
            self._busy.add(queue)
            try:
                batch = await self._inbox.claim(queue)
                if not batch and queue not in self._woken:
                    return
                delay = await self._deliver(batch, gate, backoff)
            except HubError as failure:
                _log.warning("the inbox cannot be used", extra={"detail": failure.message})
                delay = backoff.next()
            except Exception:  # noqa: BLE001 - a defect must not end the delivery for ever
                _log.exception("a delivery failed by a defect", extra={"queue": queue})
                delay = backoff.next()
            finally:
                self._busy.discard(queue)
            if delay and not self._stopping:
                await gate.rest(delay, openings)

    async def _deliver(self, left: Sequence[Entry], gate: Gate, backoff: Backoff) -> float:
        """Delivers claimed operations; gives the delay before the next claim.

        Ends early when some have to wait; what was not begun goes back then.
        """
        while left:
            if self._stopping or not gate.is_open:
                await self._put_back(left, ())
                break
            results = await self._dispatch.attempt(left)
            ended = [(e, r) for e, r in zip(left, results, strict=False) if isinstance(r, Ending)]
            if ended:
                backoff.reset()
                await self._record(ended)
            if len(ended) < len(results):
                await self._put_back(left, results)
                return self._delay(left, results, backoff)
            left = left[len(results) :]
        return 0.0

    async def _put_back(self, left: Sequence[Entry], results: Sequence[Ending | Again]) -> None:
        """What was never begun becomes QUEUED again; what may have been done stays RUNNING."""
        untried = [entry for entry in left[len(results) :] if entry.state is State.QUEUED]
        tried: list[Entry] = []
        setback = False
        for entry, result in zip(left, results, strict=False):
            if isinstance(result, Ending):
                continue
            if result.verdict is not Verdict.REFUSED:
                tried.append(entry)
                # Only the head can have one, and it is the first that was tried.
                setback = setback or result.verdict is Verdict.SETBACK
            elif entry.state is State.QUEUED:
                untried.append(entry)
        if untried or tried:
            await self._inbox.postpone(untried, tried, setback=setback)

    def _delay(
        self, left: Sequence[Entry], results: Sequence[Ending | Again], backoff: Backoff
    ) -> float:
        """Gives the seconds until the first operation that waits is tried again."""
        waiting = ((e, r) for e, r in zip(left, results, strict=False) if isinstance(r, Again))
        entry, (failure, _) = next(waiting)
        if isinstance(failure, PredecessorMissing):
            # All before it have ended, so nothing is in its way as the head of the next batch.
            return 0.0
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

    async def _record(self, ended: Sequence[tuple[Entry, Ending]]) -> None:
        """Records endings, however often it takes; without them the operations are sent again."""
        backoff = self._backoff()
        for entry, ending in ended:
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
                await self._inbox.finish(ended)
            except HubError as failure:
                _log.warning("outcomes cannot be recorded", extra={"detail": failure.message})
            else:
                return
            if self._stopping:
                return
            await self._sleep(backoff.next())

    def _backoff(self) -> Backoff:
        return Backoff(
            seconds_min=self._limits.retry_seconds_min,
            seconds_max=self._limits.retry_seconds_max,
            random=self._random,
        )
