"""The lanes of the readers: one does the work, more are opened when it is stuck."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from messagehub.errors import (
    Cancelled,
    DatabaseUnavailable,
    HubError,
    QueueFull,
    ShuttingDown,
)
from messagehub.v1.statement_pb2 import ResultSet
from storage.core.fair_queue import FairQueue, QueueLimits
from storage.core.operation import Operation, Outcome
from storage.core.read_lanes import ReadLanes, ReadLimits
from tests.unit.storage.scripted_engine import Caller, settle

LIMITS = QueueLimits(1000, 1_000_000, 1000, 1_000_000, 0.02)
OVER = ShuttingDown("over")


class Readers:
    """Read lanes over readers that run each operation until the test lets it end."""

    def __init__(self, lanes_max: int = 4) -> None:
        self.caller = Caller()
        self.diverted: list[Operation] = []
        self.divert_failure: HubError | None = None
        self.slow: dict[str, asyncio.Event] = {}
        self.needs_writer: set[str] = set()
        self.trips: list[int] = []
        self.ran_on: dict[str, int] = {}
        self.failures: list[Exception] = []
        self.now = 0.0
        self.time_passes = True
        self.lanes = ReadLanes(
            FairQueue(LIMITS),
            self._drain,
            self._divert,
            ReadLimits(lanes_max=lanes_max, stall_seconds=0.0),
            self._clock,
        )

    def _divert(self, operation: Operation) -> None:
        if self.divert_failure is not None:
            raise self.divert_failure
        self.diverted.append(operation)

    async def _drain(
        self,
        lane: int,
        take: Callable[[], Operation | None],
        deliver: Callable[[Operation, Outcome | None], None],
    ) -> None:
        self.trips.append(lane)
        if self.failures:
            raise self.failures.pop(0)
        while (operation := take()) is not None:
            name = operation.correlation_id
            self.ran_on[name] = lane
            if name in self.slow:
                waiting = asyncio.ensure_future(self.slow[name].wait())
                while not waiting.done() and not operation.cancelled:  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0)
                waiting.cancel()
            if operation.cancelled:
                deliver(operation, Outcome(error=Cancelled("gone")))
            elif name in self.needs_writer:
                deliver(operation, None)
            else:
                deliver(operation, Outcome(result=ResultSet()))

    def submit(self, *names: str, slow: bool = False, **more: Any) -> None:
        for name in names:
            if slow:
                self.slow[name] = asyncio.Event()
            self.lanes.submit(self.caller.read(name, **more))

    def _clock(self) -> float:
        """Every look at the clock is later than the last, unless time stands still."""
        if self.time_passes:
            self.now += 1.0
        return self.now

    @property
    def answered(self) -> list[str]:
        return [name for name, _ in self.caller.answers]


@pytest_asyncio.fixture(loop_scope="session")
async def readers() -> AsyncIterator[Readers]:
    made = Readers()
    yield made
    await made.lanes.end(OVER)


async def test_one_trip_serves_what_arrives_together(readers: Readers) -> None:
    readers.time_passes = False
    readers.submit(*"abcde")
    await settle()
    assert readers.answered == list("abcde")
    assert set(readers.trips) == {0}
    assert readers.lanes.idle
    readers.submit("f")
    await settle()
    assert readers.answered[-1] == "f"


async def test_quick_reads_overtake_a_slow_one_they_arrived_with(readers: Readers) -> None:
    readers.submit("slow", slow=True)
    readers.submit("1", "2", "3")
    await settle(50)
    assert readers.answered == ["1", "2", "3"]
    assert not readers.lanes.idle
    readers.slow["slow"].set()
    await settle()
    assert readers.answered == ["1", "2", "3", "slow"]
    assert readers.lanes.idle


async def test_quick_reads_overtake_slow_ones_that_come_before_and_between(
    readers: Readers,
) -> None:
    readers.submit("slow1", slow=True)
    readers.submit("1")
    readers.submit("slow2", slow=True)
    readers.submit("2", "3")
    await settle(80)
    assert readers.answered == ["1", "2", "3"]
    assert len({readers.ran_on["slow1"], readers.ran_on["slow2"]}) == 2


async def test_the_lanes_bound_how_many_slow_reads_run(readers: Readers) -> None:
    readers.submit("s1", "s2", "s3", "s4", slow=True)
    readers.submit("quick")
    await settle(80)
    assert readers.answered == []
    assert "s4" not in readers.ran_on
    readers.slow["s2"].set()
    await settle(80)
    assert readers.answered == ["s2"], "the fourth slow one has taken its lane"
    readers.slow["s1"].set()
    await settle(80)
    assert readers.answered == ["s2", "s1", "quick"]


async def test_the_last_lane_is_for_callers_that_hold_none(readers: Readers) -> None:
    readers.submit("s1", "s2", "s3", "s4", "s5", slow=True, service="flood")
    await settle(80)
    assert sorted(readers.ran_on) == ["s1", "s2", "s3"]
    readers.submit("1", "2", service="quiet")
    readers.submit("3", service="other")
    await settle(80)
    assert readers.answered == ["1", "3", "2"]
    readers.submit("t1", "t2", slow=True, service="quiet")
    await settle(80)
    assert "t1" in readers.ran_on
    assert "t2" not in readers.ran_on
    for name in ("s2", "s4", "s5", "t1"):
        readers.slow[name].set()
    await settle(80)
    assert "t2" in readers.ran_on


async def test_a_single_lane_serves_everybody(readers: Readers) -> None:
    readers = Readers(lanes_max=1)
    readers.submit("a1", "a2", service="a")
    readers.submit("b1", service="b")
    await settle()
    assert readers.answered == ["a1", "b1", "a2"]
    await readers.lanes.end(OVER)


async def test_callers_are_served_in_turn(readers: Readers) -> None:
    readers = Readers(lanes_max=1)
    readers.submit("slow", slow=True)
    await settle()
    readers.submit(*(f"a{n}" for n in range(50)), service="a")
    readers.submit("b0", "b1", service="b")
    readers.slow["slow"].set()
    await settle()
    assert readers.answered[:6] == ["slow", "a0", "b0", "a1", "b1", "a2"]
    await readers.lanes.end(OVER)


async def test_a_write_in_disguise_goes_to_the_writer(readers: Readers) -> None:
    readers.needs_writer = {"w"}
    readers.submit("1", "w", "2")
    await settle()
    assert [operation.correlation_id for operation in readers.diverted] == ["w"]
    assert readers.answered == ["1", "2"]


async def test_a_write_in_disguise_is_answered_when_the_writer_refuses_it(
    readers: Readers,
) -> None:
    readers.needs_writer = {"w"}
    readers.divert_failure = QueueFull("no room")
    readers.submit("1", "w", "2")
    await settle()
    assert readers.caller.answers == [("1", ""), ("w", "QUEUE_FULL"), ("2", "")]


async def test_a_reader_that_cannot_be_opened_answers_those_who_wait(readers: Readers) -> None:
    readers.failures.append(DatabaseUnavailable("no more files"))
    readers.submit("1", "2")
    await settle()
    assert {reason for _, reason in readers.caller.answers} == {"DATABASE_UNAVAILABLE"}
    readers.submit("3")
    await settle()
    assert readers.caller.answers[-1] == ("3", "")


async def test_a_defect_of_a_reader_answers_those_who_wait(readers: Readers) -> None:
    loop = asyncio.get_running_loop()
    seen: list[dict[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: seen.append(context))
    try:
        readers.time_passes = False
        readers.failures.append(ZeroDivisionError("a defect"))
        readers.submit("1", "2")
        await settle()
    finally:
        loop.set_exception_handler(before)
    assert {reason for _, reason in readers.caller.answers} == {"INTERNAL"}
    assert len(seen) == 1
    readers.submit("3")
    await settle()
    assert readers.caller.answers[-1] == ("3", "")


async def test_a_receiver_that_fails_hurts_nobody_else(readers: Readers) -> None:
    loop = asyncio.get_running_loop()
    seen: list[dict[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: seen.append(context))

    def fail(_: object) -> None:
        raise ZeroDivisionError

    try:
        bad = readers.caller.read("bad")
        bad.deliver = fail
        readers.lanes.submit(bad)
        readers.submit("1", "2")
        await settle()
    finally:
        loop.set_exception_handler(before)
    assert readers.answered == ["1", "2"]
    assert len(seen) == 1


async def test_the_end_interrupts_what_runs_and_refuses_what_waits() -> None:
    readers = Readers(lanes_max=1)
    readers.submit("slow", slow=True)
    await settle()
    readers.submit("1", "2")
    await readers.lanes.end(OVER)
    down = "SHUTTING_DOWN"
    assert sorted(readers.caller.answers) == [("1", down), ("2", down), ("slow", down)]
    with pytest.raises(ShuttingDown):
        readers.submit("3")
    await settle()
    assert readers.lanes.idle
