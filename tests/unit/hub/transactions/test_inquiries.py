"""What is told of transactions, and what an operator may do about them."""

import asyncio

import pytest

from hub.core.transactions.inquiries import Selection
from hub.core.transactions.transaction import PartState, State
from messagehub.errors import (
    InvalidRequest,
    StorageUnavailable,
    TransactionExpired,
    TransactionNotFound,
)
from tests.support.virtual_time import run
from tests.unit.hub.transactions.test_interactive import begin, commit, join, roll_back
from tests.unit.hub.transactions.world import check_atomic, world

BOTH = {"a": [("add", "x", 1)], "b": [("add", "x", 1)]}
UNFINISHED = frozenset({State.ACTIVE, State.PREPARING, State.IN_DOUBT})
FIRST = (-1, "")


async def stands(hub, name):
    return (await hub.inquiries.get(name, 5.0)).state


async def listed(hub, states=UNFINISHED, after=FIRST, most=100, readable=("a", "b", "c")):
    page = await hub.inquiries.page(readable, Selection(frozenset(states), after, most), 5.0)
    return [(one.header.transaction_id, one.state) for one in page.standings], page


async def abandoned(w, place="coordinator.all_prepared"):
    """A transaction over a and b whose hub died, and another hub."""
    dying, other = w.hub(), w.hub(abandoned_seconds=1000.0)
    dying.dies_at = place
    calling = asyncio.ensure_future(dying.execute(BOTH))
    await asyncio.sleep(0.5)
    await dying.die()
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    return "b/hub0-1", other


def test_an_open_one_is_active_until_it_ends():
    async def live():
        async with world() as w:
            hub, other = w.hub(), w.hub()
            committed, given_up = await begin(hub, "a", "b"), await begin(hub, "c")
            for asked in (hub, other):
                assert await stands(asked, committed) is State.ACTIVE
                names, _ = await listed(asked)
                assert names == [(committed, State.ACTIVE), (given_up, State.ACTIVE)]
            await commit(hub, committed)
            await roll_back(hub, given_up)
            for asked in (hub, other):
                assert await stands(asked, committed) is State.COMMITTED
                assert await stands(asked, given_up) is State.ROLLED_BACK
                assert (await listed(asked))[0] == []
                ended, _ = await listed(asked, {State.COMMITTED, State.ROLLED_BACK})
                assert dict(ended) == {
                    committed: State.COMMITTED,
                    given_up: State.ROLLED_BACK,
                }

    run(live())


def test_one_on_its_way_is_preparing():
    async def live():
        async with world() as w:
            hub, other = w.hub(), w.hub()
            work = {"a": [("add", "x", 1)], "b": [("slow", 0.5)], "c": [("add", "x", 1)]}
            calling = asyncio.ensure_future(hub.execute(work))
            await asyncio.sleep(0.1)
            for asked in (hub, other):
                assert await stands(asked, "c/hub0-1") is State.PREPARING
                assert (await listed(asked))[0] == [("c/hub0-1", State.PREPARING)]
            await calling
            assert await stands(other, "c/hub0-1") is State.COMMITTED

    run(live())


def test_a_home_that_is_away_leaves_it_in_doubt():
    async def live():
        async with world() as w:
            name, other = await abandoned(w)
            assert await stands(other, name) is State.PREPARING
            other.cut_off.add("b")
            told = await other.inquiries.get(name, 5.0)
            assert (told.state, told.waiting_for) == (State.IN_DOUBT, ("b",))
            names, page = await listed(other)
            assert names == [(name, State.IN_DOUBT)]
            assert page.unavailable == ["b"]

    run(live())


def test_a_participant_that_ended_proves_the_end():
    async def live():
        async with world() as w:
            hub, other = w.hub(), w.hub()
            done = await hub.execute(BOTH)
            other.cut_off.add("b")
            assert await stands(other, done.transaction_id) is State.COMMITTED

    run(live())


def test_nothing_found_is_not_told_while_somebody_could_not_be_asked():
    async def live():
        async with world() as w:
            hub = w.hub()
            with pytest.raises(TransactionNotFound):
                await stands(hub, "b/never-was")
            hub.cut_off.add("a")
            with pytest.raises(StorageUnavailable):
                await stands(hub, "b/never-was")
            with pytest.raises(TransactionNotFound):
                await stands(hub, "nowhere/1")
            with pytest.raises(InvalidRequest):
                await stands(hub, "nonsense")

    run(live())


def test_pages_follow_each_other():
    async def live():
        async with world() as w:
            hub = w.hub()
            made = []
            for _ in range(5):
                made.append((await hub.execute(BOTH)).transaction_id)
                await asyncio.sleep(0.1)
            found, after = [], FIRST
            while True:
                names, page = await listed(hub, {State.COMMITTED}, after, most=2)
                found += [name for name, _ in names]
                if not page.more:
                    break
                last = page.standings[-1].header
                after = (last.create_time_us, last.transaction_id)
            assert found == made

    run(live())


def test_an_operator_ends_what_nobody_can():
    async def live():
        async with world() as w:
            name, other = await abandoned(w)
            w.databases["b"].forgetful = True
            standing = await other.inquiries.get(name, 5.0)
            # The home may still decide by itself: nothing is forced.
            told = await other.forcing.force(standing, commit=True, by="auth", seconds=5.0)
            assert told.state is State.PREPARING
            assert w.databases["a"].prepared
            other.cut_off.add("b")
            standing = await other.inquiries.get(name, 5.0)
            told = await other.forcing.force(standing, commit=False, by="auth", seconds=5.0)
            assert told.state is State.ROLLED_BACK
            record = w.databases["a"].records[name]
            assert (record.state, record.forced) == (PartState.ROLLED_BACK, True)
            assert "auth" in record.error.message
            check_atomic(w)

    run(live())


def test_an_operator_may_commit_what_is_prepared():
    async def live():
        async with world() as w:
            name, other = await abandoned(w)
            other.cut_off.add("b")
            standing = await other.inquiries.get(name, 5.0)
            told = await other.forcing.force(standing, commit=True, by="auth", seconds=5.0)
            assert told.state is State.COMMITTED
            assert w.value("a") == 1
            assert w.databases["a"].records[name].forced

    run(live())


def test_an_operator_who_reaches_nobody_learns_so():
    async def live():
        async with world() as w:
            name, other = await abandoned(w)
            other.cut_off.add("b")
            standing = await other.inquiries.get(name, 5.0)
            other.cut_off.add("a")
            with pytest.raises(StorageUnavailable):
                await other.forcing.force(standing, commit=True, by="auth", seconds=5.0)

    run(live())


def test_what_this_hub_has_forgotten_the_databases_still_know():
    async def live():
        async with world() as w:
            hub = w.hub(kept_max=1)
            first, second = await begin(hub, "a"), await begin(hub, "b")
            await join(hub, first, "a", "add", "x", 1)
            await commit(hub, first)
            await roll_back(hub, second)
            assert hub.remembered.get(first) is None
            assert await stands(hub, first) is State.COMMITTED
            assert (await commit(hub, first)).state is State.COMMITTED
            with pytest.raises(TransactionExpired):
                await commit(hub, second)

    run(live())
