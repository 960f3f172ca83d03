"""One follower of a journal: from memory while it keeps up, from the engine while it does not."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from messagehub.v1.event_pb2 import Event
from storage.core.tail import Tail


@dataclass(slots=True, frozen=True)
class FollowLimits:
    """The bounds of one message, and how long a follower is told nothing."""

    message_events_max: int
    message_bytes_max: int
    heartbeat_seconds: float


def whole_commits(
    events: Sequence[Event], boundary: int, newest: int
) -> tuple[Sequence[Event], int]:
    """Cuts events for a message, so that they end with a commit; gives the newest such end.

    `boundary` is the end of a commit before them, `newest` where the last commit ends. The events
    of one commit share a transaction id and follow each other. Of the last ones it cannot be seen
    whether more follow, so they are left for the next message. A commit that fills a message
    alone is given in pieces, and the boundary stays before it until its end is certain.
    """
    last = events[-1]
    if not last.transaction_id or last.sequence == newest:
        return events, last.sequence
    whole = len(events)
    while whole and events[whole - 1].transaction_id == last.transaction_id:
        whole -= 1
    return (events[:whole], events[whole - 1].sequence) if whole else (events, boundary)


class Following:
    """Reads what follows a position until the tail ends.

    `journal` gives at most so many events after a position; see the port of the engine.
    """

    def __init__(
        self,
        tail: Tail,
        journal: Callable[[int, int], Awaitable[Sequence[Event]]],
        limits: FollowLimits,
    ) -> None:
        self._tail = tail
        self._journal = journal
        self._limits = limits

    async def parts(self, after: int) -> AsyncGenerator[tuple[Sequence[Event], int], None]:
        """Streams events, none in a heartbeat, with the newest end of a commit up to there."""
        boundary = after
        while not self._tail.ended:
            newest = self._tail.sequence
            events = await self._events_after(after)
            if events:
                events, boundary = whole_commits(events, boundary, self._tail.sequence)
                after = events[-1].sequence
            elif newest > after:
                after = boundary = newest
            elif await self._more(after):
                continue
            else:
                boundary = after
            yield events, boundary

    async def _events_after(self, after: int) -> Sequence[Event]:
        limits = self._limits
        found = self._tail.after(after, limits.message_events_max, limits.message_bytes_max)
        if found is not None:
            return found
        read = await self._journal(after, limits.message_events_max)
        # A commit that is not announced yet is no position yet: whoever came back with it
        # would be told that it is not from this data.
        return [event for event in read if event.sequence <= self._tail.sequence]

    async def _more(self, after: int) -> bool:
        """Waits for a commit or the end; False if a heartbeat is due before."""
        try:
            async with asyncio.timeout(self._limits.heartbeat_seconds):
                while self._tail.sequence <= after and not self._tail.ended:
                    await self._tail.more()
        except TimeoutError:
            return False
        return True
