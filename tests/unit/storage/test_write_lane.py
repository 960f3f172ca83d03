"""The lane of the one writer: groups, outcomes, and what happens when it ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from messagehub.errors import Cancelled, DatabaseUnavailable, HubError, ShuttingDown, StorageFull
from storage.core.engine import EngineLost
from storage.core.fair_queue import FairQueue, QueueLimits
from storage.core.write_lane import WriteLane
from tests.unit.storage.scripted_engine import Caller, Disk, settle

if TYPE_CHECKING:
    from storage.core.operation import Applied

LIMITS = QueueLimits(1000, 1_000_000, 1000, 1_000_000, 0.02)
OVER = ShuttingDown("over")


class Lane:
    """A write lane over a scripted engine."""

    def __init__(self) -> None:
        self.disk = Disk()
        engine = self.disk.make()
        engine.is_open = True
        self.queue = FairQueue(LIMITS)
        self.caller = Caller()
        self.committed: list[Applied] = []
        self.lost: list[HubError] = []
        self.lane = WriteLane(
            self.queue,
            engine.apply,
            self.committed.append,
            self.lost.append,
            group_operations_max=4,
        )

    def submit(self, *names: str, **more: Any) -> None:
        for name in names:
            self.lane.submit(self.caller.operation(name, **more))

    @property
    def groups(self) -> list[list[str]]:
        return [[operation.correlation_id for operation in group] for group in self.disk.groups]


@pytest_asyncio.fixture(loop_scope="session")
async def lane() -> AsyncIterator[Lane]:
    made = Lane()
    yield made
    made.disk.applying.open()
    if not made.lane._task.cancelled():
        await made.lane.end(OVER)


async def test_what_gathers_during_a_commit_is_the_next_group(lane: Lane) -> None:
    lane.disk.applying.shut()
    lane.submit("1")
    await lane.disk.applying.reached.wait()
    lane.submit("2", "3", "4", "5", "6")
    assert lane.caller.answers == [], "nothing is answered before its commit"
    lane.disk.applying.open()
    await settle()
    assert lane.groups == [["1"], ["2", "3", "4", "5"], ["6"]]
    assert lane.caller.answers == [(str(n), "") for n in range(1, 7)]
    assert [applied.sequence for applied in lane.committed] == [1, 5, 6]
    assert lane.lane.idle


async def test_groups_take_callers_in_turn(lane: Lane) -> None:
    lane.disk.applying.shut()
    lane.submit("first")
    await lane.disk.applying.reached.wait()
    lane.submit(*(f"a{n}" for n in range(10)), service="a")
    lane.submit("b0", service="b")
    lane.disk.applying.open()
    await settle()
    assert lane.groups[1] == ["a0", "b0", "a1", "a2"]


async def test_what_a_group_did_not_begin_comes_first_in_the_next(lane: Lane) -> None:
    lane.disk.applying.shut()
    lane.submit("first")
    await lane.disk.applying.reached.wait()
    lane.disk.begun_max = 1
    lane.submit("1", "2", "3", "4", "5")
    lane.disk.applying.open()
    await settle(40)
    assert lane.groups == [["first"], ["1"], ["2"], ["3"], ["4"], ["5"]]
    assert len(lane.caller.outcomes) == 6


async def test_a_failed_group_is_answered_and_the_lane_goes_on(lane: Lane) -> None:
    lane.disk.apply_failures.append(StorageFull("no room"))
    lane.submit("1", "2")
    await settle()
    lane.submit("3")
    await settle()
    assert lane.caller.answers == [("1", "STORAGE_FULL"), ("2", "STORAGE_FULL"), ("3", "")]
    assert not lane.lost


async def test_a_lost_engine_ends_the_lane_and_everybody_is_told(lane: Lane) -> None:
    lane.disk.applying.shut()
    lane.submit("1", "2")
    await lane.disk.applying.reached.wait()
    lane.submit("3", "4", "5", "6", "7", "8")
    loss = DatabaseUnavailable("fsync failed")
    lane.disk.apply_failures.append(EngineLost(loss))
    lane.disk.applying.open()
    await settle()
    assert lane.lost == [loss]
    assert len(lane.caller.answers) == 8
    assert {reason for _, reason in lane.caller.answers} == {"DATABASE_UNAVAILABLE"}
    assert lane.groups == [], "nothing runs on an engine that is lost"
    with pytest.raises(DatabaseUnavailable):
        lane.submit("9")


async def test_a_defect_ends_the_lane_and_everybody_is_told(lane: Lane) -> None:
    loop = asyncio.get_running_loop()
    seen: list[dict[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: seen.append(context))
    try:
        lane.disk.applying.shut()
        lane.submit("1")
        await lane.disk.applying.reached.wait()
        lane.submit("2", "3", "4", "5", "6", "7")
        lane.disk.apply_failures.append(ZeroDivisionError("a defect"))
        lane.disk.applying.open()
        await settle()
    finally:
        loop.set_exception_handler(before)
    assert len(lane.caller.answers) == 7, "also those that only waited"
    assert {reason for _, reason in lane.caller.answers} == {"INTERNAL"}
    assert [type(context["exception"]) for context in seen] == [ZeroDivisionError]
    assert len(lane.lost) == 1
    await lane.lane.end(OVER)


async def test_a_receiver_that_fails_hurts_nobody_else(lane: Lane) -> None:
    loop = asyncio.get_running_loop()
    seen: list[dict[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: seen.append(context))

    def fail(_: object) -> None:
        raise ZeroDivisionError

    try:
        bad = lane.caller.operation("bad")
        bad.deliver = fail
        lane.lane.submit(bad)
        lane.submit("1")
        await settle()
        lane.submit("2")
        await settle()
    finally:
        loop.set_exception_handler(before)
    assert lane.caller.answers == [("1", ""), ("2", "")]
    assert len(seen) == 1


async def test_the_end_finishes_what_is_under_way_and_refuses_the_rest(lane: Lane) -> None:
    lane.disk.applying.shut()
    lane.submit("1")
    await lane.disk.applying.reached.wait()
    lane.submit("2", "3")
    ending = asyncio.ensure_future(lane.lane.end(OVER))
    await settle()
    assert not ending.done()
    with pytest.raises(ShuttingDown):
        lane.submit("4")
    lane.disk.applying.open()
    await ending
    down = "SHUTTING_DOWN"
    assert sorted(lane.caller.answers) == [("1", ""), ("2", down), ("3", down)]
    assert lane.groups == [["1"]]
    assert lane.lane.idle


async def test_an_end_that_takes_too_long_interrupts_what_is_under_way(lane: Lane) -> None:
    lane.disk.applying.shut()
    lane.submit("1", "2")
    await lane.disk.applying.reached.wait()
    operations = list(lane.lane._running)
    assert [operation.cancelled for operation in operations] == [False, False]
    ending = asyncio.ensure_future(lane.lane.end(OVER, 0.0))
    await settle()
    assert [operation.cancelled for operation in operations] == [True, True]
    assert not ending.done(), "what is under way is still waited for"
    # What an engine says of an operation that it interrupted.
    lane.disk.apply_failures.append(Cancelled("interrupted"))
    lane.disk.applying.open()
    await ending
    assert sorted(lane.caller.answers) == [("1", "SHUTTING_DOWN"), ("2", "SHUTTING_DOWN")]


async def test_the_end_before_anything_began(lane: Lane) -> None:
    lane.submit("1")
    await lane.lane.end(OVER)
    assert lane.caller.answers == [("1", "SHUTTING_DOWN")]
    await lane.lane.end(OVER)


async def test_what_was_not_begun_when_the_lane_ends_is_refused(lane: Lane) -> None:
    lane.disk.applying.shut()
    lane.disk.begun_max = 1
    lane.submit("1", "2", "3")
    await lane.disk.applying.reached.wait()
    ending = asyncio.ensure_future(lane.lane.end(OVER))
    await settle()
    lane.disk.applying.open()
    await ending
    down = "SHUTTING_DOWN"
    assert sorted(lane.caller.answers) == [("1", ""), ("2", down), ("3", down)]


async def test_a_lane_that_is_cancelled_tells_its_group(lane: Lane) -> None:
    lane.disk.applying.shut()
    lane.submit("1")
    await lane.disk.applying.reached.wait()
    lane.submit("2")
    lane.lane._task.cancel()
    await asyncio.wait([lane.lane._task])
    assert sorted(name for name, _ in lane.caller.answers) == ["1", "2"]
    assert all(reason for _, reason in lane.caller.answers)
    with pytest.raises(DatabaseUnavailable):
        lane.submit("3")
