"""Changes of the inbox share commits, and trouble with one is not the others' trouble."""

import asyncio
import sqlite3
from dataclasses import replace

import pytest

from hub.core.delivery.entries import Selection
from messagehub.errors import (
    DatabaseCorrupt,
    ShuttingDown,
    StorageFull,
)
from messagehub.v1.statement_pb2 import Statement
from tests.unit.hub.delivery.inbox_parts import open_store, submission

NOW = 1_700_000_000_000_000


async def accept(store, one, *, now_us=NOW, room=True):
    return await store.accept(one, now_us=now_us, room=room)


async def states(store):
    entries, _ = await store.page(
        Selection("character", "", (), None), operations_max=100, bytes_max=1_000_000
    )
    return [entry.state.name for entry in reversed(entries)]


class Counted:
    """Counts the transactions of a writer."""

    def __init__(self, store):
        self.commits = 0
        self._run = store._commits._run
        store._commits._run = self

    async def __call__(self, work):
        self.commits += 1
        return await self._run(work)


async def test_changes_that_come_together_share_a_commit(tmp_path):
    async with open_store(tmp_path, group_max=50) as store:
        counted = Counted(store)
        many = [submission(str(number)) for number in range(100)]
        accepted = await asyncio.gather(*(accept(store, one) for one in many))
        assert counted.commits <= 4
        positions = [one.entry.position for one in accepted]
        assert positions == sorted(positions)


async def test_a_refused_change_leaves_the_others_of_its_group_alone(tmp_path):
    one = submission()
    async with open_store(tmp_path) as store:
        await accept(store, one)
        outcomes = await asyncio.gather(
            accept(store, submission()),
            accept(store, one._replace(content=Statement(query="other"))),
            accept(store, submission()),
            return_exceptions=True,
        )
        assert [type(outcome).__name__ for outcome in outcomes] == [
            "Written",
            "RequestIdReused",
            "Written",
        ]


@pytest.mark.parametrize("failure", [sqlite3.IntegrityError("x"), ZeroDivisionError("x")])
async def test_a_broken_change_leaves_the_others_of_its_group_alone(tmp_path, failure, caplog):
    def broken(raw):
        raw.execute("DELETE FROM operations")
        raise failure

    async with open_store(tmp_path) as store:
        await accept(store, submission())
        outcomes = await asyncio.gather(
            accept(store, submission()),
            store._commits.change(broken),
            accept(store, submission()),
            return_exceptions=True,
        )
        assert await states(store) == ["QUEUED"] * 3
        assert outcomes[1].reason in ("DATABASE_UNAVAILABLE", "INTERNAL")


def coded(number):
    failure = sqlite3.OperationalError("from SQLite")
    failure.sqlite_errorcode = number
    return failure


@pytest.mark.parametrize(
    ("code", "kind"),
    [(sqlite3.SQLITE_FULL, StorageFull), (sqlite3.SQLITE_CORRUPT, DatabaseCorrupt)],
)
async def test_trouble_with_the_disk_has_its_reason_and_may_pass(tmp_path, code, kind):
    def broken(_raw):
        raise coded(code)

    async with open_store(tmp_path) as store:
        with pytest.raises(kind):
            await store._commits.change(broken)
        assert not (await accept(store, submission())).replayed


async def test_after_a_failed_fsync_nothing_is_taken(tmp_path, caplog):
    def broken(_raw):
        raise coded(sqlite3.SQLITE_IOERR_FSYNC)

    lost = []
    async with open_store(tmp_path, lost=lost.append) as store:
        outcomes = await asyncio.gather(
            store._commits.change(broken), accept(store, submission()), return_exceptions=True
        )
        assert {outcome.reason for outcome in outcomes} == {"DATABASE_UNAVAILABLE"}
        outcome = await asyncio.gather(accept(store, submission()), return_exceptions=True)
        assert "restart the hub" in outcome[0].message
        assert [one.message for one in lost] == [outcome[0].message]
    assert "fenced" in caplog.text
    async with open_store(tmp_path) as store:
        assert not (await accept(store, submission())).replayed


async def test_a_caller_that_goes_away_undoes_nothing(tmp_path):
    one = submission()
    async with open_store(tmp_path) as store:
        accepting = asyncio.ensure_future(accept(store, one))
        await asyncio.sleep(0)
        accepting.cancel()
        assert (await accept(store, one)).replayed


async def test_closing_commits_what_waits_and_refuses_what_comes(tmp_path):
    async with open_store(tmp_path) as store:
        many = [asyncio.ensure_future(accept(store, submission())) for _ in range(10)]
        await asyncio.sleep(0)
    assert all(not one.result().replayed for one in many)
    with pytest.raises(ShuttingDown):
        await accept(store, submission())


async def test_an_entry_says_nothing_of_what_it_is_not(tmp_path):
    async with open_store(tmp_path) as store:
        entry = (await accept(store, submission())).entry
        assert replace(entry, position=0).content is None
        assert (entry.result, entry.error, entry.sequence) == (None, None, 0)
