"""Holding commits back for a moment, so that snapshots of several databases form one cut.

A holder waits until no transaction is prepared, and none becomes so before the holder lets go or
its lease is over. Then no transaction can be half way in any two databases that it holds.
"""

import asyncio
from collections.abc import Callable

from messagehub.errors import TransactionConflict


class CommitGate:
    """The gate of one database. Everything runs on the loop.

    Who prepares passes through `enter`, and calls `leave` when that transaction is resolved.
    """

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self._name = name
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._holders: dict[str, asyncio.TimerHandle] = {}
        self._inside = 0
        self._changed = asyncio.Event()

    async def enter(self, until: float) -> None:
        """Waits until nobody holds commits; raises `TransactionConflict` after `until`."""
        await self._wait(lambda: not self._holders, until, "readers of a consistent cut hold it")
        self._inside += 1

    def leave(self) -> None:
        """A transaction that entered is resolved."""
        self._inside -= 1
        self._ring()

    async def hold(self, holder: str, *, until: float, lease_seconds: float) -> None:
        """Holds commits; raises `TransactionConflict` if one is still under way at `until`.

        Nobody enters meanwhile, or readers could wait for ever behind writers.
        """
        self._keep(holder, until - self._clock() + lease_seconds)
        try:
            await self._wait(lambda: not self._inside, until, "a transaction is being committed")
        except BaseException:
            self.release(holder)
            raise
        self._keep(holder, lease_seconds)

    def release(self, holder: str) -> bool:
        """Lets commits go on; False if the lease was over before."""
        timer = self._holders.pop(holder, None)
        if timer is None:
            return False
        timer.cancel()
        self._ring()
        return True

    def _keep(self, holder: str, seconds: float) -> None:
        if (timer := self._holders.get(holder)) is not None:
            timer.cancel()
        self._holders[holder] = self._loop.call_later(seconds, self.release, holder)

    def _ring(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self, is_free: Callable[[], bool], until: float, why: str) -> None:
        try:
            async with asyncio.timeout(until - self._clock()):
                while not is_free():
                    await self._changed.wait()
        except TimeoutError:
            raise TransactionConflict(
                f"{self._name} was not free in time: {why}", retry_after=0.0
            ) from None
