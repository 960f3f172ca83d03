"""Subscriptions: where they begin, when they speak, what they share, and how they end."""

import asyncio

import pytest

from hub.core.events import cursor
from hub.core.events.fanout import Start
from hub.core.events.journal import Position
from messagehub.errors import (
    CursorEpochChanged,
    CursorExpired,
    DatabaseCorrupt,
    QueueFull,
    ShuttingDown,
    StorageUnavailable,
)
from tests.unit.hub.events.fanout_bench import A, B, at, bench, drain, next_batch, sequences
from tests.unit.hub.events.journal_model import settle

HEARTBEAT = 10.0


def from_sequence(hub, sequence, database=A):
    return {database: Position(hub.model.databases[database].epoch, sequence)}


async def pending(subscription):
    """A task that waits for the next batch, and has nothing yet."""
    task = asyncio.create_task(subscription.next_batch())
    await settle()
    assert not task.done()
    return task


# Where a subscription begins.


async def test_latest_begins_with_a_message_at_once_and_gives_what_follows():
    async with bench() as hub:
        hub.model.commit(A)
        stream = await hub.subscribe(start=Start.LATEST)
        first = await next_batch(stream)
        assert (sequences(first), at(first)) == ([], 1)
        hub.model.commit(A)
        assert sequences(await next_batch(stream)) == [2]


async def test_latest_means_now_also_when_the_live_tail_is_behind():
    async with bench() as hub:
        early = await hub.subscribe()
        await next_batch(early)
        hub.model.commit(A)  # the live tail has not run since
        late = await hub.subscribe(start=Start.LATEST)
        assert at(await next_batch(late)) == 1
        hub.model.commit(A)
        assert sequences(await next_batch(late)) == [2]


async def test_earliest_begins_at_the_oldest_event_that_is_kept():
    async with bench() as hub:
        for _ in range(5):
            hub.model.commit(A)
        hub.model.trim(A, 2)
        stream = await hub.subscribe(start=Start.EARLIEST)
        assert await drain(stream, 3) == [3, 4, 5]


async def test_a_cursor_begins_right_after_it():
    async with bench() as hub:
        for _ in range(5):
            hub.model.commit(A)
        stream = await hub.subscribe(start=from_sequence(hub, 3))
        assert sequences(await next_batch(stream)) == [4, 5]


async def test_a_cursor_inside_the_window_needs_no_journal():
    async with bench() as hub:
        warm = await hub.subscribe()
        await next_batch(warm)
        await settle()
        for _ in range(5):
            hub.model.commit(A)
        await drain(warm, 5)
        asked = (len(hub.model.reads), hub.model.ends_asked)
        stream = await hub.subscribe(start=from_sequence(hub, 3))
        assert sequences(await next_batch(stream)) == [4, 5]
        assert (len(hub.model.reads), hub.model.ends_asked) == asked


async def test_a_cursor_at_the_end_is_answered_with_a_first_message():
    async with bench() as hub:
        hub.model.commit(A)
        stream = await hub.subscribe(start=from_sequence(hub, 1))
        first = await next_batch(stream)
        assert (sequences(first), at(first)) == ([], 1)


async def test_a_database_that_the_cursor_does_not_know_begins_at_its_oldest_event():
    async with bench() as hub:
        hub.model.commit(A)
        hub.model.commit(B)
        stream = await hub.subscribe(A, B, start=from_sequence(hub, 1))
        first = await next_batch(stream)
        assert (sequences(first), at(first, A), at(first, B)) == ([], 1, 0)
        batch = await next_batch(stream)
        assert (sequences(batch), at(batch, A), at(batch, B)) == ([1], 1, 1)


@pytest.mark.parametrize("start", [Start.LATEST, Start.EARLIEST])
async def test_without_the_storage_server_nobody_knows_where_to_begin(start):
    async with bench() as hub:
        hub.model.interrupt()
        with pytest.raises(StorageUnavailable):
            await hub.subscribe(start=start)
        assert hub.fanout._by_service.total() == 0


async def test_a_cursor_waits_for_the_storage_server_and_heartbeats_meanwhile():
    async with bench() as hub:
        hub.model.commit(A)
        hub.model.interrupt()
        stream = await hub.subscribe(start=from_sequence(hub, 0))
        first = await next_batch(stream)
        assert (sequences(first), at(first)) == ([], 0)
        waiting = await pending(stream)
        await hub.time.pass_(HEARTBEAT)
        assert at(await waiting) == 0
        hub.model.recover()
        waiting = await pending(stream)
        await hub.time.pass_(2.0)
        assert sequences(await waiting) == [1]


async def test_a_cursor_waits_for_a_journal_that_cannot_be_read_though_the_live_tail_runs():
    async with bench() as hub:
        hub.model.commit(A)
        await next_batch(await hub.subscribe())
        await settle()
        hub.model.reads_down = True
        stream = await hub.subscribe(start=from_sequence(hub, 0))
        first = await next_batch(stream)
        assert (sequences(first), at(first)) == ([], 0)
        hub.model.reads_down = False
        waiting = await pending(stream)
        await hub.time.pass_(1.0)
        assert sequences(await waiting) == [1]


async def test_a_first_message_waits_no_longer_than_a_heartbeat_for_a_silent_storage_server():
    async with bench() as hub:
        hub.model.held = True
        stream = await hub.subscribe(start=from_sequence(hub, 0))
        waiting = await pending(stream)
        await hub.time.pass_(HEARTBEAT)
        assert at(await waiting) == 0


# Positions that are lost.


async def test_an_expired_cursor_is_refused_before_any_message_with_the_oldest_one():
    async with bench() as hub:
        for _ in range(5):
            hub.model.commit(A)
        hub.model.trim(A, 3)
        stream = await hub.subscribe(A, B, start=from_sequence(hub, 1) | from_sequence(hub, 0, B))
        with pytest.raises(CursorExpired) as refusal:
            await stream.next_batch()
        assert refusal.value.metadata["database"] == A
        again = await hub.subscribe(A, B, start=refusal.value.metadata["oldest_cursor"])
        assert await drain(again, 2) == [4, 5]


async def test_a_cursor_of_another_epoch_is_refused_with_the_oldest_one():
    async with bench() as hub:
        hub.model.commit(A)
        stream = await hub.subscribe(start={A: Position("another", 0)})
        with pytest.raises(CursorEpochChanged) as refusal:
            await stream.next_batch()
        assert cursor.decode(refusal.value.metadata["oldest_cursor"]) == from_sequence(hub, 0)


async def test_a_cursor_ahead_of_the_journal_is_refused():
    async with bench() as hub:
        hub.model.commit(A)
        stream = await hub.subscribe(start=from_sequence(hub, 99))
        with pytest.raises(CursorEpochChanged):
            await stream.next_batch()


async def test_a_restore_ends_live_streams_and_new_ones_follow_the_new_journal():
    async with bench() as hub:
        hub.model.commit(A)
        stream = await hub.subscribe()
        await next_batch(stream)
        waiting = await pending(stream)
        hub.model.restore(A, "beef")
        await hub.time.pass_(2.0)
        with pytest.raises(CursorEpochChanged) as refusal:
            await waiting
        assert refusal.value.metadata["database"] == A
        stream.close()
        again = await hub.subscribe(start=refusal.value.metadata["oldest_cursor"])
        await next_batch(again)
        hub.model.commit(A)
        assert sequences(await next_batch(again)) == [2]


async def test_a_live_stream_survives_that_the_journal_was_trimmed_while_the_server_was_away():
    async with bench() as hub:
        hub.model.commit(A)
        stream = await hub.subscribe()
        await next_batch(stream)
        waiting = await pending(stream)
        hub.model.interrupt()
        await settle()
        hub.model.commit(A)
        hub.model.commit(A)
        hub.model.trim(A, 2)
        hub.model.recover()
        await hub.time.pass_(2.0)
        with pytest.raises(CursorExpired):
            await waiting


# The storage server goes away.


async def test_an_outage_is_bridged_without_a_gap():
    async with bench() as hub:
        stream = await hub.subscribe()
        await next_batch(stream)
        hub.model.commit(A)
        assert sequences(await next_batch(stream)) == [1]
        hub.model.interrupt()
        waiting = await pending(stream)
        await hub.time.pass_(HEARTBEAT)
        assert at(await waiting) == 1
        hub.model.commit(A)
        hub.model.recover()
        waiting = await pending(stream)
        await hub.time.pass_(2.0)
        assert sequences(await waiting) == [2]


async def test_an_outage_while_catching_up_is_bridged_too():
    async with bench(page_events=10) as hub:
        for _ in range(300):
            hub.model.commit(A)
        stream = await hub.subscribe(start=Start.EARLIEST)
        assert await drain(stream, 10) == list(range(1, 11))
        hub.model.interrupt()
        received = []
        while stream._readers[0]._run:
            received += sequences(await next_batch(stream))
        waiting = await pending(stream)
        hub.model.recover()
        await hub.time.pass_(2.0)
        received += sequences(await waiting)
        received += await drain(stream, 290 - len(received))
        assert received == list(range(11, 301))


async def test_a_failure_that_waiting_does_not_cure_ends_the_stream():
    async with bench() as hub:
        stream = await hub.subscribe()
        await next_batch(stream)
        waiting = await pending(stream)
        hub.model.failure = DatabaseCorrupt("damaged")
        hub.model.databases[A].ring()
        await hub.time.pass_(2.0)
        with pytest.raises(DatabaseCorrupt):
            await waiting
        stream.close()
        hub.model.failure = None
        again = await hub.subscribe()
        await next_batch(again)
        hub.model.commit(A)
        assert sequences(await next_batch(again)) == [1]


async def test_a_defect_in_the_live_tail_is_not_silence(caplog):
    async with bench() as hub:
        stream = await hub.subscribe()
        await next_batch(stream)
        waiting = await pending(stream)
        hub.model.failure = ZeroDivisionError("a defect")
        hub.model.databases[A].ring()
        with pytest.raises(Exception, match="its log says why"):
            await waiting
        assert "a defect" in caplog.text
        hub.model.failure = None


# Limits, and the end.


async def test_the_hub_has_a_limit_of_subscriptions():
    async with bench(subscriptions_max=3) as hub:
        streams = [await hub.subscribe(service=f"s{n}") for n in range(3)]
        with pytest.raises(QueueFull) as refusal:
            await hub.subscribe(service="another")
        assert refusal.value.metadata["limit"] == "3"
        assert refusal.value.retry_after == 0.5
        streams[0].close()
        streams[0].close()
        await hub.subscribe(service="another")


async def test_each_service_has_a_limit_of_subscriptions():
    async with bench(service_subscriptions_max=2) as hub:
        for _ in range(2):
            await hub.subscribe(service="greedy")
        with pytest.raises(QueueFull, match="of greedy"):
            await hub.subscribe(service="greedy")
        await hub.subscribe(service="modest")


async def test_a_caller_that_goes_away_while_it_subscribes_leaves_nothing():
    async with bench() as hub:
        hub.model.held = True
        task = asyncio.create_task(hub.subscribe())
        await settle()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert hub.fanout._by_service.total() == 0


async def test_the_live_tail_lingers_and_then_ends():
    async with bench(linger_seconds=30) as hub:
        stream = await hub.subscribe()
        await next_batch(stream)
        assert hub.model.tails_open == 1
        stream.close()
        await hub.time.pass_(29)
        assert hub.model.tails_open == 1
        again = await hub.subscribe()
        again.close()
        await hub.time.pass_(29)
        assert hub.model.tails_open == 1
        await hub.time.pass_(1)
        assert hub.model.tails_open == 0
        third = await hub.subscribe()
        await next_batch(third)
        hub.model.commit(A)
        assert sequences(await next_batch(third)) == [1]


async def test_closing_ends_every_stream_with_its_cursor():
    async with bench() as hub:
        idle = await hub.subscribe()
        await next_batch(idle)
        waiting = await pending(idle)
        busy = await hub.subscribe()
        await next_batch(busy)
        hub.model.commit(A)
        assert sequences(await waiting) == [1]
        waiting = await pending(idle)
        await hub.fanout.close()
        last = await waiting
        assert (sequences(last), at(last)) == ([], 1)
        assert await idle.next_batch() is None
        last = await next_batch(busy)
        assert (sequences(last), at(last)) == ([], 0)
        assert await busy.next_batch() is None
        assert hub.fanout._by_service.total() == 0
        with pytest.raises(ShuttingDown):
            await hub.subscribe()
        assert hub.model.tails_open == 0


async def test_a_closed_subscription_leaves_no_task_and_no_place_in_the_window():
    async with bench() as hub:
        for _ in range(50):
            hub.model.commit(A)
        parked = await hub.subscribe()
        await next_batch(parked)
        waiting = await pending(parked)
        catching_up = await hub.subscribe(start=Start.EARLIEST)
        await next_batch(catching_up)
        task = asyncio.create_task(catching_up.next_batch())
        await asyncio.sleep(0)
        for stream in (parked, catching_up):
            stream.close()
        await settle()
        assert await waiting is None
        assert await task is None
        tail = hub.fanout._tails._tails[A]
        assert (len(tail._parked), tail._watching, hub.fanout._open) == (0, set(), set())
        assert hub.model.reads_open == 0
