"""One stream of events over its databases: what goes into the next message, and when."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hub.core.events import cursor
from hub.core.events.event_filter import EventFilter
from hub.core.events.heartbeat import HeartbeatClock
from hub.core.events.journal import JournalEvent, Position
from hub.core.events.live_tail import LiveTail
from hub.core.events.lost_position import lost_position
from hub.core.events.reader import JournalReads, Reader
from hub.core.events.window import Share
from messagehub.errors import CursorEpochChanged, CursorExpired, HubError


class Batch(NamedTuple):
    """The content of one message: events, none in a heartbeat, and the cursor after them."""

    events: Sequence[JournalEvent]
    cursor: str


class Begin(NamedTuple):
    """Where one database of a subscription begins; `known` if its journal just said so."""

    tail: LiveTail
    position: Position
    known: bool


class Subscription:
    """Merges the readers of its databases into batches; used by one task at a time.

    Every database with something to read gets an equal share of a batch, and none is read
    before a batch is asked for, so a slow caller holds nothing up and grows nothing.
    """

    __slots__ = (
        "_closed",
        "_ending",
        "_failure",
        "_heartbeats",
        "_on_close",
        "_overdue",
        "_readers",
        "_share",
        "_silent",
        "_waiter",
    )

    def __init__(
        self,
        begins: Sequence[Begin],
        event_filter: EventFilter,
        *,
        share: Share,
        reads: JournalReads,
        heartbeats: HeartbeatClock,
        on_close: Callable[[], None],
    ) -> None:
        self._readers = [
            Reader(begin.tail, reads, event_filter, begin.position, self._wake) for begin in begins
        ]
        for reader, begin in zip(self._readers, begins, strict=True):
            reader.settled = begin.known
        self._share = share
        self._heartbeats = heartbeats
        self._on_close = on_close
        self._silent = True  # nothing was sent yet
        self._overdue = False
        self._ending = False
        self._failure: HubError | None = None
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        heartbeats.arm(self)

    async def next_batch(self) -> Batch | None:
        """Waits for the next batch; the last one after `end` is empty, then comes None.

        Without events an empty batch comes at every heartbeat, and at the very beginning as
        soon as the positions are known to be good. Raises the `HubError` that a database or its
        position ends with, or that `fail` was called with; a lost position carries
        `oldest_cursor`.
        """
        while not self._closed:
            if self._failure is not None:
                raise self._failure
            if self._ending:
                self.close()
                return Batch((), self.cursor())
            ready = [reader for reader in self._readers if self._ready(reader)]
            events = self._take(ready) if ready else ()
            if events or self._overdue or (self._silent and self._settled()):
                return self._batch(events, ready)
            if ready:
                await asyncio.sleep(0)
            else:
                await self._wait()
        return None

    def cursor(self) -> str:
        """The cursor after the last batch."""
        return cursor.encode({reader.tail.database: reader.position for reader in self._readers})

    def beat(self) -> None:
        """A heartbeat is due."""
        self._overdue = True
        self._wake()

    def end(self) -> None:
        """Lets the stream end after one more message."""
        self._ending = True
        self._wake()

    def fail(self, failure: HubError) -> None:
        """Lets the stream end at once, with an error."""
        self._failure = failure
        self._wake()

    def close(self) -> None:
        """Gives up everything that the subscription holds. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._heartbeats.disarm(self)
        for reader in self._readers:
            reader.close()
        self._on_close()
        self._wake()

    def _take(self, ready: list[Reader]) -> Sequence[JournalEvent]:
        if len(ready) == 1:
            return ready[0].take(self._share)
        share = self._share_of(len(ready))
        return [event for reader in ready for event in reader.take(share)]

    def _batch(self, events: Sequence[JournalEvent], ready: list[Reader]) -> Batch:
        self._silent = self._overdue = False
        self._heartbeats.arm(self)
        if len(self._readers) > 1 and ready:
            # Whoever was first comes last next time.
            self._readers.remove(ready[0])
            self._readers.append(ready[0])
        return Batch(events, self.cursor())

    def _settled(self) -> bool:
        return all(reader.settled for reader in self._readers)

    def _share_of(self, readers: int) -> Share:
        whole = self._share
        return whole._replace(
            events=max(1, whole.events // readers),
            bytes=max(1, whole.bytes // readers),
            scanned=max(1, whole.scanned // readers),
        )

    def _ready(self, reader: Reader) -> bool:
        try:
            return reader.ready()
        except (CursorExpired, CursorEpochChanged) as failure:
            positions = {other.tail.database: other.position for other in self._readers}
            raise lost_position(failure, reader.tail.database, positions) from failure

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
