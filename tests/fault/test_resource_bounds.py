"""Real processes at the bounds of what one statement may take: memory, disk, and an end in time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from messagehub.v1 import storage_service_pb2_grpc
from storage.commands import ABANDONED
from tests.support.calls import execute_request, query_request, rows, run_async
from tests.support.processes import ServerProcess, running_processes
from tests.support.refusals import refused

CALL_SECONDS = 60.0
MEBIBYTE = 1024 * 1024
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000)"
# A cross join of it, sorted, is terabytes of temporary files.
SORT = f"{NUMBERS} SELECT a.i, b.i, randomblob(200) AS r FROM n a, n b ORDER BY r LIMIT -1 OFFSET 1"
SORT_AND_COUNT = f"SELECT count(*) FROM ({SORT})"
# Not one instruction of SQLite, but one call of one function, takes an hour.
STUCK = "INSERT INTO kept SELECT instr(hex(zeroblob(8000000)), hex(zeroblob(4000000)) || '1')"


@asynccontextmanager
async def platform(directory: Path, **settings: float) -> AsyncIterator[tuple[ServerProcess, Any]]:
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (directory / "messagehub.toml").write_text("\n".join(["[storage]", *lines, ""]))
    async with running_processes(directory) as processes:
        storage = processes.storage()
        hub = processes.hub(storage.address)
        await hub.ready()
        await hub.ready("storage.character_db")
        async with grpc.aio.insecure_channel(hub.address) as channel:
            yield storage, storage_service_pb2_grpc.StorageServiceStub(channel)


@pytest.mark.parametrize("how", ["read", "write", "stream", "index"])
async def test_what_a_statement_writes_is_bounded(tmp_path: Path, how: str) -> None:
    limit = 32 * MEBIBYTE
    async with platform(tmp_path, written_bytes_max=limit, write_seconds_max=25.0) as (_, stub):
        await run_async(stub, "CREATE TABLE kept (a, b)")
        call: Any
        if how == "stream":
            call = stub.Query(query_request(SORT_AND_COUNT), timeout=CALL_SECONDS).read()
        elif how == "index":
            fill = f"INSERT INTO kept {NUMBERS} SELECT i, randomblob(200) FROM n"
            await run_async(stub, fill)
            await run_async(stub, "CREATE INDEX small ON kept (a)")
            larger = "CREATE TABLE l AS SELECT x.b, y.b FROM kept x, kept y LIMIT 10000000"
            call = stub.Execute(execute_request(larger), timeout=CALL_SECONDS)
        else:
            query = SORT_AND_COUNT if how == "read" else f"INSERT INTO kept SELECT * FROM ({SORT})"
            query = query.replace("SELECT * FROM", "SELECT 1, r FROM")
            call = stub.Execute(execute_request(query), timeout=CALL_SECONDS)
        with refused("RESOURCE_EXHAUSTED", "RESULT_TOO_LARGE") as refusal:
            await call
        assert refusal.metadata["limit_bytes"] == str(limit)
        # Whether the bound or the clock ended it, nothing is left, and the next one is served.
        await run_async(stub, "INSERT INTO kept VALUES (0, 0)")
        assert rows(await run_async(stub, "SELECT count(*) FROM kept WHERE a = 0")) == [(1,)]


async def test_memory_is_bounded_and_no_circuit_opens_for_it(tmp_path: Path) -> None:
    async with platform(tmp_path, heap_bytes_max=128 * MEBIBYTE) as (_, stub):
        values = ", ".join(["zeroblob(16000000) || ''"] * 10)
        for _ in range(11):
            with refused("RESOURCE_EXHAUSTED", "RESULT_TOO_LARGE") as refusal:
                await stub.Execute(execute_request(f"SELECT {values}"), timeout=CALL_SECONDS)
            assert "heap_bytes_max" in refusal.message
        assert rows(await run_async(stub, "SELECT 1")) == [(1,)]


async def test_a_thread_that_does_not_come_back_does_not_keep_the_process(tmp_path: Path) -> None:
    # The bound of functions is lifted, so that one call holds the writer.
    limits = {"function_value_bytes_max": 16 * MEBIBYTE, "drain_seconds": 1.0}
    async with platform(tmp_path, **limits) as (storage, stub):
        await run_async(stub, "CREATE TABLE kept (a)")
        stuck = asyncio.ensure_future(stub.Execute(execute_request(STUCK), timeout=CALL_SECONDS))
        await run_async(stub, "SELECT 1")
        assert await storage.stop() == ABANDONED
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stuck
        assert unknown.value.code() is grpc.StatusCode.UNAVAILABLE
        storage.start()
        await storage.ready("storage.character_db")
        assert rows(await run_async(stub, "SELECT count(*) FROM kept")) == [(0,)]
        await run_async(stub, "INSERT INTO kept VALUES (1)")
