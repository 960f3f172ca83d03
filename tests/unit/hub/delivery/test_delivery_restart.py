"""What an earlier process left: sent again, asked for, too old, or not allowed any more."""

from dataclasses import replace

import pytest

from hub.core.delivery.entries import HUB, Queue, Selection
from hub.core.ports import Recorded
from messagehub.errors import (
    AccessDenied,
    DeadlineExceeded,
    InvalidRoute,
    StorageUnavailable,
)
from messagehub.v1.event_pb2 import Event
from messagehub.v1.statement_pb2 import ResultSet
from tests.unit.hub.delivery.delivery_scene import scene
from tests.unit.hub.delivery.inbox_parts import OTHER, OWN, ROOMY
from tests.unit.hub.fake_storage import soon

AWAY = StorageUnavailable("nobody there", retry_after=0.5)
NUMBERS = [str(number) for number in range(10)]


async def leave_running(directory, *queries):
    """An earlier process that claimed operations and died."""
    async with scene(directory) as s:
        ids = await s.submit(*queries)
        claimed = await s.inbox.claim(OWN)
        assert len(claimed) == len(queries)
        return ids, claimed


async def test_what_may_have_been_sent_is_sent_again_first(tmp_path):
    ids, _ = await leave_running(tmp_path, "0", "1")
    async with scene(tmp_path) as s:
        await s.submit("2")
        s.start()
        await soon(s.settled())
        assert s.database.executed == ["0", "1", "2"]
        assert [one.request_id for one in s.database.sent[:2]] == ids


async def test_what_was_executed_before_the_crash_is_not_executed_again(tmp_path):
    _, claimed = await leave_running(tmp_path, "0", "1")
    async with scene(tmp_path) as s:
        s.database.records[claimed[0].request_id] = known = _record(claimed[0])
        s.start()
        await soon(s.settled())
        assert s.database.executed == ["1"]
        assert (await s.entry(claimed[0].request_id)).sequence == known.sequence


def _record(entry):
    return Recorded(entry.source_service, "c", 5, 77, ResultSet(rows_affected=1), None)


async def test_before_that_the_journal_is_asked_how_far_back_it_reaches(tmp_path):
    _, claimed = await leave_running(tmp_path, "0")
    async with scene(tmp_path) as s:
        await s.submit("1")
        s.start()
        await soon(s.settled())
        ((database, since),) = s.database.questions
        assert database == "character_db"
        # Earlier than the claim by what the clocks may be apart.
        assert since < claimed[0].create_time_us - 30_000_000


@pytest.mark.parametrize("executed", [True, False])
async def test_a_trimmed_journal_makes_an_outcome_unknown_never_double(tmp_path, executed):
    (request_id,), claimed = await leave_running(tmp_path, "0")
    async with scene(tmp_path) as s:
        if executed:
            s.database.records[request_id] = _record(claimed[0])
        s.database.reach = lambda _database, _time_us: False
        s.start()
        await soon(s.settled())
        assert "0" not in s.database.executed
        entry = await s.entry(request_id)
        if executed:
            assert (entry.state.name, entry.sequence) == ("COMPLETED", 77)
        else:
            assert entry.state.name == "FAILED"
            assert isinstance(entry.error, DeadlineExceeded)
            assert entry.error.metadata == {"outcome": "unknown"}


async def test_what_was_never_sent_needs_no_journal(tmp_path):
    async with scene(tmp_path) as s:
        s.database.reach = lambda _database, _time_us: False
        await s.submit("0")
        s.start()
        await soon(s.settled())
        assert s.database.executed == ["0"]
        assert s.database.questions == []


async def test_what_is_too_old_is_not_sent(tmp_path):
    limits = replace(ROOMY, age_seconds_max=60.0)
    async with scene(tmp_path, inbox_limits=limits) as s:
        ids = await s.submit("0")
        s.clock.pass_seconds(61)
        await s.submit("1")
        s.start()
        await soon(s.settled())
        await s.waits(lambda: len(s.database.executed) == 2)
        assert s.database.executed[0] == "1" or s.database.executed[1] == "1"
        failed = await s.entry(ids[0])
        assert isinstance(failed.error, DeadlineExceeded)
        assert failed.attempts == 0


@pytest.mark.parametrize("executed", [True, False])
async def test_what_is_too_old_and_may_have_been_sent_is_asked_for(tmp_path, executed):
    limits = replace(ROOMY, age_seconds_max=60.0)
    (request_id,), claimed = await leave_running(tmp_path, "0")
    async with scene(tmp_path, inbox_limits=limits) as s:
        s.clock.pass_seconds(3600)
        if executed:
            s.database.records[request_id] = _record(claimed[0])
        s.start()
        await soon(s.settled())
        entry = await s.entry(request_id)
        assert entry.state.name == ("COMPLETED" if executed else "FAILED")
        assert "0" not in s.database.executed


async def test_a_grant_that_is_gone_ends_what_waits_for_it(tmp_path):
    async with scene(tmp_path) as s:
        await s.submit("0", queue=OTHER)
    async with scene(tmp_path, grants={}) as s:
        await s.submit("1")
        s.start()
        await soon(s.settled("auth"))
        await soon(s.settled())
        assert "0" not in s.database.executed
        entries = await s.store.page(_all("auth"), operations_max=10, bytes_max=10_000)
        assert isinstance(entries[0][0].error, AccessDenied)


async def test_a_database_that_is_gone_ends_what_waits_for_it(tmp_path):
    gone = Queue("character", "auth_db")
    async with scene(tmp_path) as s:
        (request_id,) = await s.submit("0", queue=gone)
        s.inbox.announce("auth_db", Event(type="storage.failed_over"))
    async with scene(tmp_path, services={"character": "character_db"}) as s:
        finish, ends = s.store.finish, []

        async def count(ended, **fields):
            ends.extend(entry.queue for entry, _ in ended)
            return await finish(ended, **fields)

        s.store.finish = count
        s.start()
        await soon(s.settled())
        entry = await s.entry(request_id)
        assert isinstance(entry.error, InvalidRoute)
        await soon(s.empty())
        assert s.database.sent == []
        # Nothing is announced where nobody can read it.
        assert sorted(ends) == [Queue(HUB, "auth_db"), gone]


def _all(owner):
    return Selection(owner, "", (), None)


async def test_the_hubs_own_events_are_delivered_in_order(tmp_path):
    async with scene(tmp_path) as s:
        s.start()
        for kind in ("a.b", "c.d", "e.f"):
            s.inbox.announce("character_db", Event(type=kind))
        await s.waits(lambda: len(s.database.executed) == 3)
        assert [event.type for event in s.database.executed] == ["a.b", "c.d", "e.f"]
        assert {one.source_service for one in s.database.sent} == {"hub"}
        await soon(s.empty())
        assert await s.states(HUB) == []
