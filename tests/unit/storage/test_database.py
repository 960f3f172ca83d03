"""The life of one database over a scripted engine: opening, closing, failing, ending."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from messagehub.errors import (
    AccessDenied,
    DatabaseCorrupt,
    DatabaseUnavailable,
    QueueFull,
    ShuttingDown,
)
from storage.core.database import State
from storage.core.engine import EngineLost
from storage.core.fair_queue import QueueLimits
from storage.core.operation import Position
from tests.unit.storage.scripted_databases import Setting
from tests.unit.storage.scripted_engine import settle

NOWHERE = Path("nowhere")


# Opening.


async def test_the_first_operation_opens_the_database(setting: Setting) -> None:
    assert setting.database.state is State.CLOSED
    setting.write("1")
    await settle()
    assert setting.database.state is State.OPEN
    assert setting.caller.answers == [("1", "")]
    assert setting.disk.calls == ["open"]


async def test_what_arrives_while_it_opens_waits_in_order(setting: Setting) -> None:
    setting.disk.opening.shut()
    setting.write("1")
    await setting.disk.opening.reached.wait()
    assert setting.database.state is State.OPENING
    setting.write("2")
    setting.read("r")
    setting.write("3")
    setting.disk.opening.open()
    await settle()
    assert setting.order == ["1", "2", "3"]
    assert len(setting.caller.answers) == 4
    assert setting.disk.calls == ["open"]


@pytest.mark.parametrize("when", ["at once", "in the next turn"])
async def test_nobody_overtakes_what_arrived_while_it_opened(setting: Setting, when: str) -> None:
    """Between the moment of being open and the arrivals' turn there must be no gap."""
    setting.write("1", "2")
    if when == "at once":
        setting.on_change.append(lambda: setting.write("3"))
    else:
        loop = asyncio.get_running_loop()
        setting.on_change.append(lambda: loop.call_soon(lambda: setting.write("3")))
    await settle()
    assert setting.order == ["1", "2", "3"]


async def test_what_waits_for_the_opening_is_bounded() -> None:
    setting = Setting(queue=QueueLimits(2, 1_000_000, 2, 1_000_000, 0.02))
    setting.disk.opening.shut()
    setting.write("1", "2")
    with pytest.raises(QueueFull):
        setting.write("3")
    setting.disk.opening.open()
    await settle()
    assert setting.order == ["1", "2"]
    await setting.database.end()


async def test_a_database_that_cannot_be_opened_says_why_to_everybody(setting: Setting) -> None:
    setting.disk.open_failures.append(DatabaseCorrupt("damaged"))
    setting.write("1")
    setting.read("2")
    await settle()
    lost = "DATABASE_CORRUPT"
    assert setting.caller.answers == [("1", lost), ("2", lost)]
    assert setting.database.state is State.FAILED
    assert setting.database.detail == "damaged"
    assert setting.disk.calls == ["open", "close"], "nothing of it stays open"
    with pytest.raises(DatabaseCorrupt):
        setting.write("3")
    with pytest.raises(DatabaseCorrupt):
        await setting.database.open()
    assert setting.disk.calls == ["open", "close"], "it is not tried again at once"


def let_time_pass(setting: Setting) -> None:
    """It may be tried again."""
    setting.database._retry_at = 0.0


async def test_a_database_that_could_not_be_opened_recovers_by_itself(setting: Setting) -> None:
    setting.disk.open_failures.append(DatabaseUnavailable("not now"))
    setting.write("1")
    await settle()
    let_time_pass(setting)
    setting.write("2")
    await settle()
    assert setting.caller.answers == [("1", "DATABASE_UNAVAILABLE"), ("2", "")]
    assert setting.told == [(State.FAILED, "not now"), (State.OPEN, "")]


async def test_an_engine_that_fails_by_a_defect_is_closed_too(setting: Setting) -> None:
    loop = asyncio.get_running_loop()
    seen: list[dict[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: seen.append(context))
    try:
        setting.disk.open_failures.append(ZeroDivisionError("a defect"))
        setting.write("1")
        await settle()
    finally:
        loop.set_exception_handler(before)
    assert setting.caller.answers == [("1", "INTERNAL")]
    assert setting.disk.calls == ["open", "close"], "else it would own the file for ever"
    assert len(seen) == 1
    let_time_pass(setting)
    setting.write("2")
    await settle()
    assert setting.caller.answers[-1] == ("2", "")


async def test_several_who_open_it_share_one_opening(setting: Setting) -> None:
    setting.disk.opening.shut()
    opening = [asyncio.ensure_future(setting.database.open()) for _ in range(3)]
    await setting.disk.opening.reached.wait()
    opening[0].cancel()
    await settle()
    setting.disk.opening.open()
    await asyncio.gather(*opening[1:])
    assert setting.disk.calls == ["open"]
    assert setting.database.state is State.OPEN


async def test_a_reader_of_a_service_that_may_only_read(setting: Setting) -> None:
    await setting.database.open()
    setting.read("1", read_only=True)
    with pytest.raises(AccessDenied):
        setting.write("2", read_only=True)
    await settle()
    assert setting.caller.answers == [("1", "")]


# Closing when idle.


async def test_an_idle_database_closes_and_opens_again(setting: Setting) -> None:
    setting.write("1")
    await settle()
    assert setting.database.idle_since() is not None
    await setting.database.close()
    assert setting.database.state is State.CLOSED
    assert setting.database.sequence == 1
    assert setting.database.idle_since() is None
    setting.write("2")
    await settle()
    assert setting.order == ["1", "2"]
    assert setting.disk.calls == ["open", "close", "open"]


async def test_a_database_that_is_used_again_is_not_closed(setting: Setting) -> None:
    """Whoever found it idle may have waited for another database in between."""
    setting.write("1")
    await settle()
    assert setting.database.idle_since() is not None
    setting.disk.applying.shut()
    setting.write("2")
    closing = asyncio.ensure_future(setting.database.close())
    await settle()
    setting.write("3")
    setting.disk.applying.open()
    await closing
    await settle()
    assert setting.caller.answers == [("1", ""), ("2", ""), ("3", "")]
    assert setting.database.state is State.OPEN


async def test_what_arrives_while_it_closes_is_done_after_it(setting: Setting) -> None:
    setting.write("1")
    await settle()
    setting.disk.closing.shut()
    closing = asyncio.ensure_future(setting.database.close())
    await setting.disk.closing.reached.wait()
    setting.write("2")
    setting.read("r")
    setting.write("3")
    await settle()
    assert setting.order == ["1"]
    setting.disk.closing.open()
    await closing
    await settle()
    assert setting.order == ["1", "2", "3"]
    assert len(setting.caller.answers) == 4
    assert all(reason == "" for _, reason in setting.caller.answers)


async def test_whoever_is_at_work_keeps_it_open(setting: Setting) -> None:
    await setting.database.open()
    setting.disk.reading.shut()
    setting.read("1")
    await setting.disk.reading.reached.wait()
    assert setting.database.idle_since() is None
    setting.disk.reading.open()
    await settle()
    assert setting.database.idle_since() is not None
    setting.disk.applying.shut()
    setting.write("2")
    await setting.disk.applying.reached.wait()
    assert setting.database.idle_since() is None
    setting.disk.applying.open()
    await settle()
    assert setting.database.idle_since() is not None
    async with aclosing(setting.database.follow("", 0)) as parts:
        await anext(parts)
        assert setting.database.idle_since() is None
        await setting.database.close()
        assert setting.database.state is State.OPEN
    assert setting.database.idle_since() is not None


# The end.


async def test_the_end_finishes_what_is_under_way_and_refuses_the_rest(setting: Setting) -> None:
    await setting.database.open()
    setting.disk.applying.shut()
    setting.disk.reading.shut()
    setting.write("w1")
    setting.read("r1")
    await setting.disk.applying.reached.wait()
    await setting.disk.reading.reached.wait()
    setting.write("w2")
    ending = asyncio.ensure_future(setting.database.end())
    await settle()
    with pytest.raises(ShuttingDown):
        setting.write("w3")
    setting.disk.applying.open()
    await settle()
    assert not ending.done(), "the read is told to end, and waited for"
    setting.disk.reading.open()
    await ending
    down = "SHUTTING_DOWN"
    assert setting.caller.outcomes["w1"].error is None
    assert setting.caller.error("w2").reason == down  # type: ignore[union-attr]
    assert setting.caller.error("r1").reason == down  # type: ignore[union-attr]
    assert setting.database.state is State.ENDED
    assert setting.disk.calls == ["open", "close"]


@pytest.mark.parametrize("opening", [True, False], ids=["while it opens", "while it is closed"])
async def test_the_end_of_a_database_that_is_not_open(setting: Setting, opening: bool) -> None:
    if opening:
        setting.disk.opening.shut()
        setting.write("1")
        await setting.disk.opening.reached.wait()
    ending = asyncio.ensure_future(setting.database.end())
    await settle()
    setting.disk.opening.open()
    await ending
    await settle()
    assert setting.disk.calls in ([], ["open", "close"])
    assert len(setting.caller.answers) == int(opening)
    for attempt in (setting.database.open, setting.database.position):
        with pytest.raises(ShuttingDown):
            await attempt()
    with pytest.raises(ShuttingDown):
        setting.write("2")


async def test_an_opening_that_comes_too_late_for_the_end(setting: Setting) -> None:
    """Whoever waits for the opening while the database ends is told so."""
    setting.write("1")
    await settle()
    setting.disk.closing.shut()
    closing = asyncio.ensure_future(setting.database.close())
    await setting.disk.closing.reached.wait()
    ending = asyncio.ensure_future(setting.database.end())
    setting.write("2")
    position = asyncio.ensure_future(setting.database.position())
    await settle()
    setting.disk.closing.open()
    await asyncio.gather(closing, ending)
    results = await asyncio.gather(position, return_exceptions=True)
    await settle()
    assert isinstance(results[0], Position | ShuttingDown)
    assert {name for name, _ in setting.caller.answers} == {"1", "2"}
    assert setting.database.state is State.ENDED


# Losing the engine.


async def test_a_lost_engine_fences_the_database_and_is_closed_at_the_end(
    setting: Setting,
) -> None:
    await setting.database.open()
    loss = DatabaseUnavailable("fsync failed")
    setting.disk.apply_failures.append(EngineLost(loss))
    setting.write("1")
    await settle()
    assert setting.database.state is State.FENCED
    assert setting.told[-1] == (State.FENCED, "fsync failed")
    assert setting.caller.answers == [("1", "DATABASE_UNAVAILABLE")]
    for attempt in (lambda: setting.write("2"), lambda: setting.read("3")):
        with pytest.raises(DatabaseUnavailable):
            attempt()
    with pytest.raises(DatabaseUnavailable):
        await setting.database.open()
    assert setting.disk.groups == []
    await setting.database.end()
    assert setting.disk.calls == ["open", "close"], "else its threads would outlive the server"


async def test_a_failed_fsync_of_a_trim_fences_the_database_too(setting: Setting) -> None:
    await setting.database.open()
    setting.disk.trim_failures.append(EngineLost(DatabaseUnavailable("fsync failed")))
    with pytest.raises(DatabaseUnavailable):
        await setting.database.trim(older_than_us=0, keep_rows=0, at_most=1)
    assert setting.database.state is State.FENCED
    with pytest.raises(DatabaseUnavailable):
        setting.write("1")


async def test_what_waits_when_a_trim_loses_the_engine_is_not_run(setting: Setting) -> None:
    await setting.database.open()
    setting.disk.applying.shut()
    setting.write("1")
    await setting.disk.applying.reached.wait()
    setting.write("2")
    setting.disk.trim_failures.append(EngineLost(DatabaseUnavailable("fsync failed")))
    trimming = asyncio.ensure_future(setting.database.trim(older_than_us=0, keep_rows=0, at_most=1))
    await settle()
    setting.disk.applying.open()
    with pytest.raises(DatabaseUnavailable):
        await trimming
    assert setting.order == ["1"]
    assert setting.caller.answers[-1] == ("2", "DATABASE_UNAVAILABLE")


# Adoption.


async def test_operations_wait_while_a_file_is_adopted(setting: Setting) -> None:
    setting.write("1")
    await settle()
    setting.disk.closing.shut()
    adopting = asyncio.ensure_future(setting.database.adopt(NOWHERE))
    await setting.disk.closing.reached.wait()
    setting.write("2")
    setting.disk.closing.open()
    assert await adopting == ["adopted"]
    await settle()
    assert setting.caller.answers == [("1", ""), ("2", "")]
    calls = setting.disk.calls
    assert calls == ["open", "close", "open", "adopt", "close", "open"]
    assert (await setting.database.position()).epoch == "e1'"


async def test_a_follower_ends_when_its_journal_is_replaced(setting: Setting) -> None:
    """Even one that did not look while the database was closed and opened again."""
    setting.write("1", "2")
    await settle()
    async with aclosing(setting.database.follow("", 0)) as parts:
        await anext(parts)
        await setting.database.adopt(NOWHERE)
        setting.write("3")
        await settle()
        assert setting.database.state is State.OPEN
        with pytest.raises(ShuttingDown):
            await anext(parts)


async def test_an_adoption_that_fails_leaves_the_database_usable(setting: Setting) -> None:
    setting.write("1")
    await settle()
    setting.disk.open_failures.append(DatabaseUnavailable("not now"))
    with pytest.raises(DatabaseUnavailable):
        await setting.database.adopt(NOWHERE)
    setting.write("2")
    await settle()
    assert setting.caller.answers[-1] == ("2", "")
