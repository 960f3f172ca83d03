"""The network between hub and storage fails: what was asked is done once, whatever was heard."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from messagehub.v1 import storage_service_pb2_grpc
from storage.config import StorageConfig
from storage.server import StorageServer
from tests.support.calls import execute_request, rows, run_async
from tests.support.eventually import eventually
from tests.support.fault_proxy import Direction, FaultProxy
from tests.support.refusals import refused
from tests.support.servers import running_hub

ATTEMPT_SECONDS = 1
SECONDS_MAX = 30
# What a caller may be told while the line is broken; each asks for the same call again.
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
BREAK_EVERY_SECONDS = 0.15


class Line:
    """A hub that reaches its storage server through a proxy that misbehaves."""

    def __init__(self, proxy: FaultProxy, stub: Any, direct: Any) -> None:
        self.proxy = proxy
        self.stub = stub
        self.direct = direct

    async def is_refused(self) -> bool:
        """Whether the hub says that it is cut off."""
        try:
            await run_async(self.stub, "SELECT 1")
        except grpc.aio.AioRpcError:
            return True
        return False


@pytest_asyncio.fixture(loop_scope="session")
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    storage = StorageServer(StorageConfig(listen="127.0.0.1:0", data_dir=str(tmp_path)))
    await storage.start()
    try:
        async with (
            FaultProxy(storage.address) as proxy,
            running_hub(proxy.address) as hub,
            running_hub(storage.address) as other,
            grpc.aio.insecure_channel(hub.address) as channel,
            grpc.aio.insecure_channel(other.address) as direct,
        ):
            make = storage_service_pb2_grpc.StorageServiceStub
            yield Line(proxy, make(channel), make(direct))
    finally:
        await storage.stop()


async def until_answered(stub: Any, request: Any) -> Any:
    """Sends the same call until it is answered."""
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            try:
                return await stub.Execute(request, timeout=ATTEMPT_SECONDS)
            except grpc.aio.AioRpcError as failure:
                if failure.code() not in PASSING:
                    raise
                await asyncio.sleep(0.02)


async def until_there(stub: Any, table: str, count: int) -> None:
    async def there() -> bool:
        return rows(await run_async(stub, f"SELECT count(*) FROM {table}")) == [(count,)]

    await eventually(there)


async def test_a_write_whose_answer_was_lost_is_done_once(line: Line, table: str) -> None:
    await run_async(line.stub, f"CREATE TABLE {table} (n)")
    request = execute_request(f"INSERT INTO {table} VALUES (1)", request_id=str(uuid.uuid4()))
    line.proxy.lose(Direction.TO_CALLER)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await line.stub.Execute(request, timeout=ATTEMPT_SECONDS)
    assert caught.value.code() in PASSING
    await until_there(line.direct, table, 1)
    await line.proxy.forward()
    answer = await until_answered(line.stub, request)
    assert answer.replayed
    assert rows(await run_async(line.stub, f"SELECT n FROM {table}")) == [(1,)]


async def test_a_broken_connection_is_said_and_made_again(line: Line, table: str) -> None:
    await run_async(line.stub, f"CREATE TABLE {table} (n)")
    for number in range(3):
        await line.proxy.refuse()
        line.proxy.cut()
        await eventually(line.is_refused)
        with refused("UNAVAILABLE", "CIRCUIT_OPEN") as refusal:
            await run_async(line.stub, "SELECT 1")
        assert refusal.retry_seconds is not None
        await line.proxy.forward()
        request = execute_request(
            f"INSERT INTO {table} VALUES (?)", number, request_id=str(uuid.uuid4())
        )
        await until_answered(line.stub, request)
    assert rows(await run_async(line.stub, f"SELECT n FROM {table}")) == [(0,), (1,), (2,)]


async def test_writes_through_a_line_that_breaks_all_the_time(line: Line, table: str) -> None:
    await run_async(line.stub, f"CREATE TABLE {table} (writer, n)")
    done = asyncio.Event()

    async def write(writer: int) -> None:
        for n in range(30):
            insert = f"INSERT INTO {table} VALUES (?, ?)"
            await until_answered(
                line.stub, execute_request(insert, writer, n, request_id=str(uuid.uuid4()))
            )

    async def break_it() -> None:
        while not done.is_set():
            line.proxy.cut()
            with suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), BREAK_EVERY_SECONDS)

    breaking = asyncio.create_task(break_it())
    await asyncio.gather(*(write(writer) for writer in range(4)))
    done.set()
    await breaking
    found = rows(await run_async(line.direct, f"SELECT writer, n FROM {table}"))
    assert sorted(found) == [(writer, n) for writer in range(4) for n in range(30)]


async def test_a_line_that_is_silent_ends_a_call_in_its_time(line: Line, table: str) -> None:
    await run_async(line.stub, f"CREATE TABLE {table} (n)")
    request = execute_request(f"INSERT INTO {table} VALUES (1)", request_id=str(uuid.uuid4()))
    line.proxy.stall()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await line.stub.Execute(request, timeout=ATTEMPT_SECONDS)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await line.proxy.forward()
    await until_answered(line.stub, request)
    assert rows(await run_async(line.stub, f"SELECT n FROM {table}")) == [(1,)]
