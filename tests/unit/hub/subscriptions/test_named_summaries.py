"""How names stand over all their databases, and how they are deleted."""

import pytest

from hub.core.events import cursor
from hub.core.events.journal import Position
from messagehub.errors import StorageUnavailable, SubscriptionInUse, SubscriptionNotFound
from tests.unit.hub.events.fanout_bench import A, B, at, next_batch, sequences
from tests.unit.hub.events.journal_model import settle
from tests.unit.hub.events.subscription_model import named_bench


async def test_a_summary_puts_all_databases_together():
    async with named_bench() as bench:
        hub = bench.hub()
        stream = await hub.subscribe(A, B, consumer="worker-1")
        for _ in range(3):
            bench.model.commit(A)
        bench.model.commit(B)
        await hub.subscribe(B, name="another")
        (another, billing), unavailable = await hub.summaries()
        assert unavailable == []
        assert (another.name, another.databases, another.lag_events) == ("another", [B], 0)
        assert (billing.name, billing.databases) == ("billing", [A, B])
        assert (billing.lag_events, billing.lag_seconds) == (4, 3.0)
        assert (billing.active, billing.consumer) == (True, "worker-1")
        assert (billing.acknowledged_us, billing.cut_off_us) == (0, 0)
        epoch = bench.model.databases[A].epoch
        assert cursor.decode(billing.cursor) == {A: Position(epoch, 0), B: Position(epoch, 0)}
        stream.close()
        await settle()
        await hub.acknowledge(cursor.encode({A: Position(epoch, 3)}))
        bench.store.cut_off(B, "billing")
        _, billing = (await hub.summaries())[0]
        assert (billing.active, billing.consumer, billing.lag_events) == (False, "", 1)
        assert billing.acknowledged_us
        assert billing.cut_off_us
        assert cursor.decode(billing.cursor) == {A: Position(epoch, 3), B: Position(epoch, 0)}


async def test_a_database_that_cannot_be_asked_is_named():
    async with named_bench() as bench:
        hub = bench.hub()
        await hub.subscribe(A, B)
        bench.store.failures["find", A] = [StorageUnavailable("gone")]
        (billing,), unavailable = await hub.summaries()
        assert (billing.name, billing.databases, unavailable) == ("billing", [A, B], [A])
        bench.model.interrupt()
        with pytest.raises(StorageUnavailable):
            await hub.summaries()


# Deleting.


async def test_a_deleted_name_is_new_again():
    async with named_bench() as bench:
        hub = bench.hub()
        stream = await hub.subscribe(A, B)
        with pytest.raises(SubscriptionInUse):
            await hub.delete()
        assert len(bench.store.kept) == 2
        stream.close()
        await hub.delete()
        assert bench.store.kept == {}
        with pytest.raises(SubscriptionNotFound):
            await hub.delete()
        bench.model.commit(A)
        first = await next_batch(await hub.subscribe())
        assert (sequences(first), at(first)) == ([], 1)


async def test_a_deletion_that_came_half_way_is_finished_by_the_next():
    async with named_bench() as bench:
        hub = bench.hub()
        (await hub.subscribe(A, B)).close()
        bench.store.failures["delete", B] = [StorageUnavailable("gone")]
        with pytest.raises(StorageUnavailable):
            await hub.delete()
        await hub.delete()
        assert bench.store.kept == {}
