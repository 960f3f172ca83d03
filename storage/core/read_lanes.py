"""The readers of a database: a few lanes that drain one queue.

A lane is one trip to a reader's thread, which runs operation after operation until the queue is
empty: at high load a trip is shared by many reads. One lane does the work as long as it keeps
moving. When no lane took anything for a moment although something waits, the running reads are slow
ones, and the next lane is opened: a slow read never holds up those that it arrived with.

A read that runs cannot be set aside, so the last free lane is kept for callers that hold none:
however many slow reads one caller sends, the others find a lane.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Protocol

from messagehub.errors import Cancelled, HubError, InternalError
from storage.core.fair_queue import FairQueue
from storage.core.operation import Operation, Outcome


class Drain(Protocol):
    """How an engine runs reads; see `Engine.drain`."""

    def __call__(
        self,
        lane: int,
        take: Callable[[], Operation | None],
        deliver: Callable[[Operation, Outcome | None], None],
    ) -> Awaitable[None]:
        """Runs what `take` gives until it gives None."""


@dataclass(slots=True, frozen=True)
class ReadLimits:
    """How many lanes, and how long a lane may seem stuck before the next is opened.

    A caller alone has all of them but one.
    """

    lanes_max: int
    stall_seconds: float


def _is_cancelled(outcome: Outcome) -> bool:
    return isinstance(outcome.error, Cancelled)


class ReadLanes:
    """Runs reads; `divert` gets those that turn out to need the writer."""

    def __init__(
        self,
        queue: FairQueue,
        drain: Drain,
        divert: Callable[[Operation], None],
        limits: ReadLimits,
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._drain = drain
        self._divert = divert
        self._limits = limits
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._free = list(range(limits.lanes_max - 1, -1, -1))
        self._lanes: set[asyncio.Task[None]] = set()
        self._ending: HubError | None = None
        self._taken_at: dict[int, float] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._done: deque[tuple[Operation, Outcome | None]] = deque()
        self._flushing = False
        # What runs, since when, and how many lanes each caller holds; changed in lanes' threads.
        self._running: dict[Operation, float] = {}
        self._held: Counter[str] = Counter()
        self._lock = Lock()

    @property
    def idle(self) -> bool:
        """True while nothing runs or waits."""
        return not self._lanes and not len(self._queue)

    def submit(self, operation: Operation) -> None:
        """Queues a read; raises `QueueFull`, or the reason for which the lanes ended."""
        if self._ending is not None:
            raise self._ending
        self._queue.put(operation)
        if self._another_lane_helps():
            self._open_lane()
        elif self._watch is None:
            self._watch_for_stall()

    async def end(self, reason: HubError) -> None:
        """Refuses what waits, interrupts what runs, and returns when all lanes have ended."""
        self._ending = reason
        for operation in self._queue.take_all():
            operation.refuse(reason)
        for operation in list(self._running):
            operation.cancelled = True
        if self._lanes:
            await asyncio.wait(self._lanes)
        self._flush()
        if self._watch is not None:
            self._watch.cancel()

    def _open_lane(self) -> None:
        lane = self._free.pop()
        self._taken_at[lane] = self._clock()
        task = self._loop.create_task(self._run(lane))
        self._lanes.add(task)
        task.add_done_callback(lambda _: self._close_lane(lane, task))

    async def _run(self, lane: int) -> None:
        try:
            await self._drain(lane, partial(self._take, lane), self._deliver)
        except HubError as failure:
            self._refuse_all(failure)

    def _refuse_all(self, failure: HubError) -> None:
        for operation in self._queue.take_all():
            operation.refuse(failure)

    def _close_lane(self, lane: int, task: asyncio.Task[None]) -> None:
        self._lanes.discard(task)
        self._taken_at.pop(lane, None)
        self._free.append(lane)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._refuse_all(InternalError(f"the reader failed: {type(failure).__name__}"))
            self._loop.call_exception_handler({"message": "a reader failed", "exception": failure})
        if self._ending is None and self._another_lane_helps():
            self._open_lane()

    def _another_lane_helps(self) -> bool:
        """True if something waits that may have a lane, and no lane comes for it by itself."""
        return bool(self._free) and not self._moving() and self._queue.offers(self._may_hold)

    def _may_hold(self, service: str) -> bool:
        """True if a caller may have another lane: the last one is for those that hold none."""
        return not self._held[service] or len(self._running) + 1 < self._limits.lanes_max

    def _moving(self) -> bool:
        """True if some lane took an operation a moment ago, and so will be back for the next."""
        now = self._clock()
        return any(
            now - taken_at <= self._limits.stall_seconds for taken_at in self._taken_at.values()
        )

    def _watch_for_stall(self) -> None:
        def look() -> None:
            self._watch = None
            if not len(self._queue) or self._ending is not None:
                return
            if self._another_lane_helps():
                self._open_lane()
            self._watch_for_stall()

        self._watch = self._loop.call_later(self._limits.stall_seconds, look)

    def _take(self, lane: int) -> Operation | None:
        with self._lock:
            operation = self._queue.take(self._may_hold)
            if operation is not None:
                self._taken_at[lane] = self._running[operation] = self._clock()
                self._held[operation.source_service] += 1
        return operation

    def _deliver(self, operation: Operation, outcome: Outcome | None) -> None:
        service = operation.source_service
        with self._lock:
            seconds = self._clock() - self._running.pop(operation)
            self._held[service] -= 1
            if not self._held[service]:
                del self._held[service]
        self._queue.charge(service, seconds)
        self._done.append((operation, outcome))
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while self._done:
            operation, outcome = self._done.popleft()
            if self._ending is not None and outcome is not None and _is_cancelled(outcome):
                operation.refuse(self._ending)
                continue
            if outcome is not None:
                operation.answer(outcome)
                continue
            try:
                self._divert(operation)
            except HubError as refusal:
                operation.refuse(refusal)
