"""What waits in the inbox is on the status board."""

import asyncio

from hub.core.delivery.backlogs import Backlogs
from hub.core.delivery.inbox import EMPTY, Backlog
from hub.core.status import StatusBoard
from messagehub.errors import DatabaseUnavailable
from tests.unit.hub.delivery.inbox_parts import OWN, open_inbox, submit
from tests.unit.hub.fake_storage import soon

DATABASES = ("auth_db", "character_db")


def board():
    return StatusBoard(databases=DATABASES, changes_max=8, watchers_max=2)


def looking(inbox, status, sleep=asyncio.sleep):
    return Backlogs(inbox, status, DATABASES, seconds=1.0, sleep=sleep)


async def test_the_board_shows_how_much_waits_and_since_when(tmp_path):
    status = board()
    async with open_inbox(tmp_path) as (inbox, _, clock, _woken):
        first = await submit(inbox, "1", queue=OWN)
        clock.pass_seconds(30)
        second = await submit(inbox, "2", queue=OWN)
        await looking(inbox, status).look()
        size = first.entry.size + second.entry.size
        assert status.database("character_db").backlog == Backlog(2, size, 30.0)
        assert status.database("auth_db").backlog == EMPTY
        for written in (first, second):
            await inbox.cancel("character", written.entry.request_id)
        await looking(inbox, status).look()
        assert status.database("character_db").backlog == EMPTY


async def test_watchers_are_told_of_what_changed_and_of_nothing_else(tmp_path):
    status = board()
    heard = []
    status.listen(heard.append)
    watch = status.watch()
    await anext(watch)
    async with open_inbox(tmp_path) as (inbox, _, _clock, _woken):
        backlogs = looking(inbox, status)
        await backlogs.look()
        await submit(inbox, "1", queue=OWN)
        await backlogs.look()
        await backlogs.look()
        told = await soon(anext(watch))
        assert (told.database, told.backlog.operations) == ("character_db", 1)
        again = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        assert not again.done()
        again.cancel()
        await asyncio.wait([again])
    # Health and circuits do not depend on it.
    assert len(heard) == 1


async def test_an_inbox_that_cannot_be_read_leaves_the_board_as_it_is(tmp_path, caplog):
    status = board()
    async with open_inbox(tmp_path) as (inbox, store, _clock, _woken):
        await submit(inbox, "1", queue=OWN)
        await looking(inbox, status).look()

        async def fail(_queues):
            raise DatabaseUnavailable("the disk")

        store.oldest_us = fail
        await looking(inbox, status).look()
    assert status.database("character_db").backlog.operations == 1
    assert "cannot be read" in caplog.text


async def test_it_looks_again_and_again_until_it_is_stopped(tmp_path):
    status, naps = board(), asyncio.Queue()

    async def sleep(_seconds):
        await naps.get()

    async with open_inbox(tmp_path) as (inbox, _, _clock, _woken):
        backlogs = looking(inbox, status, sleep)
        backlogs.start()
        await submit(inbox, "1", queue=OWN)
        naps.put_nowait(None)
        while not status.database("character_db").backlog.operations:  # noqa: ASYNC110 - a board
            await asyncio.sleep(0.001)
        await soon(backlogs.stop())


def test_a_lost_inbox_is_not_ready_and_says_why():
    status = board()
    status.start()
    status.lose_inbox("fsync failed")
    state = status.snapshot()
    assert (state.ready, state.inbox_detail) == (False, "fsync failed")
