"""Files of a database that somebody removes or replaces under a running server are noticed.

Nothing is acknowledged that only the open file holds; other databases go on.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from storage.core.engine import EngineLost
from storage.core.transactions.engine_part import Step
from tests.conformance.engines import SqlitePlace
from tests.conformance.operations import done
from tests.conformance.storage_client import StorageClient, serving
from tests.conformance.transaction_parts import advance, header
from tests.fault.storage_disk import CREATE, INSERT, Ask, storage_process
from tests.support.eventually import eventually

GUARD_SECONDS: Final = 60.0
VICTIM, OTHER = "victim_db", "other_db"
Take = Callable[[Path], None]


def remove(file: Path) -> None:
    file.unlink()


def rename(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))


def replace(file: Path) -> None:
    copy = file.with_name("copy")
    shutil.copy(file, copy)
    copy.replace(file)


EVERY_FILE = pytest.mark.parametrize("suffix", ["", "-wal", ".lock"])
EVERY_WAY = pytest.mark.parametrize("take", [remove, rename, replace])


def file_of(directory: Path, suffix: str) -> Path:
    return directory / f"{VICTIM}.db{suffix}"


async def both(client: StorageClient) -> tuple[Ask, Ask]:
    """Two databases, each with a row."""
    asks = Ask(client, VICTIM), Ask(client, OTHER)
    for ask in asks:
        await ask.done(CREATE)
        await ask.done(INSERT, 1, "kept")
    return asks


@EVERY_FILE
@EVERY_WAY
async def test_no_write_is_acknowledged_any_more(tmp_path: Path, suffix: str, take: Take) -> None:
    async with serving(tmp_path) as client, asyncio.timeout(GUARD_SECONDS):
        victim, other = await both(client)
        take(file_of(tmp_path, suffix))
        for query in ("INSERT INTO items VALUES (2, 'lost')", "SELECT 1", "DELETE FROM items"):
            error = await victim.refused(query)
            assert error.reason == "DATABASE_UNAVAILABLE"
            assert error.message.startswith(f"{VICTIM}.db{suffix} ")
            assert "start" in error.message, "it says what to do"
        state = await victim.state()
        assert (state.available, state.detail) == (False, error.message)
        await other.done(INSERT, 2, "fine")
        assert (await other.state()).available


@pytest.mark.parametrize("step", [Step.PREPARE, Step.COMMIT])
async def test_no_step_of_a_transaction_is_acknowledged_any_more(
    tmp_path: Path, step: Step
) -> None:
    place = SqlitePlace(tmp_path / "place")
    engine = await place.open()
    await done(engine, "CREATE TABLE items (id INTEGER PRIMARY KEY, n)")
    await advance(engine, header(), "INSERT INTO items VALUES (0, 0)", step=Step.COMMIT)
    remove(place.file)
    with pytest.raises(EngineLost, match="nothing more is acknowledged"):
        await advance(engine, header(), "INSERT INTO items VALUES (1, 1)", step=step)
    await place.close()


@EVERY_FILE
async def test_it_is_noticed_without_a_write(tmp_path: Path, suffix: str) -> None:
    async with serving(tmp_path, trim_every_seconds=0.02) as client:
        async with asyncio.timeout(GUARD_SECONDS):
            victim, other = await both(client)
            remove(file_of(tmp_path, suffix))

            async def noticed() -> bool:
                return not (await victim.state()).available

            await eventually(noticed)
            assert (await victim.refused("SELECT 1")).reason == "DATABASE_UNAVAILABLE"
            assert (await other.state()).available


async def test_a_log_that_was_removed_is_written_back_by_a_stop(tmp_path: Path) -> None:
    """As the refusal says."""
    data = tmp_path / "data"
    async with asyncio.timeout(GUARD_SECONDS):
        async with storage_process(tmp_path / "first", data) as (process, client):
            victim, _ = await both(client)
            remove(file_of(data, "-wal"))
            assert "SIGTERM" in (await victim.refused(INSERT, 2, "unknown")).message
            assert await process.stop() == 0
        async with storage_process(tmp_path / "second", data) as (_, client):
            kept = await Ask(client, VICTIM).done("SELECT id FROM items ORDER BY id")
            assert kept[0] == (1,), "what was acknowledged is there"


async def test_a_file_that_was_removed_can_be_saved_from_the_process(tmp_path: Path) -> None:
    """As the refusal says."""
    data, saved = tmp_path / "data", tmp_path / "saved"
    saved.mkdir()
    async with asyncio.timeout(GUARD_SECONDS):
        async with storage_process(tmp_path / "first", data) as (process, client):
            victim, _ = await both(client)
            for suffix in ("", "-wal"):
                remove(file_of(data, suffix))
            said = (await victim.refused(INSERT, 2, "unknown")).message
            descriptors = Path("/proc", str(process.pid), "fd")
            assert str(descriptors) in said
            for descriptor in descriptors.iterdir():
                name = descriptor.readlink().name.removesuffix(" (deleted)")
                if name in (f"{VICTIM}.db", f"{VICTIM}.db-wal"):
                    shutil.copyfile(descriptor, saved / name)
    with closing(sqlite3.connect(saved / f"{VICTIM}.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert (1, "kept") in raw.execute("SELECT * FROM items").fetchall()
