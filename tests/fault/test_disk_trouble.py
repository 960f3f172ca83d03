"""Disks that are full, broken or sealed, and files that somebody damaged.

Always the same: a precise error, nothing acknowledged that is not kept, other databases go on, and
recovery without hand work where that is possible.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.conformance.storage_client import StorageClient, serving
from tests.fault.storage_disk import (
    CREATE,
    INSERT,
    ROW_BYTES,
    Ask,
    limit_files_of,
    remount,
    small_disk,
    storage_process,
)

GUARD_SECONDS = 30.0
MEBIBYTE = 1024 * 1024


def quick(data_dir: Path) -> AbstractAsyncContextManager[StorageClient]:
    """A server in this process that soon tries again what it could not open."""
    return serving(data_dir, reopen_seconds=0.05)


async def recovered(ask: Ask, query: str = "SELECT 1") -> None:
    """Waits until a database answers again, without anybody doing anything."""
    async with asyncio.timeout(GUARD_SECONDS):
        while (await ask.outcome(query)).HasField("error"):  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.02)


async def good(ask: Ask) -> None:
    """A database that has nothing to do with the trouble."""
    await ask.done("CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, content TEXT)")
    await ask.done("INSERT INTO items (content) VALUES ('fine')")
    assert not (await ask.state()).detail


async def test_a_full_disk_is_told_and_forgotten_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * MEBIBYTE)
        async with quick(disk / "data") as client:
            ask = Ask(client, "a_db")
            await ask.done(CREATE)
            acknowledged, error = await ask.fill()
            assert error.reason == "STORAGE_FULL"
            assert len(acknowledged) > 20
            assert await ask.ids() == acknowledged, "reads go on, and see what was acknowledged"
            again = await ask.refused(INSERT, 5000, "x" * ROW_BYTES)
            assert again.reason == "STORAGE_FULL"
            # A database that is new on the full disk.
            new = Ask(client, "b_db")
            assert (await new.refused(CREATE)).code in ("RESOURCE_EXHAUSTED", "UNAVAILABLE")
            ballast.unlink()
            await ask.done(INSERT, 5000, "x" * ROW_BYTES)
            await recovered(new)
            await new.done(CREATE)
        async with quick(disk / "data") as client:
            assert await Ask(client, "a_db").ids() == [*acknowledged, 5000]


async def test_a_disk_that_refuses_to_write_more(tmp_path: Path) -> None:
    """A limit on the size of files gives the I/O error that a broken or a quota's disk gives."""
    async with storage_process(tmp_path / "run", tmp_path / "data") as (process, client):
        ask, other = Ask(client, "a_db"), Ask(client, "b_db")
        await ask.done(CREATE)
        await good(other)
        limit_files_of(process.pid, 2 * MEBIBYTE)
        acknowledged, error = await ask.fill()
        assert error.reason in ("DATABASE_UNAVAILABLE", "STORAGE_FULL")
        assert len(acknowledged) > 20
        assert await ask.ids() == acknowledged
        await good(other)
        limit_files_of(process.pid, -1)
        await recovered(ask, f"INSERT INTO items VALUES (5000, '{'x' * ROW_BYTES}')")
        acknowledged += [5000]
        assert await ask.ids() == acknowledged
        process.kill()
    async with storage_process(tmp_path / "run", tmp_path / "data") as (_, client):
        assert await Ask(client, "a_db").ids() == acknowledged


async def test_a_group_on_a_full_disk_is_answered_one_by_one(tmp_path: Path) -> None:
    """Some of a group may still fit; every answer is true."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        async with quick(disk / "data") as client:
            ask = Ask(client, "a_db")
            await ask.done(CREATE)
            asked = [ask.outcome(INSERT, number, "x" * ROW_BYTES) for number in range(300)]
            outcomes = await asyncio.gather(*asked)
            done = [number for number, o in enumerate(outcomes) if not o.HasField("error")]
            assert 0 < len(done) < 300
            assert await ask.ids() == done


async def test_a_sealed_disk_is_told_and_forgotten_when_it_can_be_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk:
        async with quick(disk / "data") as client:
            await Ask(client, "a_db").done(CREATE)
        async with quick(disk / "data") as client:
            remount(disk, "ro")
            ask = Ask(client, "a_db")
            for query in ("SELECT 1", CREATE):
                error = await ask.refused(query)
                assert error.reason == "DATABASE_UNAVAILABLE"
                assert "read-only" in error.message.lower()
            assert not (await ask.state()).available
            remount(disk, "rw")
            await recovered(ask)
            await ask.done(INSERT, 1, "x")


async def test_a_file_that_may_not_be_written(tmp_path: Path) -> None:
    """Where the file is a directory nobody can open it, whoever he is."""
    data = tmp_path / "data"
    (data / "a_db.db").mkdir(parents=True)
    async with quick(data) as client:
        ask = Ask(client, "a_db")
        error = await ask.refused("SELECT 1")
        assert (error.reason, bool(error.retry_after)) == ("DATABASE_UNAVAILABLE", True)
        await good(Ask(client, "b_db"))
        (data / "a_db.db").rmdir()
        await recovered(ask)


# Files that somebody damaged while the server was down.


def overwrite_the_beginning(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(b"no database at all" * 100)


def overwrite_everything(file: Path) -> None:
    file.write_bytes(b"\x55" * file.stat().st_size)


def cut_in_half(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


def cut_within_a_page(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 1000)


def edit(*statements: str) -> Callable[[Path], None]:
    def run(file: Path) -> None:
        raw = sqlite3.connect(file, isolation_level=None)
        for statement in statements:
            raw.execute(statement)
        raw.close()

    run.__name__ = statements[0]
    return run


DAMAGES = [
    overwrite_the_beginning,
    overwrite_everything,
    cut_in_half,
    cut_within_a_page,
    edit("DROP TABLE _messagehub_journal"),
    edit("DROP TABLE _messagehub_meta"),
    edit("ALTER TABLE _messagehub_journal DROP COLUMN time_us"),
    edit("UPDATE _messagehub_meta SET value = 99 WHERE key = 'format'"),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_a_damaged_file_is_told_and_never_made_worse(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    data, file = tmp_path / "data", tmp_path / "data" / "a_db.db"
    async with quick(data) as client:
        ask = Ask(client, "a_db")
        await ask.done(CREATE)
        await asyncio.gather(*(ask.done(INSERT, n, "x" * 3000) for n in range(50)))
    assert not file.with_name("a_db.db-wal").exists(), "a clean end leaves one file"
    sound = tmp_path / "sound.db"
    shutil.copy(file, sound)
    damage(file)
    damaged = file.read_bytes()
    async with quick(data) as client:
        ask = Ask(client, "a_db")
        for query in ("SELECT count(*) FROM items", "DELETE FROM items"):
            error = await ask.refused(query)
            assert (error.reason, error.code) == ("DATABASE_CORRUPT", "DATA_LOSS")
            assert "backup" in error.message, "it says what to do"
        state = await ask.state()
        assert (state.available, "backup" in state.detail) == (False, True)
        await good(Ask(client, "b_db"))
        assert file.read_bytes() == damaged, "the file is kept as it is, for analysis"
        # The instructions, followed: the file is replaced by a good one.
        shutil.copy(sound, file)
        await recovered(ask)
        assert await ask.ids() == list(range(50))


async def test_a_damaged_page_is_told_when_it_is_read(tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "data" / "a_db.db"
    async with quick(data) as client:
        ask = Ask(client, "a_db")
        await ask.done(CREATE)
        await ask.done("CREATE TABLE whole (n INTEGER)")
        await asyncio.gather(*(ask.done(INSERT, n, "x" * 3000) for n in range(200)))
    page = 4096
    with file.open("r+b") as opened:
        for number in range(20, file.stat().st_size // page - 5, 3):
            opened.seek(number * page)
            opened.write(b"\xff" * 200)
    async with quick(data) as client:
        ask = Ask(client, "a_db")
        for query in (
            "SELECT sum(length(content)) FROM items",
            "UPDATE items SET content = content || 'y'",
        ):
            assert (await ask.refused(query)).reason == "DATABASE_CORRUPT"
        await good(Ask(client, "b_db"))


async def test_a_torn_end_of_the_log_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    data, left = tmp_path / "data", tmp_path / "left"
    async with quick(data) as client:
        ask = Ask(client, "a_db")
        await ask.done(CREATE)
        await asyncio.gather(*(ask.done(INSERT, n, "x") for n in range(50)))
        shutil.copytree(data, left)  # as if the power had gone now
    with (left / "a_db.db-wal").open("ab") as log:
        log.write(b"half a frame that was under way" * 50)
    async with quick(left) as client:
        ask = Ask(client, "a_db")
        assert await ask.ids() == list(range(50))
        await ask.done(INSERT, 50, "x")


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE _messagehub_journal",
        "ALTER TABLE _messagehub_journal ADD COLUMN mine",
    ],
)
async def test_a_journal_that_is_taken_apart_under_the_server(
    tmp_path: Path, statement: str
) -> None:
    """Somebody with the sqlite3 command, who does not ask for the lock."""
    data, file = tmp_path / "data", tmp_path / "data" / "a_db.db"
    async with quick(data) as client:
        ask = Ask(client, "a_db")
        await ask.done(CREATE)
        raw = sqlite3.connect(file, isolation_level=None)
        raw.execute(statement)
        raw.close()
        for _ in range(2):
            error = await ask.refused(INSERT, 1, "x")
            assert error.reason == "DATABASE_CORRUPT"
            assert "own tables" in error.message or "damaged" in error.message
        assert await ask.ids() == [], "nothing is done that cannot be recorded"
        await good(Ask(client, "b_db"))


async def test_a_second_process_is_refused_and_takes_over_when_the_first_is_gone(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    async with storage_process(tmp_path / "one", data) as (process, client):
        first = Ask(client, "a_db")
        await first.done(CREATE)
        async with storage_process(tmp_path / "two", data) as (_, standby):
            second = Ask(standby, "a_db")
            for query in ("SELECT 1", CREATE):
                error = await second.refused(query)
                assert error.reason == "DATABASE_UNAVAILABLE"
                assert f"pid {process.pid}" in error.message
                assert error.retry_after
            await good(Ask(standby, "b_db"))
            await first.done(INSERT, 1, "x")
            process.freeze()
            assert (await second.refused("SELECT 1")).reason == "DATABASE_UNAVAILABLE"
            process.thaw()
            await first.done(INSERT, 2, "x")
            process.kill()
            await recovered(second)
            assert await second.ids() == [1, 2]
            await second.done(INSERT, 3, "x")
