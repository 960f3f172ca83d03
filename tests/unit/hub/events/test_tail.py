"""The journal port over the `Tail` RPC, against a scripted storage server on real gRPC."""

import asyncio
from contextlib import aclosing, asynccontextmanager

import grpc
import pytest

from hub.adapters.tail import StorageJournal
from hub.core.events.journal import JournalEnds, Position
from messagehub.errors import CursorEpochChanged, CursorExpired, StorageUnavailable
from messagehub.v1.event_pb2 import Event
from tests.unit.hub.events.journal_model import Model, serving
from tests.unit.hub.fake_storage import soon, until

A = "a_db"
RETRY_SECONDS = 0.7


@pytest.fixture
def model():
    return Model(A, page_events=3)


@asynccontextmanager
async def journal_of(model, *, silence=10.0):
    async with serving(model) as address, grpc.aio.insecure_channel(address) as channel:
        yield StorageJournal(channel, silence_seconds_max=silence, retry_seconds=RETRY_SECONDS)


def position(model, sequence):
    return Position(model.databases[A].epoch, sequence)


def sequences(pages):
    return [event.sequence for page in pages for event in page.events]


async def test_an_event_is_what_filters_look_at_and_its_bytes(model):
    model.commit(A, "x.y", transaction_id="t", source="auth", correlation_id="c", size=100)
    async with journal_of(model) as journal:
        (page,) = await soon(journal.read(A, position(model, 0), until=1, bytes_max=1))
    (event,) = page.events
    assert (event.sequence, event.type, event.source) == (1, "x.y", "auth")
    assert (event.correlation_id, event.transaction_id) == ("c", "t")
    assert Event.FromString(event.payload) == model.databases[A].events[0]
    assert event.size == len(event.payload) > 100


async def test_a_tail_from_now_says_where_it_begins_then_streams_live(model):
    model.commit(A)
    async with journal_of(model) as journal, aclosing(journal.tail(A, None)) as pages:
        first = await soon(anext(pages))
        assert (first.epoch, first.events, first.boundary) == (position(model, 0).epoch, [], 1)
        model.commit(A, "a.b", "a.b", transaction_id="t")
        page = await soon(anext(pages))
        while not page.events:
            page = await soon(anext(pages))
        assert (sequences([page]), page.boundary) == ([2, 3], 3)


async def test_a_tail_from_a_position_streams_what_follows(model):
    for _ in range(5):
        model.commit(A)
    received = []
    async with journal_of(model) as journal:
        async with aclosing(journal.tail(A, position(model, 1))) as pages:
            while len(received) < 4:
                received += sequences([await soon(anext(pages))])
        assert received == [2, 3, 4, 5]
        await until(lambda: model.tails_open == 0)


async def test_a_read_ends_at_its_end_and_at_its_bytes(model):
    for _ in range(20):
        model.commit(A)
    async with journal_of(model) as journal:
        pages = await soon(journal.read(A, position(model, 4), until=9, bytes_max=10_000))
        assert sequences(pages) == [5, 6, 7, 8, 9, 10]
        pages = await soon(journal.read(A, position(model, 4), until=20, bytes_max=1))
        assert sequences(pages) == [5, 6, 7]
        await until(lambda: model.tails_open == 0)


async def test_a_read_does_not_end_inside_of_a_commit(model):
    model.commit(A, *["a.b"] * 8, transaction_id="t")
    model.commit(A)
    async with journal_of(model) as journal:
        pages = await soon(journal.read(A, position(model, 0), until=1, bytes_max=10_000))
        assert sequences(pages)[:8] == list(range(1, 9))
        pages = await soon(journal.read(A, position(model, 0), until=1, bytes_max=1))
        assert sequences(pages) == [1, 2, 3]


async def test_a_read_of_nothing_checks_the_position(model):
    model.commit(A)
    async with journal_of(model) as journal:
        assert await soon(journal.read(A, position(model, 1), until=1, bytes_max=1)) == []
        with pytest.raises(CursorEpochChanged):
            await soon(journal.read(A, position(model, 2), until=2, bytes_max=1))


async def test_a_read_ends_where_the_journal_ends(model):
    model.commit(A)
    async with journal_of(model) as journal:
        pages = await soon(journal.read(A, position(model, 0), until=99, bytes_max=10_000))
    assert sequences(pages) == [1]
    assert (pages[-1].events, pages[-1].boundary) == ([], 1)


async def test_the_ends_of_a_journal(model):
    for _ in range(5):
        model.commit(A)
    model.trim(A, 2)
    async with journal_of(model) as journal:
        ends = await soon(journal.ends(A))
    assert ends == JournalEnds(position(model, 5), position(model, 2))


async def test_a_lost_position_carries_what_is_kept(model):
    for _ in range(5):
        model.commit(A)
    model.trim(A, 2)
    facts = {"epoch": position(model, 0).epoch, "oldest_sequence": "2"}
    async with journal_of(model) as journal:
        with pytest.raises(CursorExpired) as expired:
            await soon(journal.read(A, position(model, 1), until=2, bytes_max=1))
        assert expired.value.metadata == facts
        with pytest.raises(CursorEpochChanged) as changed:
            await soon(anext(journal.tail(A, Position("another", 3))))
        assert changed.value.metadata == facts


async def test_nobody_there_is_unavailable_and_says_when_to_try_again():
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        journal = StorageJournal(channel, silence_seconds_max=10, retry_seconds=RETRY_SECONDS)
        with pytest.raises(StorageUnavailable) as refusal:
            await soon(journal.ends(A))
    assert refusal.value.retry_after == RETRY_SECONDS


async def test_a_storage_server_that_dies_ends_the_tail(model):
    async with serving(model) as address, grpc.aio.insecure_channel(address) as channel:
        journal = StorageJournal(channel, silence_seconds_max=10, retry_seconds=RETRY_SECONDS)
        pages = journal.tail(A, None)
        await soon(anext(pages))
        model.interrupt()
        with pytest.raises(StorageUnavailable):
            await soon(_exhaust(pages))


async def test_silence_is_an_outage(model):
    model.held = True
    async with journal_of(model, silence=0.05) as journal:
        with pytest.raises(StorageUnavailable, match="said nothing"):
            await soon(journal.ends(A))
        model.held = False
        model.databases[A].ring()


async def test_a_caller_that_goes_away_ends_the_call(model):
    async with journal_of(model) as journal:
        task = asyncio.create_task(journal.read(A, position(model, 0), until=9, bytes_max=1))
        model.held = True
        await until(lambda: model.tails_open == 1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await until(lambda: model.tails_open == 0)


async def _exhaust(pages):
    async for _ in pages:
        pass
