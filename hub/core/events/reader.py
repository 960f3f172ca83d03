"""How far one subscription has read one database, and where it reads next.

          ┌── position inside the window ──▶ reads the window ──▶ at its end: parks
position ─┼── position before it ──────────▶ reads the journal, a piece at a time
          └── ahead of it, other epoch ────▶ has the journal check it, then watches
"""

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from dataclasses import dataclass
from operator import attrgetter

from hub.core.events.commits import CommitAssembler
from hub.core.events.event_filter import EventFilter
from hub.core.events.journal import Journal, JournalEvent, JournalPage, Position
from hub.core.events.live_tail import LiveTail
from hub.core.events.retries import Retries
from hub.core.events.window import Share, Window, take
from messagehub.errors import HubError

_sequence_of = attrgetter("sequence")


@dataclass(frozen=True, slots=True)
class JournalReads:
    """How readers read journals: so many at a time in the whole hub, so many bytes at once."""

    journal: Journal
    slots: asyncio.Semaphore
    bytes_max: int
    make_retries: Callable[[], Retries]
    sleep: Callable[[float], Awaitable[None]]


class Reader:
    """One database of one subscription.

    It holds nothing but positions while it is up to date or reads the window, and at most one
    piece of the journal while it catches up. `settled` becomes True when it is known that the
    position can be read from, or that nobody can say so at the moment.
    """

    __slots__ = (
        "_at",
        "_boundary",
        "_checked",
        "_epoch",
        "_fetching",
        "_on_wake",
        "_parked",
        "_read",
        "_reads",
        "_run",
        "_tail",
        "event_filter",
        "settled",
    )

    def __init__(
        self,
        tail: LiveTail,
        reads: JournalReads,
        event_filter: EventFilter,
        position: Position,
        on_wake: Callable[[], None],
    ) -> None:
        self.event_filter = event_filter
        self.settled = False
        self._tail = tail
        self._reads = reads
        self._on_wake = on_wake
        self._epoch = position.epoch
        # Events up to `_read` are handed on; a cursor may stand at `_boundary`.
        self._read = self._boundary = position.sequence
        self._parked = False
        self._run: Sequence[JournalEvent] = ()
        self._at = 0
        self._fetching: asyncio.Task[Sequence[JournalPage]] | None = None
        # The connection of the tail during which the journal accepted a position ahead of it.
        self._checked = -1

    @property
    def tail(self) -> LiveTail:
        """The live tail of the database."""
        return self._tail

    @property
    def position(self) -> Position:
        """The newest end of a commit that everything is handed on up to."""
        if self._parked and self._tail.window is not None:
            return self._tail.window.position
        return Position(self._epoch, self._boundary)

    def ready(self) -> bool:
        """Tells whether `take` has something to look at; if not, a wake-up will come.

        Raises the `HubError` that the database or the position ends with.
        """
        if self._parked:
            return False
        if self._tail.failure is not None:
            raise copy(self._tail.failure)
        if self._fetching is not None and self._fetching.done():
            self._use(self._fetching.result())
        if self._run:
            return True
        if self._fetching is not None:
            return False
        window = self._tail.window
        if window is None:
            self.settled = self.settled or self._tail.interrupted
            self._tail.watch(self)
            return False
        return self._look_at(window)

    def take(self, share: Share) -> Sequence[JournalEvent]:
        """Gives the wanted events of the next stretch; maybe none, but always gets on."""
        if self._run:
            taken = take(self._run, self._at, self.event_filter, share)
            self._at = bisect_right(self._run, taken.read, lo=self._at, key=_sequence_of)
            if self._at == len(self._run):
                self._run, self._at = (), 0
        else:
            window = self._tail.window
            if window is None:
                return []
            taken = window.take(self._read, self.event_filter, share)
        self._read = taken.read
        if taken.boundary is not None:
            self._boundary = taken.boundary
        return taken.events

    def unpark(self, position: Position) -> None:
        """Gives the position back that the tail kept; see `LiveTail`."""
        self._parked = False
        self._epoch = position.epoch
        self._read = self._boundary = position.sequence
        self._on_wake()

    def wake(self) -> None:
        """Lets the subscription look again."""
        self._on_wake()

    def close(self) -> None:
        """Ends all reading; the position stays as it is."""
        if self._parked:
            self._epoch, self._boundary = self.position
            self._parked = False
        self._tail.leave(self)
        self._run = ()
        if self._fetching is not None:
            self._fetching.cancel()

    def _look_at(self, window: Window) -> bool:
        if window.holds(Position(self._epoch, self._read)):
            self.settled = True
            if self._read != window.end:
                return True
            self._parked = True
            self._tail.park(self)
        elif self._epoch == window.epoch and self._read < window.start:
            self._fetch(until=max(window.start, window.end))
        elif self._checked != self._tail.connections:
            self._checked = self._tail.connections
            self._fetch(until=self._read)
        else:
            self._tail.watch(self)
        return False

    def _fetch(self, *, until: int) -> None:
        after = Position(self._epoch, self._read)
        self._fetching = asyncio.get_running_loop().create_task(
            self._read_journal(after, until), name=f"journal-{self._tail.database}"
        )
        self._fetching.add_done_callback(self._fetched)

    def _fetched(self, task: asyncio.Task[Sequence[JournalPage]]) -> None:
        # Also tells asyncio that the exception of an abandoned task is known.
        if not task.cancelled() and task.exception() is not None:
            self.settled = True
        self._on_wake()

    async def _read_journal(self, after: Position, until: int) -> Sequence[JournalPage]:
        retries = self._reads.make_retries()
        while True:
            try:
                async with self._reads.slots:
                    return await self._reads.journal.read(
                        self._tail.database, after, until=until, bytes_max=self._reads.bytes_max
                    )
            except HubError as failure:
                delay = retries.delay(failure)
            self.settled = True
            self._on_wake()
            await self._reads.sleep(delay)
            await self._tail.connected.wait()

    def _use(self, pages: Sequence[JournalPage]) -> None:
        self._fetching = None
        self.settled = True
        assembler = CommitAssembler()
        complete = [event for page in pages for event in assembler.feed(page)]
        # A commit that is larger than a piece comes in several, without an end in between.
        self._run = complete or assembler.held
        if not self._run and pages:
            self._read = max(self._read, pages[-1].boundary)
            self._boundary = self._read
