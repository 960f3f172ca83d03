"""Whether a database can be used, for those who wait until it can."""

import asyncio
from collections.abc import Awaitable, Callable


class Gate:
    """Open until somebody says otherwise; `openings` counts how often it opened after that."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._sleep = sleep
        self._open = asyncio.Event()
        self._open.set()
        self._opened = asyncio.Event()
        self.openings = 0

    @property
    def is_open(self) -> bool:
        """True while the database can be used, as far as is known."""
        return self._open.is_set()

    def set(self, *, is_open: bool) -> None:
        """The database can be used from now on, or cannot."""
        if not is_open:
            self._open.clear()
        elif not self.is_open:
            self._open.set()
            self.openings += 1
            self._opened.set()
            self._opened = asyncio.Event()

    async def wait(self) -> None:
        """Returns once it is open."""
        await self._open.wait()

    async def rest(self, seconds: float, openings: int) -> None:
        """Returns after a while, or as soon as it has opened more than `openings` times.

        What somebody rests from may lie a moment back, and it may have opened meanwhile.
        """
        if self.openings > openings:
            return
        waits = {
            asyncio.ensure_future(self._sleep(seconds)),
            asyncio.ensure_future(self._opened.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
