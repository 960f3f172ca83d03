"""Streams for names: where they go on, who may read, and how they stand."""

import asyncio

import pytest

from hub.core.events import cursor
from hub.core.events.journal import Position, Start
from messagehub.errors import (
    CursorEpochChanged,
    CursorExpired,
    InvalidRequest,
    QueueFull,
    ShuttingDown,
    StorageUnavailable,
    SubscriptionInUse,
    SubscriptionNotFound,
)
from tests.unit.hub.events.fanout_bench import A, B, at, drain, next_batch, sequences
from tests.unit.hub.events.journal_model import settle
from tests.unit.hub.events.subscription_model import LEASE, SERVICE, named_bench

C = "c_db"


# Where a stream begins.


@pytest.mark.parametrize(("start", "first"), [(Start.LATEST, [4]), (Start.EARLIEST, [1, 2, 3, 4])])
async def test_a_new_name_begins_where_it_is_told_and_is_kept_before_the_first_message(
    start, first
):
    async with named_bench() as bench:
        for _ in range(3):
            bench.model.commit(A)
        stream = await bench.hub().subscribe(start=start)
        assert bench.store.at(A, "billing") == 4 - len(first)
        await settle()
        bench.model.commit(A)
        assert await drain(stream, len(first)) == first


async def test_a_new_name_begins_after_a_cursor_and_that_counts_as_acknowledged():
    async with named_bench() as bench:
        for _ in range(3):
            bench.model.commit(A)
        epoch = bench.model.databases[A].epoch
        stream = await bench.hub().subscribe(start={A: Position(epoch, 1)})
        assert bench.store.at(A, "billing") == 1
        assert await drain(stream, 2) == [2, 3]


@pytest.mark.parametrize("start", list(Start))
async def test_a_known_name_goes_on_after_what_was_acknowledged(start):
    async with named_bench() as bench:
        hub = bench.hub()
        stream = await hub.subscribe()
        for _ in range(5):
            bench.model.commit(A)
        await drain(stream, 5)
        epoch = bench.model.databases[A].epoch
        await hub.acknowledge(cursor.encode({A: Position(epoch, 2)}))
        stream.close()
        bench.model.commit(A)
        again = await hub.subscribe(start=start)
        assert await drain(again, 4) == [3, 4, 5, 6]


async def test_nothing_between_two_streams_is_lost():
    async with named_bench() as bench:
        hub = bench.hub()
        first = await hub.subscribe()
        first.close()
        bench.model.commit(A)
        assert await drain(await hub.subscribe(), 1) == [1]


async def test_a_cursor_begins_there_and_acknowledges_nothing():
    async with named_bench() as bench:
        hub = bench.hub()
        stream = await hub.subscribe()
        for _ in range(5):
            bench.model.commit(A)
        await drain(stream, 5)
        stream.close()
        epoch = bench.model.databases[A].epoch
        ahead = await hub.subscribe(start={A: Position(epoch, 3)})
        assert await drain(ahead, 2) == [4, 5]
        ahead.close()
        assert bench.store.at(A, "billing") == 0
        again = await hub.subscribe()
        assert await drain(again, 5) == [1, 2, 3, 4, 5]


async def test_each_database_has_its_own_position():
    async with named_bench() as bench:
        hub = bench.hub()
        stream = await hub.subscribe(A, B)
        bench.model.commit(A)
        bench.model.commit(B)
        bench.model.commit(B)
        await drain(stream, 3)
        epoch = bench.model.databases[A].epoch
        await hub.acknowledge(cursor.encode({A: Position(epoch, 0), B: Position(epoch, 1)}))
        stream.close()
        again = await hub.subscribe(A, B)
        batch = await next_batch(again)
        assert sequences(batch) == [1, 2]
        assert (at(batch, A), at(batch, B)) == (1, 2)


async def test_a_database_that_joins_begins_at_its_oldest_event():
    async with named_bench(A, B, C) as bench:
        hub = bench.hub()
        for database in (A, B, C):
            bench.model.commit(database)
        (await hub.subscribe(B)).close()
        stream = await hub.subscribe(A, B, C)
        assert [bench.store.at(database, "billing") for database in (A, B, C)] == [0, 1, 0]
        assert len(await drain(stream, 2)) == 2


async def test_what_a_beginning_that_was_cut_short_left_begins_where_it_is_told():
    async with named_bench() as bench:
        bench.model.commit(A)
        bench.model.commit(B)
        bench.store.failures["open", B] = [StorageUnavailable("gone")]
        with pytest.raises(StorageUnavailable):
            await bench.hub().subscribe(A, B)
        await settle()
        assert bench.store.holder(A, "billing") == "", "what failed holds nothing"
        bench.model.commit(B)
        stream = await bench.hub().subscribe(A, B, start=Start.LATEST)
        first = await next_batch(stream)
        assert (sequences(first), at(first, A), at(first, B)) == ([], 1, 2)


async def test_a_database_cannot_be_left_out():
    async with named_bench(A, B, C) as bench:
        hub = bench.hub()
        (await hub.subscribe(A, B)).close()
        with pytest.raises(InvalidRequest) as caught:
            await hub.subscribe(A)
        assert caught.value.fields == {"databases": "leaves out b_db"}
        await settle()
        assert bench.store.holder(A, "billing") == "", "the refused stream holds nothing"
        # One that the service may not read any more is left out without its doing.
        await hub.subscribe(A, readable=[A])


# Who may read.


async def test_one_stream_at_a_time_over_all_hubs():
    async with named_bench() as bench:
        one, two = bench.hub(), bench.hub()
        stream = await one.subscribe()
        for hub in (one, two):
            with pytest.raises(SubscriptionInUse) as caught:
                await hub.subscribe()
            assert 0 < caught.value.retry_after <= LEASE / 3
        assert await one.subscribe(name="other")
        stream.close()
        await settle()
        await two.subscribe()


async def test_the_same_hub_reads_again_as_soon_as_the_stream_is_closed():
    async with named_bench() as bench:
        hub = bench.hub()
        for _ in range(3):
            stream = await hub.subscribe()
            stream.close()


async def test_streams_with_different_databases_exclude_each_other_too():
    async with named_bench(A, B, C) as bench:
        one, two = bench.hub(), bench.hub()
        await one.subscribe(B, C)
        with pytest.raises(SubscriptionInUse):
            await two.subscribe(A, B, C)
        assert (A, SERVICE, "billing") not in bench.store.kept, "nothing was made for nothing"


@pytest.mark.parametrize("winner", ["few", "many"])
async def test_two_that_begin_at_the_same_moment_exclude_each_other(winner):
    async with named_bench(A, B, C) as bench:
        one, two = bench.hub(), bench.hub()
        bench.store.held.add("open")
        few = asyncio.create_task(one.subscribe(B, C))
        if winner == "few":
            await settle()
        many = asyncio.create_task(two.subscribe(A, B, C))
        await settle()
        bench.store.release()
        answers = await asyncio.gather(few, many, return_exceptions=True)
        streams = [answer for answer in answers if not isinstance(answer, Exception)]
        assert len(streams) == 1
        (refusal,) = [answer for answer in answers if isinstance(answer, Exception)]
        assert isinstance(refusal, SubscriptionInUse | InvalidRequest)


async def test_whoever_finds_that_more_databases_joined_in_between_holds_nothing():
    async with named_bench(A, B, C) as bench:
        slow = bench.hub(bench.another_store())
        slow.store.held.add("open")
        few = asyncio.create_task(slow.subscribe(B, C))
        await settle()
        many = await bench.hub().subscribe(A, B, C)
        slow.store.release()
        with pytest.raises(InvalidRequest):
            await few
        await settle()
        assert bench.store.holder(B, "billing") == ""
        assert bench.store.holder(A, "billing") != ""
        bench.model.commit(A)
        assert await drain(many, 1) == [1]


async def test_a_consumer_takes_over_from_its_own_old_stream():
    async with named_bench() as bench:
        one, two = bench.hub(), bench.hub()
        old = await one.subscribe(consumer="worker-1")
        with pytest.raises(SubscriptionInUse) as caught:
            await two.subscribe(consumer="worker-2")
        assert caught.value.metadata == {"consumer": "worker-1"}
        assert "worker-1" in caught.value.message
        new = await two.subscribe(consumer="worker-1")
        await bench.time.pass_(LEASE / 3)
        with pytest.raises(SubscriptionInUse):
            await drain(old, 1)
        old.close()
        await settle()
        assert bench.store.holder(A, "billing").startswith("hub-1"), "the old end frees nothing"
        bench.model.commit(A)
        assert await drain(new, 1) == [1]


async def test_a_place_that_the_hub_has_not_is_not_held():
    async with named_bench() as bench:
        hub = bench.hub()
        await hub.fanout.close()
        with pytest.raises(ShuttingDown):
            await hub.subscribe()
        await settle()
        assert bench.store.holder(A, "billing") == ""


async def test_a_limit_frees_the_name_again():
    async with named_bench() as bench:
        hub = bench.hub()
        streams = [await hub.subscribe(name=f"n{n}") for n in range(50)]
        with pytest.raises(QueueFull):
            await hub.subscribe()
        streams[0].close()
        await hub.subscribe()


# Acknowledging.


async def test_acknowledging_never_goes_back_and_may_be_repeated():
    async with named_bench() as bench:
        hub = bench.hub()
        stream = await hub.subscribe()
        for _ in range(3):
            bench.model.commit(A)
        last = (await next_batch(stream)).cursor
        epoch = bench.model.databases[A].epoch
        for text in (last, last, cursor.encode({A: Position(epoch, 1)})):
            await hub.acknowledge(text)
            assert bench.store.at(A, "billing") == 3


async def test_a_cursor_that_cannot_have_been_handled_is_refused_with_one_that_works():
    async with named_bench() as bench:
        hub = bench.hub()
        await hub.subscribe()
        epoch = bench.model.databases[A].epoch
        for position in (Position(epoch, 1), Position("00", 0)):
            with pytest.raises(CursorEpochChanged) as caught:
                await hub.acknowledge(cursor.encode({A: position}))
            oldest = cursor.decode(caught.value.metadata["oldest_cursor"])
            assert oldest == {A: Position(epoch, 0)}
        with pytest.raises(SubscriptionNotFound):
            await hub.acknowledge(cursor.encode({A: Position(epoch, 0)}), name="other")


async def test_every_database_is_asked_although_one_refuses():
    async with named_bench() as bench:
        hub = bench.hub()
        stream = await hub.subscribe(A, B)
        bench.model.commit(A)
        bench.model.commit(B)
        await drain(stream, 2)
        text = stream.cursor()
        bench.store.failures["acknowledge", A] = [StorageUnavailable("gone")]
        with pytest.raises(StorageUnavailable):
            await hub.acknowledge(text)
        assert (bench.store.at(A, "billing"), bench.store.at(B, "billing")) == (0, 1)
        await hub.acknowledge(text)
        assert bench.store.at(A, "billing") == 1


async def test_whoever_was_cut_off_is_told_with_a_cursor_that_works():
    async with named_bench() as bench:
        hub = bench.hub()
        stream = await hub.subscribe(A, B)
        for _ in range(5):
            bench.model.commit(A)
        bench.model.commit(B)
        await drain(stream, 6)
        last = stream.cursor()
        bench.store.cut_off(A, "billing")
        epoch = bench.model.databases[A].epoch
        with pytest.raises(CursorExpired) as caught:
            await hub.acknowledge(last)
        assert cursor.decode(caught.value.metadata["oldest_cursor"])[A] == Position(epoch, 4)
        stream.close()
        for start in (Start.LATEST, Start.EARLIEST, last):
            with pytest.raises(CursorExpired) as caught:
                await hub.subscribe(A, B, start=start)
            oldest = caught.value.metadata["oldest_cursor"]
            assert cursor.decode(oldest) == {A: Position(epoch, 4), B: Position(epoch, 1)}
        assert "delete it" in caught.value.message
        await settle()
        await hub.delete()
        again = await hub.subscribe(A, B, start=oldest)
        assert await drain(again, 1) == [5]


async def test_a_database_that_was_replaced_says_so():
    async with named_bench() as bench:
        hub = bench.hub()
        bench.model.commit(A)
        stream = await hub.subscribe()
        await next_batch(stream)
        bench.model.restore(A, "ff00")
        with pytest.raises(CursorEpochChanged) as caught:
            await hub.acknowledge(stream.cursor())
        assert cursor.decode(caught.value.metadata["oldest_cursor"])[A].epoch == "ff00"
