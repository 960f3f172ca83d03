"""Many operations, one fsync; and never an acknowledgement without one."""

import asyncio
import re
from pathlib import Path
from typing import Final

import pytest

from tests.conformance.operations import CREATE, ENDLESS_WRITE
from tests.conformance.storage_client import StorageClient, asking, reasons, serving
from tests.fault.storage_disk import storage_process, strace
from tests.fault.write_ahead_log import commits

GUARD_SECONDS: Final = 60.0
ENDLESS: Final = 1_000_000
SYNC: Final = re.compile(r"\b(?:fsync|fdatasync)\(\d+<([^>]*)>")


async def inserts_in_one_group(client: StorageClient, count: int) -> None:
    """Sends so many writes while the writer is busy, so that they gather."""
    client.send(asking(ENDLESS_WRITE, number=ENDLESS))
    await client.taken()
    waiting = client.send(*(asking(f"INSERT INTO items VALUES ({n}, 0)") for n in range(count)))
    await client.taken()
    client.send(cancelled=(ENDLESS,))
    assert reasons(list(await asyncio.gather(*waiting))) == [""] * count


async def test_operations_that_gathered_share_one_commit(tmp_path: Path) -> None:
    limits = {"group_operations_max": 256, "group_seconds_max": 60.0}
    async with serving(tmp_path, **limits) as client:
        await client.run(asking(CREATE))
        log = tmp_path / "items_db.db-wal"
        before = commits(log)
        await inserts_in_one_group(client, 256)
        assert commits(log) == before + 1
        await inserts_with_a_failure_among_them(client)
        assert commits(log) == before + 2, "a failed statement does not cost another commit"


@pytest.mark.parametrize(("count", "groups"), [(15, 1), (16, 1), (17, 2)])
async def test_a_group_has_its_limit(tmp_path: Path, count: int, groups: int) -> None:
    limits = {"group_operations_max": 16, "group_seconds_max": 60.0}
    async with serving(tmp_path, **limits) as client:
        await client.run(asking(CREATE))
        log = tmp_path / "items_db.db-wal"
        before = commits(log)
        await inserts_in_one_group(client, count)
        assert commits(log) == before + groups


async def inserts_with_a_failure_among_them(client: StorageClient) -> None:
    client.send(asking(ENDLESS_WRITE, number=ENDLESS))
    await client.taken()
    waiting = client.send(
        *(asking(f"INSERT INTO items VALUES ({n}, 0)") for n in (901, 1, 902, 2, 903))
    )
    await client.taken()
    client.send(cancelled=(ENDLESS,))
    lost = "CONSTRAINT_VIOLATION"
    assert reasons(list(await asyncio.gather(*waiting))) == ["", lost, "", lost, ""]


async def test_each_operation_that_comes_alone_is_a_commit(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        await client.run(asking(CREATE))
        log = tmp_path / "items_db.db-wal"
        before = commits(log)
        for number in range(20):
            await client.run(asking(f"INSERT INTO items VALUES ({number}, 0)"))
            assert commits(log) == before + number + 1, "it is there when it is acknowledged"


async def test_reads_and_replays_and_refusals_cost_no_fsync_of_their_own(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        request_id = "0190a000-0000-7000-8000-000000000001"
        await client.run(asking(CREATE, request_id=request_id))
        log = tmp_path / "items_db.db-wal"
        before = commits(log)
        outcomes = await client.run(
            *(asking("SELECT 1") for _ in range(20)),
            asking(CREATE, request_id=request_id),
            asking("INSERT INTO items VALUES (1, 0)", request_id=request_id),
            asking("SELECT nonsense"),
        )
        assert outcomes[-3].replayed
        assert commits(log) == before


async def test_the_kernel_sees_one_fsync_for_each_commit(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    data = tmp_path / "data"
    log = data / "items_db.db-wal"

    def synced() -> int:
        """The calls on the log so far; strace writes a line before the call's effect is seen."""
        return sum(name == str(log) for name in SYNC.findall(trace.read_text()))

    prefix = strace("-y", "-e", "trace=fsync,fdatasync", "-o", str(trace))
    async with storage_process(tmp_path / "run", data, *prefix) as (_, client):
        async with asyncio.timeout(GUARD_SECONDS):
            await client.run(asking(CREATE))
            before, fsyncs = commits(log), synced()
            assert fsyncs >= before >= 1
            for number in range(10):
                await client.run(asking(f"INSERT INTO items VALUES ({1000 + number}, 0)"))
                fsyncs += 1
                assert synced() == fsyncs, "acknowledged means that it was synced"
            await inserts_in_one_group(client, 200)
            done = commits(log) - before
            assert synced() - fsyncs == done - 10
            assert done - 10 <= 10, "two hundred operations share a few"
