"""Locks of one hub: in turn, bounded, given back whatever happens."""

import asyncio

import pytest

from hub.core.transactions.locks import LockTable
from messagehub.errors import TransactionConflict
from tests.support.virtual_time import run


def test_whoever_comes_first_has_it_first():
    async def live():
        table, order = LockTable(), []

        async def use(name, *databases):
            held = await table.take(databases, seconds=10.0)
            order.append(name)
            await asyncio.sleep(1.0)
            held.release_all()

        await asyncio.gather(use("1", "a", "b"), use("2", "b"), use("3", "a"), use("4", "b"))
        assert [name for name in order if name != "3"] == ["1", "2", "4"]
        assert order.index("3") > order.index("1")
        assert table.idle

    run(live())


def test_one_that_waits_too_long_has_nothing():
    async def live():
        table = LockTable()
        held = await table.take(["b"], seconds=1.0)
        with pytest.raises(TransactionConflict) as failure:
            await table.take(["a", "b", "c"], seconds=1.0)
        assert failure.value.metadata["database"] == "b"
        (await table.take(["a", "c"], seconds=0.1)).release_all()
        held.release_all()
        assert table.idle

    run(live())


def test_those_who_share_are_together_and_nobody_overtakes():
    async def live():
        table, order = LockTable(), []
        first = await table.take(["a"], seconds=1.0, shared=True)
        second = await table.take(["a"], seconds=1.0, shared=True)

        async def use(name, *, shared):
            held = await table.take(["a"], seconds=10.0, shared=shared)
            order.append(name)
            held.release_all()

        alone = asyncio.ensure_future(use("alone", shared=False))
        await asyncio.sleep(0)
        late = asyncio.ensure_future(use("late", shared=True))
        await asyncio.sleep(0.1)
        assert not order
        first.release_all()
        await asyncio.sleep(0.1)
        assert not order
        second.release_all()
        await asyncio.gather(alone, late)
        assert order == ["alone", "late"]
        assert table.idle

    run(live())


def test_one_who_goes_away_leaves_the_way_free():
    async def live():
        table = LockTable()
        held = await table.take(["a"], seconds=1.0)
        going = asyncio.ensure_future(table.take(["a"], seconds=10.0))
        staying = asyncio.ensure_future(table.take(["a"], seconds=10.0))
        await asyncio.sleep(0.1)
        # In the very moment in which it gets its turn.
        held.release("a")
        held.release("a")
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        (await staying).release_all()
        assert table.idle

    run(live())


def test_one_who_goes_away_just_before_its_turn_is_passed_over():
    async def live():
        table = LockTable()
        held = await table.take(["a"], seconds=1.0)
        going = asyncio.ensure_future(table.take(["a"], seconds=10.0))
        staying = asyncio.ensure_future(table.take(["a"], seconds=10.0))
        await asyncio.sleep(0.1)
        going.cancel()
        held.release_all()
        with pytest.raises(asyncio.CancelledError):
            await going
        (await staying).release_all()
        assert table.idle

    run(live())


def test_locks_are_given_back_one_by_one():
    async def live():
        table = LockTable()
        held = await table.take(["b", "a", "a"], seconds=1.0)
        assert held.databases == {"a", "b"}
        held.release("a")
        (await table.take(["a"], seconds=0.1)).release_all()
        held.release("c")
        held.release_all()
        assert table.idle

    run(live())
