"""The one live stream of a database's journal in this hub, however many subscribe."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from contextvars import Context
from typing import Final

from hub.core.events.bursts import Pace, bursts
from hub.core.events.commits import CommitAssembler
from hub.core.events.journal import Journal, JournalPage, Position
from hub.core.events.parking import Follower, Parking
from hub.core.events.retries import Retries
from hub.core.events.window import Window
from messagehub.errors import (
    CursorEpochChanged,
    CursorExpired,
    HubError,
    InternalError,
    StorageUnavailable,
)

LOST_POSITION: Final = (CursorExpired, CursorEpochChanged)

_log = logging.getLogger(__name__)


class LiveTail:
    """Fills the window of one database from the journal and tells the followers.

    A follower that has everything *parks*: from then on its position is the window's end, so
    that what it does not want passes it by without any work for it. The first commit that it
    wants unparks it. A follower that waits for something else *watches*: it is woken once, by
    whatever comes next.

    When the stream breaks it is begun again where it ended. When that position is lost (the
    journal was trimmed or replaced meanwhile), the window begins anew at the journal's end, and
    the followers learn from the journal itself what became of their positions.
    """

    def __init__(
        self,
        database: str,
        journal: Journal,
        *,
        window_bytes_max: int,
        retries: Retries,
        pace: Pace,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.database = database
        self.window: Window | None = None
        # The reason why nothing will come any more.
        self.failure: HubError | None = None
        self.connected = asyncio.Event()
        # How often the stream was begun, and whether it broke or could not be begun since.
        self.connections = 0
        self.interrupted = False
        self._journal = journal
        self._window_bytes_max = window_bytes_max
        self._retries = retries
        self._pace = pace
        self._sleep = sleep
        self._assembler = CommitAssembler()
        self._parked = Parking()
        self._watching: set[Follower] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to stream."""
        # In a context of its own: it outlives the call that happens to be the first to need it.
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name=f"live-tail-{self.database}", context=Context()
        )
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Ends the stream; the window stays as it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def park(self, follower: Follower) -> None:
        """Takes a follower that has everything up to the window's end."""
        self._parked.add(follower)

    def watch(self, follower: Follower) -> None:
        """Wakes the follower at the next change."""
        self._watching.add(follower)

    def leave(self, follower: Follower) -> None:
        """Forgets a follower."""
        self._watching.discard(follower)
        self._parked.discard(follower)

    async def _run(self) -> None:
        while True:
            after = self.window.position if self.window else None
            try:
                async with (
                    aclosing(self._journal.tail(self.database, after)) as pages,
                    aclosing(bursts(pages, self._pace)) as gathered,
                ):
                    async for burst in gathered:
                        for page in burst:
                            self._take(page)
                failure: HubError = StorageUnavailable("the storage server ended the stream")
            except HubError as refusal:
                failure = refusal
            self._interrupt(failure)
            try:
                delay = self._retries.delay(failure)
            except HubError as final:
                if self.window is None or not isinstance(final, LOST_POSITION):
                    self._fail(final)
                    return
                self._lose_position(self.window)
                continue
            await self._sleep(delay)

    def _take(self, page: JournalPage) -> None:
        if self.connected.is_set():
            self._retries.succeeded()
        else:
            self._connect(page)
        window = self.window
        if window is None:
            return
        before = window.position
        complete = self._assembler.feed(page)
        end = complete[-1].sequence if complete else window.end
        window.append(complete, max(end, page.boundary))
        if self._assembler.held_bytes > self._window_bytes_max:
            window.begin_beyond(self._assembler.held[-1].sequence)
            self._assembler.drop()
            _unpark(self._parked.take_all(), before)
        elif complete:
            _unpark(self._parked.take_interested(complete), before)
        self._wake_watching()

    def _connect(self, page: JournalPage) -> None:
        if self.window is None:
            self.window = Window(Position(page.epoch, page.boundary), self._window_bytes_max)
        if self.interrupted:
            _log.info("live events resumed", extra={"database": self.database})
        self.connections += 1
        self.interrupted = False
        self.connected.set()

    def _interrupt(self, failure: HubError) -> None:
        level = logging.DEBUG if self.interrupted else logging.WARNING
        self.interrupted = True
        self.connected.clear()
        self._assembler.drop()
        self._wake_watching()
        _log.log(
            level,
            "live events interrupted",
            extra={"database": self.database, "reason": failure.reason, "detail": failure.message},
        )

    def _lose_position(self, window: Window) -> None:
        self.window = None
        _unpark(self._parked.take_all(), window.position)

    def _fail(self, failure: HubError) -> None:
        self.failure = failure
        if self.window is not None:
            _unpark(self._parked.take_all(), self.window.position)
        self._wake_watching()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (defect := task.exception()) is None:
            return
        _log.error("live events ended", exc_info=defect, extra={"database": self.database})
        self._fail(InternalError(f"the hub cannot stream {self.database}: its log says why"))

    def _wake_watching(self) -> None:
        watching, self._watching = self._watching, set()
        for follower in watching:
            follower.wake()


def _unpark(followers: Iterable[Follower], position: Position) -> None:
    for follower in followers:
        follower.unpark(position)
