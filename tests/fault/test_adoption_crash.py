"""kill -9 during an adoption: nothing of it stays, and nothing of the database is lost."""

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Final

import grpc
import pytest

from messagehub.storage.v1.storage_service_pb2 import AdoptDatabaseRequest
from tests.conformance.storage_client import asking, reasons
from tests.fault.storage_disk import storage_process
from tests.support.calls import rows
from tests.support.eventually import eventually

GUARD_SECONDS: Final = 60.0
REQUEST_ID: Final = "0190a000-0000-7000-8000-000000000001"
CREATE: Final = "CREATE TABLE once (n)"


def places(data: Path) -> list[Path]:
    return list(data.glob(".adopting-*"))


async def pieces(file: Path, end: asyncio.Event) -> AsyncIterator[AdoptDatabaseRequest]:
    """The file in one message; the stream ends when it is told to."""
    content = file.read_bytes()
    yield AdoptDatabaseRequest(
        database="items_db",
        size_bytes=len(content),
        checksum=hashlib.sha256(content).hexdigest(),
        chunk=content,
    )
    await end.wait()


async def test_what_an_adoption_left_goes_and_the_journal_stays(tmp_path: Path) -> None:
    data = tmp_path / "data"
    file = tmp_path / "heroes.db"
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("CREATE TABLE heroes (name)")
    async with asyncio.timeout(GUARD_SECONDS):
        async with storage_process(tmp_path / "first", data) as (process, client):
            create = asking(CREATE, request_id=REQUEST_ID)
            outcomes = await client.run(create, asking("DROP TABLE once"))
            assert reasons(outcomes) == ["", ""]
            end = asyncio.Event()
            call = client.stub.AdoptDatabase(pieces(file, end))
            await eventually(lambda: any(list(place.iterdir()) for place in places(data)))
            process.kill()
            end.set()
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        assert places(data), "the process had no time to tidy up"
        async with storage_process(tmp_path / "second", data) as (_, client):
            assert places(data) == []
            adopted = await client.stub.AdoptDatabase(pieces(file, end))
            assert list(adopted.tables) == ["heroes"]
            (again,) = await client.run(asking(CREATE, request_id=REQUEST_ID))
            assert (again.replayed, again.sequence) == (True, 1)
            (read,) = await client.run(asking("SELECT count(*) FROM heroes"))
            assert rows(read.result) == [(0,)]
            assert places(data) == []
