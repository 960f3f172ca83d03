"""The end of a journal in memory: recent events, and a bell for those who wait for more.

A follower that is inside the window reads from memory what was just committed; one that fell
behind reads the journal. So a slow follower costs nothing but its own position.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from itertools import islice

from messagehub.v1.event_pb2 import Event


class Tail:
    """The newest events of one database, at most so many bytes of them."""

    def __init__(self, bytes_max: int, sequence: int) -> None:
        self._bytes_max = bytes_max
        self._events: deque[tuple[int, Event, int]] = deque()
        self._bytes = 0
        self._window_start = sequence
        self._bell = asyncio.Event()
        self.sequence = sequence
        self.ended = False

    def append(self, events: list[Event], sequence: int) -> None:
        """Takes the events of a commit, which end at `sequence`, and rings the bell."""
        for event in events:
            size = event.ByteSize()
            self._events.append((event.sequence, event, size))
            self._bytes += size
        while self._bytes > self._bytes_max and self._events:
            self._window_start, _, size = self._events.popleft()
            self._bytes -= size
        self.sequence = max(self.sequence, sequence)
        self._bell.set()
        self._bell = asyncio.Event()

    def after(self, sequence: int, limit: int, bytes_max: int) -> list[Event] | None:
        """Gives the events after a position; None if the window begins later.

        At most `limit` of them, and about `bytes_max`, but at least one if there is one.
        """
        if sequence < self._window_start:
            return None
        first = bisect_right(self._events, sequence, key=lambda entry: entry[0])
        events: list[Event] = []
        total = 0
        for _, event, size in islice(self._events, first, first + limit):
            total += size
            if events and total > bytes_max:
                break
            events.append(event)
        return events

    async def more(self) -> None:
        """Waits for the next commit."""
        await self._bell.wait()

    def end(self) -> None:
        """Wakes every follower; there will be no more."""
        self.ended = True
        self._bell.set()
