"""The newest events of a journal in memory, and how a message is filled from a run of events."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

from hub.core.events.event_filter import EventFilter
from hub.core.events.journal import JournalEvent, Position

# Forgotten events are cut off many at a time, so that forgetting one costs next to nothing;
# until then a stand-in without payload keeps their place.
FORGOTTEN_EVENTS_MAX: Final = 1024
# How many different questions between two commits are answered from memory.
KEPT_MAX: Final = 64
_FORGOTTEN: Final = JournalEvent(0, "", "", "", "", 0, None)


class Share(NamedTuple):
    """How much of a message one database may fill.

    A message ends at the end of a commit, before `events` or `bytes` are exceeded. A commit that
    alone exceeds them is taken whole up to `commit_bytes`, and only beyond that in pieces.
    After `scanned` events that were looked at, it ends with their commit.
    """

    events: int
    bytes: int
    commit_bytes: int
    scanned: int


class Taken(NamedTuple):
    """What one go gave: events, how far it read, and the newest end of a commit in that, if any."""

    events: Sequence[JournalEvent]
    read: int
    boundary: int | None


def take(run: Sequence[JournalEvent], first: int, event_filter: EventFilter, share: Share) -> Taken:
    """Takes wanted events from a run that is not empty, beginning with its element `first`."""
    events: list[JournalEvent] = []
    size = 0
    complete = 0  # how many of `events` belong to commits that were taken wholly
    boundary: int | None = None
    read = run[first].sequence
    for index in range(first, len(run)):
        event = run[index]
        if event_filter.matches(event):
            if len(events) >= share.events or size + event.size > share.bytes:
                if boundary is not None:
                    return Taken(events[:complete], boundary, boundary)
                if events and size + event.size > share.commit_bytes:
                    break
            events.append(event)
            size += event.size
        read = event.sequence
        if event.ends_commit:
            boundary = read
            complete = len(events)
            if index - first >= share.scanned:
                break
    return Taken(events, read, boundary)


class Window:
    """The events of whole commits between `start` and `end`, at most `bytes_max` of them.

    Both are sequences of one epoch: a reader that has everything up to a position inside finds
    everything after it here. `end` is always the end of a commit. While a commit that is larger
    than the window comes in, `start` is beyond `end` and no position is inside.
    """

    def __init__(self, position: Position, bytes_max: int) -> None:
        self.epoch = position.epoch
        self.start = self.end = position.sequence
        self._bytes_max = bytes_max
        self._bytes = 0
        self._events: list[JournalEvent] = []
        self._sequences: list[int] = []
        self._forgotten = 0
        # Followers that keep up ask for the same, one right after the other.
        self._taken: dict[tuple[int, EventFilter, Share], Taken] = {}

    @property
    def bytes(self) -> int:
        """The size of the events that are kept."""
        return self._bytes

    @property
    def position(self) -> Position:
        """The newest position."""
        return Position(self.epoch, self.end)

    def holds(self, position: Position) -> bool:
        """Tells whether everything after a position is here."""
        return position.epoch == self.epoch and self.start <= position.sequence <= self.end

    def append(self, events: Sequence[JournalEvent], end: int) -> None:
        """Takes whole commits, and forgets the oldest events beyond the bound."""
        self._taken.clear()
        for event in events:
            self._events.append(event)
            self._sequences.append(event.sequence)
            self._bytes += event.size
        while self._bytes > self._bytes_max:
            oldest = self._events[self._forgotten]
            self._events[self._forgotten] = _FORGOTTEN
            self._forgotten += 1
            self._bytes -= oldest.size
            self.start = oldest.sequence
        if self._forgotten > FORGOTTEN_EVENTS_MAX:
            self._cut_off_forgotten()
        self.end = end

    def begin_beyond(self, sequence: int) -> None:
        """Forgets everything; from now on only what follows a sequence is kept."""
        self._taken.clear()
        self._events.clear()
        self._sequences.clear()
        self._bytes = self._forgotten = 0
        self.start = sequence

    def take(self, after: int, event_filter: EventFilter, share: Share) -> Taken:
        """Takes wanted events after a sequence that is inside and not the end.

        Whoever asks for the same before the next commit gets the same, which nobody may change.
        """
        asked = (after, event_filter, share)
        taken = self._taken.get(asked)
        if taken is None:
            if len(self._taken) >= KEPT_MAX:
                self._taken.clear()
            taken = self._taken[asked] = self._take(after, event_filter, share)
        return taken

    def _take(self, after: int, event_filter: EventFilter, share: Share) -> Taken:
        first = bisect_right(self._sequences, after, lo=self._forgotten)
        if first == len(self._events):
            return Taken([], self.end, self.end)
        return take(self._events, first, event_filter, share)

    def _cut_off_forgotten(self) -> None:
        del self._events[: self._forgotten]
        del self._sequences[: self._forgotten]
        self._forgotten = 0
