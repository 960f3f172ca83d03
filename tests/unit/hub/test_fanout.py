"""Subscriptions: where they begin, when they speak, what they share, and how they end."""

import asyncio

import pytest

from hub.core import cursor
from hub.core.event_filter import EventFilter
from hub.core.fanout import Start
from hub.core.journal import Position
from messagehub.errors import (
    CursorEpochChanged,
    CursorExpired,
    DatabaseCorrupt,
    QueueFull,
    ShuttingDown,
    StorageUnavailable,
)
from tests.unit.hub.fanout_bench import A, B, at, bench, drain, next_batch, sequences
from tests.unit.hub.journal_model import settle

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


# Live delivery.


async def test_there_is_one_live_tail_however_many_subscribe():
    async with bench() as hub:
        streams = [await hub.subscribe(types=[f"a.{n % 3}", "b.*"]) for n in range(20)]
        for stream in streams:
            await next_batch(stream)
        hub.model.commit(A, "b.c")
        assert [sequences(await next_batch(stream)) for stream in streams] == [[1]] * 20
        assert (hub.model.tails_begun, hub.model.reads) == (1, [])


async def test_what_is_not_wanted_does_not_wake_anybody_but_moves_the_cursor():
    async with bench() as hub:
        stream = await hub.subscribe(types=["wanted.*"])
        await next_batch(stream)
        waiting = await pending(stream)
        for _ in range(3):
            hub.model.commit(A, "other.x")
        await settle()
        assert not waiting.done()
        assert not stream._woken
        await hub.time.pass_(HEARTBEAT)
        heartbeat = await waiting
        assert (sequences(heartbeat), at(heartbeat)) == ([], 3)


async def test_heartbeats_come_at_the_interval_and_only_in_silence():
    async with bench() as hub:
        stream = await hub.subscribe()
        await next_batch(stream)
        for _ in range(3):
            waiting = await pending(stream)
            await hub.time.pass_(HEARTBEAT - 1)
            assert not waiting.done()
            await hub.time.pass_(1)
            assert sequences(await waiting) == []
        waiting = await pending(stream)
        await hub.time.pass_(HEARTBEAT - 1)
        hub.model.commit(A)
        assert sequences(await waiting) == [1]
        waiting = await pending(stream)
        await hub.time.pass_(HEARTBEAT - 1)
        assert not waiting.done()
        waiting.cancel()


async def test_messages_are_bounded_and_nothing_waits_to_fill_them():
    async with bench(message_events_max=4) as hub:
        stream = await hub.subscribe()
        await next_batch(stream)
        for _ in range(10):
            hub.model.commit(A)
        assert len(sequences(await next_batch(stream))) == 4
        assert len(sequences(await next_batch(stream))) == 4
        assert len(sequences(await next_batch(stream))) == 2


async def test_databases_share_every_message():
    async with bench(message_events_max=10, window_bytes_max=1_000_000) as hub:
        stream = await hub.subscribe(A, B)
        await next_batch(stream)
        for _ in range(100):
            hub.model.commit(A)
        for _ in range(20):
            hub.model.commit(B)
        await settle()
        for _ in range(4):
            before = cursor.decode(stream.cursor())
            after = cursor.decode((await next_batch(stream)).cursor)
            assert [after[name].sequence - before[name].sequence for name in (A, B)] == [5, 5]
        assert len(sequences(await next_batch(stream))) == 10


async def test_one_database_that_is_away_does_not_hold_the_others_up():
    async with bench() as hub:
        stream = await hub.subscribe(A, B)
        await next_batch(stream)
        hub.model.restore(B, "dead")  # its tail will not come back before time passes
        hub.model.commit(A)
        assert sequences(await next_batch(stream)) == [1]


async def test_a_commit_larger_than_the_window_comes_whole_from_the_journal():
    async with bench(page_events=7, window_bytes_max=2_000, subscriber_bytes_max=50_000) as hub:
        stream = await hub.subscribe()
        await next_batch(stream)
        hub.model.commit(A, transaction_id="before")
        hub.model.commit(A, *["a.b"] * 100, transaction_id="large")
        hub.model.commit(A, transaction_id="after")
        assert sequences(await next_batch(stream)) == [1]
        whole = await next_batch(stream)
        assert (sequences(whole), at(whole)) == (list(range(2, 102)), 101)
        assert sequences(await next_batch(stream)) == [102]


async def test_what_is_wanted_of_a_commit_larger_than_the_window_is_not_missed():
    async with bench(page_events=7, window_bytes_max=500) as hub:
        stream = await hub.subscribe(types=["wanted.*"])
        await next_batch(stream)
        waiting = await pending(stream)
        hub.model.commit(A, "wanted.x", transaction_id="small")
        hub.model.commit(A, *["wanted.x"] * 10, *["a.b"] * 40, transaction_id="large")
        assert sequences(await waiting) == [1]
        assert sequences(await next_batch(stream)) == list(range(2, 12))
        waiting = await pending(stream)
        hub.model.commit(A, *["wanted.x"] * 10, *["a.b"] * 40, transaction_id="larger")
        assert sequences(await waiting) == list(range(52, 62))


async def test_a_commit_larger_than_a_subscriber_may_hold_comes_in_pieces_before_one_cursor():
    async with bench(page_events=7, window_bytes_max=2_000, subscriber_bytes_max=3_000) as hub:
        stream = await hub.subscribe()
        await next_batch(stream)
        hub.model.commit(A, transaction_id="before")
        hub.model.commit(A, *["a.b"] * 100, transaction_id="large")
        hub.model.commit(A, transaction_id="after")
        batches = []
        while sum(len(batch.events) for batch in batches) < 102:
            batches.append(await next_batch(stream))
        assert [s for batch in batches for s in sequences(batch)] == list(range(1, 103))
        positions = [at(batch) for batch in batches]
        assert set(positions) == {1, 101, 102}
        assert positions == sorted(positions)
        assert max(sum(e.size for e in batch.events) for batch in batches) <= 3_000


# Slow subscribers.


async def test_a_stalled_subscriber_costs_nothing_and_then_gets_everything_once():
    async with bench(page_events=50) as hub:
        stalled = await hub.subscribe()
        await next_batch(stalled)
        others = [await hub.subscribe() for _ in range(5)]
        for other in others:
            await next_batch(other)
        received = {other: [] for other in others}
        for _ in range(100):
            for _ in range(20):
                hub.model.commit(A)
            for other in others:
                while len(received[other]) < hub.model.databases[A].sequence:
                    received[other] += sequences(await next_batch(other))
            assert hub.fanout._tails._tails[A].window.bytes <= 5_000
            assert stalled._readers[0]._run == ()
        assert hub.model.reads == []
        assert all(got == list(range(1, 2001)) for got in received.values())
        assert await drain(stalled, 2000) == list(range(1, 2001))
        assert hub.model.reads
        assert hub.model.tails_begun == 1


async def test_a_subscriber_that_catches_up_comes_back_to_the_window():
    async with bench(page_events=50) as hub:
        for _ in range(300):
            hub.model.commit(A)
        stream = await hub.subscribe(start=Start.EARLIEST)
        assert await drain(stream, 300) == list(range(1, 301))
        reads = len(hub.model.reads)
        for number in range(301, 320):
            hub.model.commit(A)
            assert sequences(await next_batch(stream)) == [number]
        assert len(hub.model.reads) == reads


async def test_what_a_subscriber_holds_is_bounded():
    async with bench(page_events=10, subscriber_bytes_max=2_000) as hub:
        for _ in range(300):
            hub.model.commit(A, size=50)
        stream = await hub.subscribe(start=Start.EARLIEST)
        page_bytes = 10 * 200
        await next_batch(stream)
        for _ in range(300 // 10):
            assert sequences(await next_batch(stream))
            held = sum(event.size for event in stream._readers[0]._run)
            assert held <= 2_000 + page_bytes


async def test_only_so_many_read_journals_at_a_time():
    async with bench(page_events=3, journal_reads_max=2) as hub:
        for _ in range(200):
            hub.model.commit(A)
        streams = [await hub.subscribe(start=Start.EARLIEST) for _ in range(8)]
        drained = await asyncio.gather(*(drain(stream, 200) for stream in streams))
        assert drained == [list(range(1, 201))] * 8
        assert hub.model.reads_open_max == 2


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
        assert (tail._parked, tail._watching, hub.fanout._open) == ({}, set(), set())
        assert hub.model.reads_open == 0


async def test_equal_filters_share_their_place_in_the_window():
    async with bench() as hub:
        streams = [await hub.subscribe(types=["a.*"]) for _ in range(3)]
        waiting = []
        for stream in streams:
            await next_batch(stream)
            waiting.append(await pending(stream))
        tail = hub.fanout._tails._tails[A]
        assert {f: len(group) for f, group in tail._parked.items()} == {EventFilter(["a.*"]): 3}
        for task in waiting:
            task.cancel()
