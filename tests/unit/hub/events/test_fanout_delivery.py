"""What a live stream gives, when it speaks, and how a slow one is kept from harming others."""

import asyncio

from hub.core.events import cursor
from hub.core.events.fanout import Start
from hub.core.events.journal import Position
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
        sleeping = stream._waiter
        for _ in range(3):
            hub.model.commit(A, "other.x")
        await settle()
        assert stream._waiter is sleeping
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
