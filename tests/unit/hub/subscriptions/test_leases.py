"""Leases: prolonged while the stream lives, given up with it, and over before others may read."""

import asyncio

import pytest

from hub.core.subscriptions.subscription_store import Hold, Name
from messagehub.errors import (
    DatabaseUnavailable,
    InternalError,
    StorageUnavailable,
    SubscriptionInUse,
    SubscriptionNotFound,
)
from tests.unit.hub.events.fanout_bench import A, B, drain, next_batch
from tests.unit.hub.events.journal_model import settle
from tests.unit.hub.events.subscription_model import LEASE, SERVICE, named_bench


async def test_a_stream_holds_its_name_for_as_long_as_it_lives():
    async with named_bench() as bench:
        one, two = bench.hub(), bench.hub()
        stream = await one.subscribe()
        for _ in range(20):
            await bench.time.pass_(LEASE / 2)
            with pytest.raises(SubscriptionInUse):
                await two.subscribe()
        stream.close()
        await settle()
        assert bench.store.calls.count(("release", A)) == 1
        holds = bench.store.calls.count(("hold", A))
        await bench.time.pass_(LEASE)
        assert bench.store.calls.count(("hold", A)) == holds, "it is prolonged no more"


async def test_the_name_of_a_killed_hub_is_free_after_a_lease():
    async with named_bench() as bench:
        one, two = bench.hub(), bench.hub()
        stream = await one.subscribe()
        kill(stream)
        await bench.time.pass_(LEASE - 0.1)
        with pytest.raises(SubscriptionInUse):
            await two.subscribe()
        await bench.time.pass_(0.2)
        await two.subscribe()


def kill(stream) -> None:
    """Ends what keeps the lease without a word to the storage server."""
    for task in asyncio.all_tasks():
        if task.get_name() == f"leases-{A}":
            task.cancel()
    stream._on_close = lambda: None


async def test_a_hub_that_cannot_prolong_ends_the_stream_before_others_may_read():
    async with named_bench() as bench:
        one, two = bench.hub(), bench.hub()
        stream = await one.subscribe()
        await next_batch(stream)
        waiting = asyncio.create_task(drain(stream, 1))
        bench.store.failures["hold", A] = [DatabaseUnavailable("slow")] * 100
        await bench.time.pass_(LEASE - 0.1)
        assert not waiting.done()
        with pytest.raises(SubscriptionInUse):
            await two.subscribe()
        await bench.time.pass_(0.1)
        with pytest.raises(StorageUnavailable) as caught:
            await waiting
        assert "slow" in caught.value.message
        assert caught.value.retry_after
        await two.subscribe()


async def test_a_storage_server_that_comes_back_in_time_is_not_noticed():
    async with named_bench() as bench:
        stream = await bench.hub().subscribe()
        bench.model.interrupt()
        await bench.time.pass_(LEASE - 1.5)
        bench.model.recover()
        await bench.time.pass_(3 * LEASE)
        bench.model.commit(A)
        await bench.time.pass_(5)
        assert await drain(stream, 1) == [1]
        with pytest.raises(SubscriptionInUse):
            await bench.hub().subscribe()


async def test_a_storage_server_that_does_not_answer_is_one_that_is_away():
    async with named_bench() as bench:
        stream = await bench.hub().subscribe()
        bench.store.held.add("hold")
        calls = len(bench.store.calls)
        await bench.time.pass_(LEASE)
        # The adapter bounds the call; here it hangs, and the stream lives only because of that.
        assert bench.store.calls[calls:] == [("hold", A)]
        stream.close()
        await settle()
        assert bench.store.calls[-1] == ("release", A)


async def test_a_name_that_was_deleted_ends_its_stream():
    async with named_bench() as bench:
        stream = await bench.hub().subscribe()
        await next_batch(stream)
        del bench.store.kept[A, SERVICE, "billing"]
        waiting = asyncio.create_task(stream.next_batch())
        await bench.time.pass_(LEASE / 3)
        with pytest.raises(SubscriptionNotFound):
            await waiting


async def test_a_defect_is_told_and_logged(caplog):
    async with named_bench() as bench:
        stream = await bench.hub().subscribe()
        await next_batch(stream)
        bench.store.failures["hold", A] = [KeyError("defect")]
        waiting = asyncio.create_task(stream.next_batch())
        await bench.time.pass_(LEASE / 3)
        with pytest.raises(InternalError):
            await waiting
        assert "leases are kept no longer" in caplog.text


async def test_a_lease_that_cannot_be_given_up_ends_by_itself():
    async with named_bench() as bench:
        hub = bench.hub()
        stream = await hub.subscribe()
        bench.store.failures["release", A] = [StorageUnavailable("gone")]
        stream.close()
        await hub.named.close()
        with pytest.raises(SubscriptionInUse):
            await bench.hub().subscribe()
        await bench.time.pass_(LEASE)
        await bench.hub().subscribe()


async def test_closing_waits_until_the_names_are_free():
    async with named_bench() as bench:
        hub = bench.hub()
        stream = await hub.subscribe()
        bench.store.held.add("release")
        stream.close()
        closing = asyncio.create_task(hub.named.close())
        again = asyncio.create_task(hub.subscribe())
        await settle()
        assert not closing.done()
        assert not again.done(), "it waits for its own hub's release"
        bench.store.release()
        await closing
        await again


async def test_all_leases_of_a_database_are_prolonged_together():
    async with named_bench() as bench:
        one, two = bench.hub(), bench.hub()
        streams = [await one.subscribe(name=f"n{n}") for n in range(10)]
        await one.subscribe(B, name="elsewhere")
        lost = streams.pop()
        del bench.store.kept[A, SERVICE, "n9"]
        bench.store.calls.clear()
        await bench.time.pass_(LEASE / 3)
        assert sorted(bench.store.calls) == [("hold", A), ("hold", B)]
        with pytest.raises(SubscriptionNotFound):
            await drain(lost, 1)
        await bench.time.pass_(5 * LEASE)
        for n in range(9):
            with pytest.raises(SubscriptionInUse):
                await two.subscribe(name=f"n{n}")
        for stream in streams:
            stream.close()
        await bench.time.pass_(LEASE)
        bench.store.calls.clear()
        await bench.time.pass_(LEASE)
        assert ("hold", A) not in bench.store.calls


async def test_a_lease_that_comes_when_the_last_one_has_just_gone_is_kept():
    async with named_bench() as bench:
        leases = bench.hub().leases
        loop = asyncio.get_running_loop()
        gone, comes = (
            leases.begin(Hold(Name(SERVICE, name), "s"), A) for name in ("gone", "comes")
        )
        lost = []
        woken = loop.create_future()
        leases._sleep = lambda _: woken
        leases.keep(gone, lost.append)
        await settle()
        leases._forget(gone)
        woken.set_result(None)
        # After the keeper's last step, and before anybody hears of its end.
        loop.call_soon(leases.keep, comes, lost.append)
        leases._sleep = bench.time.sleep
        await settle()
        assert lost == []
        assert list(leases._keepers) == [A]
        bench.store.calls.clear()
        await bench.time.pass_(LEASE / 3)
        assert bench.store.calls == [("hold", A)]
