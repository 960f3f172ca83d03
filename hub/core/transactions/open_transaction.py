"""One interactive transaction, as this hub serves it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from hub.core.transactions.attempt import Attempt
from messagehub.errors import DeadlineExceeded

if TYPE_CHECKING:
    from hub.core.transactions.transaction import Standing

# A part is called while another is used, if it was not for this share of its idle time.
TOUCH_SHARE: Final = 1 / 8
# So much more than its idle time the parts are told, so that none ends before that is over.
SLACK: Final = 1 / (1 - TOUCH_SHARE)


class OpenTransaction:
    """What this hub remembers of it; the truth is in the databases.

    `clock` gives monotonic seconds, `seconds_left` is how long it may still live. `begun_here` =
    this hub began it, and so ends it when it stops.
    """

    def __init__(
        self,
        attempt: Attempt,
        *,
        clock: Callable[[], float],
        seconds_left: float,
        begun_here: bool,
    ) -> None:
        self.attempt = attempt
        self.header = attempt.header
        self.ends_at = clock() + seconds_left
        self.begun_here = begun_here
        self.keeper: asyncio.Task[None] | None = None
        # Set once somebody leads it to its end, and whether that is a commit.
        self.commits = False
        self.ending: asyncio.Task[Standing] | None = None
        self._clock = clock
        self._turn = asyncio.Lock()
        self._calls = 0
        self._used_at = clock()
        self._touched = dict.fromkeys(attempt.header.databases, clock())

    @property
    def is_busy(self) -> bool:
        """True while a call is under way."""
        return self._calls > 0

    @property
    def is_idle(self) -> bool:
        """True if no call came in its idle time."""
        return not self._calls and self._clock() - self._used_at >= self.header.idle_seconds

    @property
    def is_over(self) -> bool:
        """True if it has lived for as long as it may."""
        return self._clock() >= self.ends_at

    @property
    def check_seconds(self) -> float:
        """How soon somebody should look after it again."""
        left = max(0.0, self.ends_at - self._clock())
        return min(left, self.header.idle_seconds * TOUCH_SHARE)

    @asynccontextmanager
    async def turn(self, deadline: float) -> AsyncIterator[None]:
        """Has the transaction for one call; raises `DeadlineExceeded` if others have it so long."""
        self._calls += 1
        try:
            try:
                async with asyncio.timeout(max(0.0, deadline - self._clock())):
                    await self._turn.acquire()
            except TimeoutError:
                raise DeadlineExceeded(
                    "another call of this transaction took all the time: nothing was done"
                ) from None
            try:
                yield
            finally:
                self._turn.release()
        finally:
            self._calls -= 1
            self._used_at = self._clock()

    def used_elsewhere(self) -> None:
        """Another hub serves it too; whether it is idle has to be looked at again soon."""
        self._used_at = self._clock() - self.header.idle_seconds * (1 - TOUCH_SHARE)

    def touch(self, databases: Iterable[str]) -> None:
        """Parts are called now."""
        self._touched |= dict.fromkeys(databases, self._clock())

    def untouched(self) -> list[str]:
        """The parts that nobody called for a while."""
        oldest = self._clock() - self.header.idle_seconds * TOUCH_SHARE
        return [name for name, at in self._touched.items() if at <= oldest]
