"""The one writer of a database: drains its queue into group commits.

While a group is being committed the next one gathers; nothing waits for a timer. Every operation
gets its outcome after the commit that holds it is on disk, or an error; none is forgotten, also
when the lane ends.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from messagehub.errors import (
    Cancelled,
    DatabaseUnavailable,
    HubError,
    InternalError,
    QueueFull,
    TransactionConflict,
)
from storage.core.engine import EngineLost
from storage.core.fair_queue import FairQueue
from storage.core.operation import Applied, Operation

# How often those who wait behind a holder are looked at: they must hear in time that their time
# is over, or their hub takes the storage server for silent.
LOOK_SECONDS: Final = 0.02
HOLDERS_MAX: Final = 1000


class WriteLane:
    """Runs groups of operations one after the other, as long as it lives.

    Somebody else may hold the lane for a while; holders and groups take turns.
    """

    def __init__(
        self,
        queue: FairQueue,
        apply: Callable[[Sequence[Operation]], Awaitable[Applied]],
        committed: Callable[[Applied], None],
        lost: Callable[[HubError], None],
        *,
        group_operations_max: int,
    ) -> None:
        self._queue = queue
        self._apply = apply
        self._committed = committed
        self._lost = lost
        self._group_operations_max = group_operations_max
        self._ending: HubError | None = None
        self._running: Sequence[Operation] = ()
        self._wanted = asyncio.Event()
        self._holders: deque[asyncio.Future[None]] = deque()
        self._released = asyncio.Event()
        self._held = False
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())

    @property
    def idle(self) -> bool:
        """True while nothing waits and nobody holds the lane."""
        return not self._wanted.is_set() and not self._held

    def submit(self, operation: Operation) -> None:
        """Queues an operation; raises `QueueFull`, or the reason for which the lane ended."""
        if self._ending is not None:
            raise self._ending
        self._queue.put(operation)
        self._wanted.set()

    async def hold(self, until: float) -> None:
        """Waits for the lane and keeps it: nothing is written by others before `release`.

        `until` is a time of the loop's clock; raises `TransactionConflict` then, or the reason for
        which the lane ended.
        """
        if self._ending is not None:
            raise self._ending
        if len(self._holders) >= HOLDERS_MAX:
            raise QueueFull(
                f"{HOLDERS_MAX} transactions wait for the database: run fewer at a time",
                retry_after=1.0,
            )
        turn: asyncio.Future[None] = self._loop.create_future()
        self._holders.append(turn)
        self._wanted.set()
        try:
            async with asyncio.timeout_at(until):
                await turn
        except TimeoutError:
            self._leave(turn)
            raise TransactionConflict(
                "another transaction holds the database: run this one again", retry_after=0.0
            ) from None
        except asyncio.CancelledError:
            self._leave(turn)
            raise

    def release(self) -> None:
        """Lets the lane go on."""
        self._held = False
        self._released.set()

    def refuse(self, reason: HubError) -> None:
        """From now on nothing more is written; `end` may follow."""
        self._ending = self._ending or reason
        self._wanted.set()

    def _leave(self, turn: "asyncio.Future[None]") -> None:
        if turn in self._holders:
            self._holders.remove(turn)
        elif turn.done() and not turn.cancelled() and turn.exception() is None:
            self.release()

    async def end(self, reason: HubError, seconds: float | None = None) -> None:
        """Lets the group under way finish, refuses what waits with `reason`, and returns.

        After so many seconds the group is interrupted: what of it is not done is refused too.
        """
        self.refuse(reason)
        await asyncio.wait([self._task], timeout=seconds)
        for operation in self._running:
            operation.cancelled = True
        await self._task

    async def _run(self) -> None:
        try:
            await self._serve()
        finally:
            self._ending = self._ending or DatabaseUnavailable("the storage server stopped")
            for operation in self._queue.take_all():
                operation.refuse(self._ending)
            while self._holders:
                turn = self._holders.popleft()
                if not turn.done():
                    turn.set_exception(self._ending)
            self._wanted.clear()

    async def _serve(self) -> None:
        while self._ending is None:
            await self._wanted.wait()
            if self._holders:
                await self._lend(self._holders.popleft())
            if self._ending is not None:
                return
            group = self._queue.take_group(self._group_operations_max)
            if group:
                await self._commit(group)
            elif not self._holders:
                self._wanted.clear()

    async def _lend(self, turn: "asyncio.Future[None]") -> None:
        """Gives the lane away and waits until it is back; nobody may wait in vain meanwhile."""
        if turn.done():
            return
        self._held = True
        self._released.clear()
        turn.set_result(None)
        while self._held:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._released.wait()
            except TimeoutError:
                for operation, overdue in self._queue.take_overdue(self._loop.time()):
                    operation.refuse(overdue)

    async def _commit(self, group: list[Operation]) -> None:
        self._running = group
        try:
            applied = await self._apply(group)
        except HubError as failure:
            self._refuse(group, self._told(failure))
            return
        except EngineLost as loss:
            self._ending = loss.error
            self._lost(loss.error)
            self._refuse(group, loss.error)
            return
        except asyncio.CancelledError:
            self._refuse(group, DatabaseUnavailable("the storage server stopped"))
            raise
        except Exception as failure:  # noqa: BLE001 - a defect ends the lane, but answers its callers
            defect = InternalError(f"the engine failed: {type(failure).__name__}")
            self._ending = defect
            self._lost(defect)
            self._refuse(group, defect)
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a writer failed", "exception": failure}
            )
            return
        finally:
            self._running = ()
        self._committed(applied)
        for operation, outcome in zip(group, applied.outcomes, strict=False):
            self._queue.charge(operation.source_service, outcome.seconds)
            if outcome.error is None:
                operation.answer(outcome)
            else:
                operation.answer(replace(outcome, error=self._told(outcome.error)))
        self._queue.put_back(group[len(applied.outcomes) :])

    def _told(self, error: HubError) -> HubError:
        """What was interrupted because the lane ends was not cancelled by its caller."""
        if self._ending is not None and isinstance(error, Cancelled):
            return self._ending
        return error

    @staticmethod
    def _refuse(group: list[Operation], error: HubError) -> None:
        for operation in group:
            operation.refuse(error)
