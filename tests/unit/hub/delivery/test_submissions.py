"""What became of an operation: the inbox first, and the journal where it knows better."""

import asyncio

import pytest

from hub.core.delivery import submissions
from hub.core.delivery.entries import Ending, Queue, Selection, State
from hub.core.delivery.look_ups import Found, LookUps
from hub.core.delivery.submissions import Submissions
from hub.core.ports import Recorded
from hub.core.routing.routes import Routes
from messagehub.errors import AccessDenied, InvalidRoute, OperationNotFound, StorageUnavailable
from messagehub.v1.statement_pb2 import ResultSet
from tests.unit.hub.delivery.inbox_parts import OWN, new_id, open_inbox, submit
from tests.unit.hub.fake_storage import until

ROUTES = Routes(
    {"character": "character_db", "auth": "auth_db", "catalog": "catalog_db"},
    {"character": {"auth_db": "write"}, "catalog": {"character_db": "read"}},
)
DONE = Recorded("character", "c", 77, 9, ResultSet(rows_affected=1), None)


class Journal:
    """The router's `look_up`; tells what the test put in, and remembers the questions."""

    def __init__(self):
        self.answer = OperationNotFound("nothing")
        # By database, instead of that answer.
        self.answers = {}
        self.asked = []

    async def look_up(self, request_id, *, source_service, database, correlation_id, seconds):
        self.asked.append((request_id, source_service, database))
        answer = self.answers.get(database, self.answer)
        if isinstance(answer, Exception):
            raise answer
        return database, answer


async def get(desk, request_id, *, service="character", database=""):
    return await desk.get(
        request_id, source_service=service, database=database, correlation_id="c", seconds=5.0
    )


@pytest.fixture
def journal():
    return Journal()


def desk_of(inbox, store, journal):
    return Submissions(
        routes=ROUTES, inbox=inbox, store=store, look_ups=LookUps(journal, at_once_max=2)
    )


async def test_what_waits_is_told_from_the_inbox(tmp_path, journal):
    async with open_inbox(tmp_path) as (inbox, store, *_):
        desk = desk_of(inbox, store, journal)
        entry = (await submit(inbox)).entry
        assert (await get(desk, entry.request_id)).state is State.QUEUED
        assert journal.asked == []


async def test_what_is_not_in_the_inbox_may_be_in_the_journal(tmp_path, journal):
    async with open_inbox(tmp_path) as (inbox, store, *_):
        desk = desk_of(inbox, store, journal)
        with pytest.raises(OperationNotFound):
            await get(desk, new_id())
        journal.answer = DONE
        known = await get(desk, new_id(), database="character_db")
        assert known == Found("character_db", DONE)
        # Asked for in another database, it is another operation.
        entry = (await submit(inbox)).entry
        assert await get(desk, entry.request_id, database="auth_db") == Found("auth_db", DONE)
        with pytest.raises(AccessDenied):
            await get(desk, entry.request_id, service="auth", database="character_db")
        with pytest.raises(InvalidRoute):
            await get(desk, entry.request_id, service="nobody")


async def test_without_a_database_all_that_the_service_may_write_are_asked(tmp_path, journal):
    async with open_inbox(tmp_path) as (inbox, store, *_):
        desk = desk_of(inbox, store, journal)
        journal.answers = {"auth_db": DONE}
        assert await get(desk, new_id()) == Found("auth_db", DONE)
        assert {database for *_, database in journal.asked} <= {"character_db", "auth_db"}
        journal.answers = {"auth_db": StorageUnavailable("away")}
        # Whoever could not be asked may know.
        with pytest.raises(StorageUnavailable):
            await get(desk, new_id())
        journal.answers = {}
        journal.asked.clear()
        with pytest.raises(OperationNotFound, match="none of auth_db, character_db"):
            await get(desk, new_id())
        assert sorted(database for *_, database in journal.asked) == ["auth_db", "character_db"]
        # A grant to read is none.
        journal.asked.clear()
        with pytest.raises(OperationNotFound):
            await get(desk, new_id(), service="catalog")
        assert [database for *_, database in journal.asked] == ["catalog_db"]


async def test_an_outcome_that_is_being_recorded_is_waited_for(tmp_path, journal):
    async with open_inbox(tmp_path) as (inbox, store, *_):
        desk = desk_of(inbox, store, journal)
        entry = (await submit(inbox)).entry
        (running,) = await inbox.claim(OWN)
        journal.answer = DONE
        asking = asyncio.ensure_future(get(desk, entry.request_id))
        await until(lambda: journal.asked)
        ending = Ending(State.COMPLETED, ResultSet(), sequence=9, attempts=1)
        await inbox.finish([(running, ending)])
        known = await asking
        assert (known.state, known.sequence) == (State.COMPLETED, 9)
        assert known == await store.find("character", entry.request_id)


async def test_an_outcome_that_cannot_be_recorded_is_told_from_the_journal(
    tmp_path, journal, monkeypatch
):
    monkeypatch.setattr(submissions, "RECORD_SECONDS_MAX", 0.01)
    async with open_inbox(tmp_path) as (inbox, store, *_):
        desk = desk_of(inbox, store, journal)
        entry = (await submit(inbox)).entry
        await inbox.claim(OWN)
        journal.answer = DONE
        known = await get(desk, entry.request_id)
        assert (known.state, known.sequence, known.attempts) == (State.COMPLETED, 9, 1)
        assert (known.result, known.update_time_us) == (DONE.result, 77)


@pytest.mark.parametrize("failure", [StorageUnavailable("away"), OperationNotFound("not yet")])
async def test_without_an_outcome_it_is_running(tmp_path, journal, failure):
    async with open_inbox(tmp_path) as (inbox, store, *_):
        desk = desk_of(inbox, store, journal)
        entry = (await submit(inbox)).entry
        await inbox.claim(OWN)
        journal.answer = failure
        assert (await get(desk, entry.request_id)).state is State.RUNNING


async def test_a_list_is_checked_like_any_call(tmp_path, journal):
    async with open_inbox(tmp_path) as (inbox, store, *_):
        desk = desk_of(inbox, store, journal)
        await submit(inbox, queue=Queue("character", "auth_db"))

        async def page(owner, database=""):
            selection = Selection(owner, database, (), None)
            return await desk.page(selection, operations_max=10, bytes_max=10_000)

        assert len((await page("character")).entries) == 1
        assert len((await page("character", "auth_db")).entries) == 1
        assert (await page("auth")).entries == []
        with pytest.raises(AccessDenied):
            await page("auth", "character_db")
        with pytest.raises(InvalidRoute):
            await page("nobody")
