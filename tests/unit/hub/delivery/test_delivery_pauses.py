"""Delivery while a database cannot be used, while it stops, and in troubles of its own."""

import asyncio

import pytest

from hub.core.delivery.entries import Queue
from messagehub.errors import (
    CircuitOpen,
    OperationNotCancellable,
    QueueFull,
    StorageFull,
    StorageUnavailable,
)
from tests.unit.hub.delivery.delivery_scene import scene
from tests.unit.hub.delivery.inbox_parts import OWN
from tests.unit.hub.fake_storage import soon

AWAY = StorageUnavailable("nobody there", retry_after=0.5)
NUMBERS = [str(number) for number in range(10)]


async def test_nothing_is_claimed_while_the_database_cannot_be_used(tmp_path):
    async with scene(tmp_path) as s:
        s.delivery.set_available("character_db", available=False)
        ids = await s.submit("1", "2", "3")
        s.start()
        await s.submit("elsewhere", queue=Queue("auth", "auth_db"))
        await soon(s.settled("auth"))
        assert await s.states() == ["QUEUED"] * 3
        await s.inbox.cancel("character", ids[1])
        s.delivery.set_available("character_db", available=True)
        await soon(s.settled())
        assert s.database.executed == ["elsewhere", "1", "3"]
        assert await s.states() == ["COMPLETED", "CANCELLED", "COMPLETED"]


async def test_what_was_claimed_and_not_sent_can_be_cancelled_again(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["0"] = [AWAY]
        s.naps.held.clear()
        ids = await s.submit(*NUMBERS[:4])
        s.start()
        await s.waits(lambda: len(s.naps.seconds) == 1)
        # The first may have been executed; the others never left.
        assert await s.states() == ["RUNNING", "QUEUED", "QUEUED", "QUEUED"]
        with pytest.raises(OperationNotCancellable):
            await s.inbox.cancel("character", ids[0])
        await s.inbox.cancel("character", ids[2])
        s.naps.held.set()
        await soon(s.settled())
        assert s.database.executed == ["0", "1", "3"]


@pytest.mark.parametrize("refusal", [CircuitOpen("open", retry_after=1.0), QueueFull("full")])
async def test_what_was_refused_before_it_began_can_be_cancelled(tmp_path, refusal):
    async with scene(tmp_path) as s:
        s.database.answers["0"] = [refusal]
        s.naps.held.clear()
        ids = await s.submit("0")
        s.start()
        await s.waits(lambda: len(s.naps.seconds) == 1)
        assert await s.states() == ["QUEUED"]
        assert (await s.entry(ids[0])).attempts == 0
        await s.inbox.cancel("character", ids[0])
        s.naps.held.set()
        assert s.database.executed == []


async def test_a_refusal_does_not_make_an_unknown_outcome_known(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["0"] = [AWAY, CircuitOpen("open", retry_after=1.0)]
        ids = await s.submit("0")
        s.naps.held.clear()
        s.start()
        await s.waits(lambda: len(s.naps.seconds) == 1)
        s.naps.held.set()
        s.naps.held.clear()
        await s.waits(lambda: len(s.naps.seconds) == 2)
        assert await s.states() == ["RUNNING"]
        with pytest.raises(OperationNotCancellable):
            await s.inbox.cancel("character", ids[0])


async def test_it_goes_on_at_once_when_the_database_is_back(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["0"] = [AWAY]
        s.naps.held.clear()
        await s.submit("0")
        s.start()
        await s.waits(lambda: len(s.naps.seconds) == 1)
        s.delivery.set_available("character_db", available=False)
        s.delivery.set_available("character_db", available=True)
        await soon(s.settled())
        assert s.database.executed == ["0"]


async def test_the_rest_of_a_claim_goes_back_when_the_database_goes(tmp_path):
    async with scene(tmp_path) as s:
        (first,) = await s.submit("0")
        await s.inbox.claim(OWN)
        await s.submit("1", "2", "3")

        def forgets(_database, _time_us):
            s.delivery.set_available("character_db", available=False)
            return False

        s.database.reach = forgets
        s.start()
        # The first one may have been sent by an earlier process, and cannot be sent again.
        await soon(s.become("FAILED", "QUEUED", "QUEUED", "QUEUED"))
        # What left was only that it failed.
        assert s.database.batches == [[first]]
        assert s.database.sent[0].refusal is not None
        s.delivery.set_available("character_db", available=True)
        await soon(s.settled())
        assert [query for query in s.database.executed if query in NUMBERS] == ["1", "2", "3"]
        assert first not in [one.request_id for one in s.database.sent[1:]]


async def test_an_outcome_is_recorded_however_often_it_takes(tmp_path):
    async with scene(tmp_path) as s:
        finish, failures = s.store.finish, [StorageFull("disk"), StorageFull("disk")]

        async def fail_first(*args, **fields):
            if failures:
                raise failures.pop()
            return await finish(*args, **fields)

        s.store.finish = fail_first
        await s.submit(*NUMBERS)
        s.start()
        await soon(s.settled())
        assert s.database.executed == NUMBERS
        assert len(s.database.sent) == 10


async def test_while_outcomes_cannot_be_recorded_no_other_batch_is_sent(tmp_path):
    async with scene(tmp_path) as s:
        finish, full = s.store.finish, asyncio.Event()

        async def wait_first(*args, **fields):
            await full.wait()
            return await finish(*args, **fields)

        s.store.finish = wait_first
        await s.submit(*NUMBERS)
        s.start()
        await s.waits(lambda: len(s.database.executed) == 4)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(s.database.batches) == 1
        full.set()
        await soon(s.settled())
        assert s.database.executed == NUMBERS


async def test_a_defect_ends_neither_the_queue_nor_the_operation(tmp_path, caplog):
    async with scene(tmp_path) as s:
        s.database.answers["1"] = [ZeroDivisionError("a defect")]
        await s.submit("0", "1", "2")
        s.start()
        await soon(s.settled())
        assert s.database.executed == ["0", "1", "2"]
    assert "a defect" in caplog.text


async def test_stopping_lets_what_is_on_its_way_finish(tmp_path):
    async with scene(tmp_path) as s:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(_operation):
            begun.set()
            await go_on.wait()

        s.database.answers["1"] = [slowly]
        await s.submit(*NUMBERS[:6])
        s.start()
        await soon(begun.wait())
        stopping = asyncio.ensure_future(s.delivery.stop(10.0))
        await asyncio.sleep(0)
        go_on.set()
        await soon(stopping)
        assert await s.states() == ["COMPLETED"] * 4 + ["QUEUED"] * 2
        await s.submit("late")
        assert await s.states() == ["COMPLETED"] * 4 + ["QUEUED"] * 3


async def test_what_does_not_finish_in_time_is_sent_again_by_the_next_process(tmp_path):
    async with scene(tmp_path) as s:
        begun = asyncio.Event()

        async def forever(operation):
            s.database.execute(operation)
            begun.set()
            await asyncio.Event().wait()

        s.database.answers["0"] = [forever]
        await s.submit("0", "1")
        s.start()
        await soon(begun.wait())
        await soon(s.delivery.stop(0.0))
        assert (await s.states())[0] == "RUNNING"


async def test_stopping_does_not_wait_for_a_delay(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["0"] = [AWAY]
        s.naps.held.clear()
        await s.submit("0")
        s.delivery.set_available("auth_db", available=False)
        await s.submit("1", queue=Queue("auth", "auth_db"))
        s.start()
        await s.waits(lambda: len(s.naps.seconds) == 1)
        await soon(s.delivery.stop(1000.0))
        assert await s.states() == ["RUNNING"]
