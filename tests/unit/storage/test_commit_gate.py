"""While somebody holds commits, none is under way; and nobody waits for ever."""

import asyncio

import pytest

from messagehub.errors import TransactionConflict
from storage.core.transactions.commit_gate import CommitGate
from tests.unit.storage.scripted_engine import settle

SOON = 0.01
NEVER = 1e6


def gate() -> tuple[CommitGate, float]:
    clock = asyncio.get_running_loop().time
    return CommitGate("items_db", clock), clock() + NEVER


async def test_a_holder_waits_for_what_is_under_way() -> None:
    commits, never = gate()
    await commits.enter(never)
    holding = asyncio.ensure_future(commits.hold("a", until=never, lease_seconds=NEVER))
    await settle()
    assert not holding.done()
    commits.leave()
    await holding
    assert commits.release("a")


async def test_nobody_enters_while_it_is_held_or_wanted() -> None:
    commits, never = gate()
    await commits.enter(never)
    holding = asyncio.ensure_future(commits.hold("a", until=never, lease_seconds=NEVER))
    await settle()
    entering = asyncio.ensure_future(commits.enter(never))
    commits.leave()
    await holding
    await settle()
    assert not entering.done()
    commits.release("a")
    await entering


async def test_several_hold_at_once() -> None:
    commits, never = gate()
    for holder in ("a", "b"):
        await commits.hold(holder, until=never, lease_seconds=NEVER)
    commits.release("a")
    entering = asyncio.ensure_future(commits.enter(never))
    await settle()
    assert not entering.done()
    commits.release("b")
    await entering


async def test_a_lease_ends_by_itself() -> None:
    commits, never = gate()
    await commits.hold("a", until=never, lease_seconds=SOON)
    await commits.enter(never)
    assert not commits.release("a")


async def test_waiting_ends_in_time_and_leaves_nothing() -> None:
    commits, never = gate()
    await commits.enter(never)
    now = asyncio.get_running_loop().time()
    with pytest.raises(TransactionConflict):
        await commits.hold("a", until=now + SOON, lease_seconds=NEVER)
    commits.leave()
    await commits.enter(never)
    commits.leave()
    await commits.hold("b", until=never, lease_seconds=NEVER)
    now = asyncio.get_running_loop().time()
    with pytest.raises(TransactionConflict):
        await commits.enter(now + SOON)
    commits.release("b")
