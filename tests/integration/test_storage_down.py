"""Without its storage server the hub says so, at once, and comes back by itself."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest_asyncio

from hub.config import HubConfig
from hub.server import HubServer
from messagehub.v1 import storage_service_pb2_grpc
from messagehub.v1.storage_service_pb2 import ExecuteBatchRequest
from storage.config import StorageConfig
from storage.server import StorageServer
from tests.support.calls import (
    CALL_SECONDS,
    batch_operation,
    execute_request,
    query_request,
    rows,
    run_async,
)
from tests.support.health import NOT_SERVING, SERVING, check, wait_for_status, wait_until_serving
from tests.support.ports import free_address
from tests.support.refusals import refusal_of, refused

ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"
DRAIN_SECONDS = 0.2


class Pair:
    """A hub that stays, and a storage server that comes and goes at one address."""

    def __init__(self, directory: Path) -> None:
        self._config = StorageConfig(
            listen=free_address(), data_dir=str(directory), drain_seconds=DRAIN_SECONDS
        )
        self.hub = HubServer(
            HubConfig(listen="127.0.0.1:0", storage=self._config.listen, data_dir=str(directory))
        )
        self.storage: StorageServer | None = None

    async def start_storage(self) -> None:
        self.storage = StorageServer(self._config)
        await self.storage.start()

    async def stop_storage(self) -> None:
        if self.storage is not None:
            await self.storage.stop()
            self.storage = None


@pytest_asyncio.fixture(loop_scope="session")
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    one = Pair(tmp_path)
    await one.hub.start()
    try:
        yield one
    finally:
        await one.hub.stop()
        await one.stop_storage()


@pytest_asyncio.fixture(loop_scope="session")
async def stub(pair: Pair) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(pair.hub.address) as channel:
        yield storage_service_pb2_grpc.StorageServiceStub(channel)


async def everything_is_refused(stub: Any, reason: str) -> None:
    with refused("UNAVAILABLE", reason) as refusal:
        await run_async(stub, "SELECT 1")
    assert refusal.retry_seconds is not None
    with refused("UNAVAILABLE", reason):
        await run_async(stub, "CREATE TABLE lost (a)")
    with refused("UNAVAILABLE", reason) as refusal:
        async for _ in stub.Query(query_request("SELECT 1"), timeout=CALL_SECONDS):
            pass
    assert refusal.retry_seconds is not None
    batch = ExecuteBatchRequest(
        source_service="character", operations=[batch_operation("SELECT 1")] * 2
    )
    for result in (await stub.ExecuteBatch(batch, timeout=CALL_SECONDS)).results:
        refusal = refusal_of(result.error)
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", reason)


async def test_a_hub_before_its_storage_server(pair: Pair, stub: Any) -> None:
    await everything_is_refused(stub, "STORAGE_UNAVAILABLE")
    # What is wrong with a request is said first: waiting would not cure it.
    with refused("NOT_FOUND", "INVALID_ROUTE"):
        await run_async(stub, "SELECT 1", service="nobody")
    await pair.start_storage()
    await wait_until_serving(pair.hub.address)
    assert rows(await run_async(stub, "SELECT 1")) == [(1,)]


async def test_a_hub_that_loses_its_storage_server_and_finds_it_again(
    pair: Pair, stub: Any
) -> None:
    await pair.start_storage()
    await wait_until_serving(pair.hub.address)
    await run_async(stub, "CREATE TABLE kept (n)")
    for round_number in range(1, 3):
        await run_async(stub, "INSERT INTO kept VALUES (?)", round_number)
        await pair.stop_storage()
        await wait_for_status(pair.hub.address, "", NOT_SERVING)
        assert await check(pair.hub.address, "storage.character_db") == NOT_SERVING
        assert await check(pair.hub.address, "liveness") == SERVING
        await everything_is_refused(stub, "CIRCUIT_OPEN")
        await pair.start_storage()
        await wait_until_serving(pair.hub.address)
        await wait_until_serving(pair.hub.address, "storage.character_db")
        found = rows(await run_async(stub, "SELECT count(*) FROM kept"))
        assert found == [(round_number,)]


async def test_calls_under_way_are_answered_when_the_storage_server_stops(
    pair: Pair, stub: Any
) -> None:
    await pair.start_storage()
    await wait_until_serving(pair.hub.address)
    # Longer than the drain may take.
    seconds = 20 * DRAIN_SECONDS
    calls = [stub.Execute(execute_request(ENDLESS), timeout=seconds) for _ in range(3)]
    query = stub.Query(query_request(ENDLESS), timeout=seconds)
    # One answer shows that the calls before it have arrived.
    await run_async(stub, "SELECT 1")
    await pair.stop_storage()
    failures = await asyncio.gather(*calls, query.read(), return_exceptions=True)
    assert {failure.code() for failure in failures} == {grpc.StatusCode.UNAVAILABLE}
