"""Which databases are streamed to this hub: those that somebody subscribes to."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context

from hub.core.events.live_tail import LiveTail


class LiveTails:
    """The live tails by database. One begins with its first user and ends a while after its last.

    `linger_seconds` is that while: a subscriber that comes back at once finds the window warm.
    """

    def __init__(
        self,
        make: Callable[[str], LiveTail],
        *,
        linger_seconds: float,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._make = make
        self._linger_seconds = linger_seconds
        self._sleep = sleep
        self._tails: dict[str, LiveTail] = {}
        self._users: dict[LiveTail, int] = {}
        self._farewells: dict[LiveTail, asyncio.Task[None]] = {}
        self._closed = False

    def acquire(self, database: str) -> LiveTail:
        """Gives the live tail of a database to one more user; each must release it once."""
        tail = self._tails.get(database)
        if tail is None or tail.failure is not None:
            tail = self._tails[database] = self._make(database)
            self._users[tail] = 0
            tail.start()
        self._users[tail] += 1
        if farewell := self._farewells.pop(tail, None):
            farewell.cancel()
        return tail

    def release(self, tail: LiveTail) -> None:
        """One user has gone."""
        self._users[tail] -= 1
        if not self._users[tail] and not self._closed:
            self._farewells[tail] = asyncio.get_running_loop().create_task(
                self._say_farewell(tail), name=f"farewell-{tail.database}", context=Context()
            )

    async def close(self) -> None:
        """Ends every stream at once. Users that are left may still release."""
        self._closed = True
        for farewell in self._farewells.values():
            farewell.cancel()
        for tail in list(self._users):
            await tail.stop()
        if self._farewells:
            await asyncio.wait(self._farewells.values())

    async def _say_farewell(self, tail: LiveTail) -> None:
        if tail.failure is None:
            await self._sleep(self._linger_seconds)
        # From here on `acquire` makes another one.
        if self._tails.get(tail.database) is tail:
            del self._tails[tail.database]
        del self._users[tail]
        await tail.stop()
        del self._farewells[tail]
