"""The six guarantees of a subscription, each by its name, over random histories.

A history is a few hundred random steps: commits of one to many events, subscribers that read or
pause or filter or go away and resume from any cursor that they ever had, and a storage server
that goes away and comes back. Windows, messages and pages are tiny, so that every path between
the window and the journal is taken all the time.
"""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from hub.core.events import cursor
from hub.core.events.fanout import Start
from hub.core.events.subscription import Subscription
from messagehub.v1.event_pb2 import Event
from tests.unit.hub.events.fanout_bench import A, B, bench
from tests.unit.hub.events.journal_model import Model, settle

SEEDS = range(10)
SOAK_SEEDS = range(1_000, 1_300)
STEPS = 250
WANTED = "wanted.event"
OTHER = "other.event"


@dataclass
class Stream:
    """What one stream was asked for, and every message that it gave."""

    start: dict[str, int]
    types: tuple[str, ...]
    messages: list[tuple[list[tuple[str, int]], dict[str, int]]] = field(default_factory=list)

    def received(self, database: str) -> list[int]:
        return [
            sequence
            for events, _ in self.messages
            for subject, sequence in events
            if subject == database
        ]


@dataclass
class History:
    seed: int
    model: Model
    streams: list[Stream] = field(default_factory=list)

    def expected(self, stream: Stream, database: str, start: int) -> list[int]:
        return [
            event.sequence
            for event in self.model.databases[database].after(start)
            if not stream.types or event.type in stream.types
        ]


class Reader:
    """A task that reads one stream, as slowly as the history wants."""

    def __init__(self, stream: Stream, subscription: Subscription):
        self.stream = stream
        self.subscription = subscription
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.task = asyncio.create_task(self._read())

    async def _read(self):
        try:
            while (batch := await self.subscription.next_batch()) is not None:
                events = [
                    (Event.FromString(event.payload).subject, event.sequence)
                    for event in batch.events
                ]
                positions = {
                    name: position.sequence
                    for name, position in cursor.decode(batch.cursor).items()
                }
                self.stream.messages.append((events, positions))
                await self.go_on.wait()
        finally:
            self.subscription.close()

    async def leave(self):
        self.task.cancel()
        await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.task.result()


class Player:
    def __init__(self, seed, hub):
        self.random = random.Random(seed)
        self.hub = hub
        self.history = History(seed, hub.model)
        self.readers: list[Reader] = []
        self.cursors: list[str] = []

    async def step(self):
        roll = self.random.random()
        if roll < 0.55:
            self.commit()
        elif roll < 0.65:
            await self.join()
        elif roll < 0.70 and self.readers:
            await self.readers.pop(self.random.randrange(len(self.readers))).leave()
        elif roll < 0.80 and self.readers:
            self.random.choice(self.readers).go_on.clear()
        elif roll < 0.90 and self.readers:
            self.random.choice(self.readers).go_on.set()
        elif roll < 0.92:
            self.hub.model.interrupt()
        elif roll < 0.95:
            await self.recover()
        else:
            await self.hub.time.pass_(self.random.choice((1.0, 11.0)))
        for _ in range(self.random.choice((0, 1, 5, 50))):
            await asyncio.sleep(0)

    def commit(self):
        database = self.random.choice((A, B))
        count = self.random.choice((1, 1, 1, 2, 3, 9, 40))
        types = [self.random.choice((WANTED, OTHER)) for _ in range(count)]
        transaction = f"t{self.random.random()}" if count > 1 or self.random.random() < 0.3 else ""
        self.hub.model.commit(
            database,
            *types,
            transaction_id=transaction,
            size=self.random.choice((0, 20, 200)),
            gap=self.random.choice((1, 1, 3)),
        )

    async def join(self):
        databases = self.random.choice(((A,), (B,), (A, B)))
        types = self.random.choice(((), (WANTED,)))
        known = [
            stream.messages[index][1]
            for stream in self.history.streams
            for index in range(len(stream.messages))
            if set(stream.start) == set(databases)
        ]
        if known and self.random.random() < 0.7:
            await self.resume(self.random.choice(known), types)
        elif not self.hub.model.down:
            start = self.random.choice((Start.EARLIEST, Start.LATEST))
            subscription = await self.hub.subscribe(*databases, start=start, types=types)
            begun = cursor.decode(subscription.cursor())
            positions = {name: position.sequence for name, position in begun.items()}
            self.read(Stream(positions, types), subscription)

    async def resume(self, positions, types):
        journals = self.hub.model.databases
        text = cursor.encode(
            {name: (journals[name].epoch, sequence) for name, sequence in positions.items()}
        )
        subscription = await self.hub.subscribe(*positions, start=text, types=types)
        self.read(Stream(dict(positions), types), subscription)

    def read(self, stream, subscription):
        self.history.streams.append(stream)
        self.readers.append(Reader(stream, subscription))

    async def recover(self):
        self.hub.model.recover()
        await self.hub.time.pass_(2.0)

    async def finish(self):
        """Lets everybody read to the end, past two heartbeats."""
        await self.recover()
        for reader in self.readers:
            reader.go_on.set()
        for _ in range(20):
            await settle()
        await self.hub.time.pass_(21.0)
        for _ in range(20):
            await settle()
        ended = [reader.stream for reader in self.readers]
        for reader in self.readers:
            await reader.leave()
        return ended


async def play(seed: int) -> tuple[History, list[Stream]]:
    """Plays one history; gives it and the streams that were read to the end."""
    window_bytes = random.Random(seed).choice((600, 1_500, 5_000))
    async with bench(A, B, page_events=7, window_bytes_max=window_bytes) as hub:
        player = Player(seed, hub)
        for _ in range(STEPS):
            await player.step()
        ended = await player.finish()
    return player.history, ended


@pytest.fixture(
    scope="module", params=[SEEDS, pytest.param(SOAK_SEEDS, marks=pytest.mark.soak)], ids=["", "+"]
)
async def histories(request):
    return [await play(seed) for seed in request.param]


def streams_of(histories):
    for history, _ in histories:
        for stream in history.streams:
            for database in stream.start:
                yield history, stream, database


def test_histories_reach_what_they_are_for(histories):
    assert sum(len(history.streams) for history, _ in histories) > 10 * len(histories)
    assert sum(len(s.messages) for h, _ in histories for s in h.streams) > 100 * len(histories)
    assert sum(len(history.model.reads) for history, _ in histories) > 30 * len(histories)
    assert sum(len(ended) for _, ended in histories) > 3 * len(histories)


def test_ordered(histories):
    """The events of a database come in the order of their commits."""
    for history, stream, database in streams_of(histories):
        received = stream.received(database)
        assert received == sorted(received), history.seed


def test_unique(histories):
    """No event comes twice in a stream."""
    for history, stream, database in streams_of(histories):
        received = stream.received(database)
        assert len(received) == len(set(received)), history.seed


def test_reliable(histories):
    """No event is left out between the first and the last that came."""
    for history, stream, database in streams_of(histories):
        received = stream.received(database)
        expected = history.expected(stream, database, stream.start[database])
        assert received == expected[: len(received)], history.seed
    for history, ended in histories:
        for stream in ended:
            for database, start in stream.start.items():
                received = stream.received(database)
                assert received == history.expected(stream, database, start), history.seed


def test_atomic(histories):
    """No cursor stands inside of a commit, and no message ends inside of one."""
    for history, stream, database in streams_of(histories):
        journal = history.model.databases[database]
        for _, positions in stream.messages:
            position = positions[database]
            assert journal.boundary(position) == position, history.seed


def test_resumable(histories):
    """What follows any cursor that was handed out is exactly what was not handed out before."""
    for history, stream, database in streams_of(histories):
        received: list[int] = []
        for events, positions in stream.messages:
            received += [sequence for subject, sequence in events if subject == database]
            before = [
                sequence
                for sequence in history.expected(stream, database, stream.start[database])
                if sequence <= positions[database]
            ]
            assert received == before, history.seed


def test_bookmarkable(histories):
    """The cursor keeps up with the journal, also where nothing of it is wanted."""
    for history, ended in histories:
        for stream in ended:
            _, positions = stream.messages[-1]
            for database, position in positions.items():
                assert position == history.model.databases[database].sequence, history.seed
