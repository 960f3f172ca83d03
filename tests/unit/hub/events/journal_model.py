"""A storage server's journals as a test writes them, behind the port and behind real gRPC.

One model, two faces: `ModelJournal` is the core's port without sockets, `ModelTail` the `Tail`
RPC. Commits, restores, trims and outages are calls on the model; where a message ends is the
storage server's own rule.
"""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from hub.core.events.journal import JournalEnds, JournalEvent, JournalPage, Position
from messagehub.errors import CursorEpochChanged, CursorExpired, HubError, StorageUnavailable
from messagehub.status import trailers
from messagehub.storage.v1 import storage_service_pb2 as storage
from messagehub.storage.v1 import storage_service_pb2_grpc as storage_grpc
from messagehub.v1.event_pb2 import Event
from storage.core.following import whole_commits

WRITTEN = "storage.operation_completed"


class ManualTime:
    """A clock that only `pass_` moves, and the sleepers that it wakes."""

    def __init__(self):
        self.now = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        done = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._numbers), done))
        await done

    async def pass_(self, seconds: float) -> None:
        """Lets time pass, one sleeper after the other."""
        await settle()
        end = self.now + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            self.now, _, done = heapq.heappop(self._sleepers)
            if not done.done():
                done.set_result(None)
            await settle()
        self.now = end
        await settle()


async def settle() -> None:
    """Lets everything run that can run without time passing."""
    for _ in range(50):
        await asyncio.sleep(0)


class Database:
    """One journal: its events, its epoch, what is trimmed, and a bell for its tails."""

    def __init__(self, name: str):
        self.name = name
        self.epoch = "00ff00ff00ff00ff"
        self.oldest = 0
        self.sequence = 0
        self.events: list[Event] = []
        self.bell = asyncio.Event()

    def ring(self) -> None:
        self.bell.set()
        self.bell = asyncio.Event()

    def after(self, sequence: int) -> list[Event]:
        return [event for event in self.events if event.sequence > sequence]

    def boundary(self, sequence: int) -> int:
        """The newest end of a commit at or before a sequence."""
        rest = self.after(sequence)
        taken = [event for event in self.events if event.sequence <= sequence]
        while rest and taken and taken[-1].transaction_id:
            if taken[-1].transaction_id != rest[0].transaction_id:
                break
            taken.pop()
        return taken[-1].sequence if taken else self.oldest


class Model:
    """The databases, whether the server answers, and what was asked of it."""

    def __init__(self, *databases: str, page_events: int = 64):
        self.databases = {name: Database(name) for name in databases}
        self.page_events = page_events
        self.down = False
        self.reads_down = False
        self.held = False  # answers nothing, but does not refuse either
        self.failure: HubError | None = None
        self.tails_open = 0
        self.tails_begun = 0
        self.reads: list[tuple[str, int]] = []
        self.reads_open = 0
        self.reads_open_max = 0
        self.ends_asked = 0

    def commit(
        self,
        database: str,
        *types: str,
        transaction_id: str = "",
        source: str = "character",
        correlation_id: str = "",
        size: int = 0,
        gap: int = 1,
    ) -> list[int]:
        """Commits events at once and gives their sequences."""
        journal = self.databases[database]
        written = []
        for kind in types or (WRITTEN,):
            journal.sequence += gap
            event = Event(
                id=f"{database}/{journal.epoch}/{journal.sequence}",
                source=source,
                type=kind,
                subject=database,
                correlation_id=correlation_id,
                transaction_id=transaction_id,
                sequence=journal.sequence,
                custom=b"x" * size,
            )
            journal.events.append(event)
            written.append(journal.sequence)
        journal.ring()
        return written

    def trim(self, database: str, oldest: int) -> None:
        """Forgets the events up to a position."""
        journal = self.databases[database]
        journal.oldest = oldest
        journal.events = journal.after(oldest)

    def restore(self, database: str, epoch: str) -> None:
        """Replaces the database: a new epoch with an empty journal."""
        journal = self.databases[database]
        journal.epoch = epoch
        journal.events.clear()
        journal.oldest = journal.sequence
        journal.ring()

    def interrupt(self) -> None:
        """Breaks every stream, and refuses until `recover`."""
        self.down = True
        for journal in self.databases.values():
            journal.ring()

    def recover(self) -> None:
        self.down = False

    def check(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.down:
            raise StorageUnavailable("the model is down")

    def check_position(self, journal: Database, epoch: str, after: int) -> None:
        facts = {"epoch": journal.epoch, "oldest_sequence": str(journal.oldest)}
        if epoch != journal.epoch or after > journal.sequence:
            raise CursorEpochChanged("another epoch", metadata=facts)
        if after < journal.oldest:
            raise CursorExpired("too old", metadata=facts)

    async def stream(
        self, database: str, after: Position | None
    ) -> AsyncIterator[tuple[str, list[Event], int, int]]:
        """Epoch, events, boundary and oldest position, as `Tail` promises them."""
        await settle_once()
        journal = self.databases[database]
        while self.held:
            await journal.bell.wait()
        self.check()
        if after is None:
            at = journal.sequence
        else:
            self.check_position(journal, *after)
            at = after.sequence
        epoch = journal.epoch
        boundary = at
        yield epoch, [], at, journal.oldest
        while True:
            bell = journal.bell
            self.check()
            self.check_position(journal, epoch, at)
            if found := journal.after(at)[: self.page_events]:
                events, boundary = whole_commits(found, boundary, journal.sequence)
                at = events[-1].sequence
                yield epoch, list(events), boundary, journal.oldest
            else:
                await bell.wait()


async def settle_once() -> None:
    await asyncio.sleep(0)


def journal_event(event: Event) -> JournalEvent:
    payload = event.SerializeToString()
    return JournalEvent(
        event.sequence,
        event.type,
        event.source,
        event.correlation_id,
        event.transaction_id,
        len(payload),
        payload,
    )


class ModelJournal:
    """The model as the core's port."""

    def __init__(self, model: Model):
        self._model = model

    async def tail(self, database, after):
        self._model.tails_begun += 1
        self._model.tails_open += 1
        try:
            async for epoch, events, boundary, _ in self._model.stream(database, after):
                yield JournalPage(epoch, [journal_event(event) for event in events], boundary)
        finally:
            self._model.tails_open -= 1

    async def read(self, database, after, *, until, bytes_max):
        model = self._model
        model.reads.append((database, after.sequence))
        model.reads_open += 1
        model.reads_open_max = max(model.reads_open_max, model.reads_open)
        try:
            if model.reads_down:
                raise StorageUnavailable("the model cannot be read")
            pages = []
            size = 0
            reached = boundary = after.sequence
            stream = model.stream(database, after)
            await anext(stream)
            while (reached < until or reached > boundary) and size < bytes_max:
                epoch, events, boundary, _ = await anext(stream)
                pages.append(
                    JournalPage(epoch, [journal_event(event) for event in events], boundary)
                )
                size += sum(event.ByteSize() for event in events)
                reached = events[-1].sequence
            await stream.aclose()
            return pages
        finally:
            model.reads_open -= 1

    async def ends(self, database):
        self._model.ends_asked += 1
        stream = self._model.stream(database, None)
        epoch, _, sequence, oldest = await anext(stream)
        await stream.aclose()
        return JournalEnds(Position(epoch, sequence), Position(epoch, oldest))


class ModelTail(storage_grpc.StorageServiceServicer):
    """The model as the `Tail` RPC; `heartbeat` is called for whenever a tail has nothing to say."""

    def __init__(self, model: Model, heartbeat_seconds: float = 0.05):
        self._model = model
        self._heartbeat_seconds = heartbeat_seconds

    async def Tail(  # noqa: N802 - the name on the wire
        self, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        model = self._model
        model.tails_begun += 1
        model.tails_open += 1
        after = None if request.from_end else Position(request.epoch, request.after_sequence)
        try:
            async for response in self._responses(request.database, after):
                yield response
        except HubError as error:
            code = next(code for code in grpc.StatusCode if code.name == error.code)
            await context.abort(code, error.message, trailers(error))
        finally:
            model.tails_open -= 1

    async def _responses(self, database: str, after: Position | None) -> AsyncIterator[Any]:
        stream = self._model.stream(database, after)
        following = asyncio.ensure_future(anext(stream))
        last = None
        try:
            while True:
                done, _ = await asyncio.wait([following], timeout=self._heartbeat_seconds)
                if done:
                    epoch, events, boundary, oldest = following.result()
                    last = storage.TailResponse(
                        epoch=epoch, sequence=boundary, oldest_sequence=oldest
                    )
                    yield storage.TailResponse(
                        epoch=epoch, events=events, sequence=boundary, oldest_sequence=oldest
                    )
                    following = asyncio.ensure_future(anext(stream))
                elif last is not None:
                    yield last
        finally:
            following.cancel()
            await asyncio.wait([following])


@asynccontextmanager
async def serving(model: Model, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Serves the model's `Tail` and gives the address; ends without grace."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    storage_grpc.add_StorageServiceServicer_to_server(ModelTail(model), server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
