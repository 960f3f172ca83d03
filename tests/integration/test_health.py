"""Health by the standard protocol, on both servers, truthful from the first moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hub.config import HubConfig
from hub.server import HubServer
from messagehub.v1 import hub_service_pb2_grpc, storage_service_pb2_grpc
from messagehub.v1.hub_service_pb2 import CloseCircuitRequest
from storage.config import StorageConfig
from storage.server import StorageServer
from tests.support.calls import rows, run_async
from tests.support.health import (
    NOT_SERVING,
    SERVICE_UNKNOWN,
    SERVING,
    check,
)
from tests.support.ports import free_address
from tests.support.refusals import refused
from tests.support.servers import Servers, running_servers

DATABASES = ("auth_db", "campaign_db", "catalog_db", "character_db", "metrics_db")
HUB_NAMES = (
    "",
    "liveness",
    "messagehub.v1.StorageService",
    "messagehub.v1.TransactionService",
    "messagehub.v1.SchemaService",
    "messagehub.v1.EventService",
    "messagehub.v1.HubService",
    *(f"storage.{database}" for database in DATABASES),
)
STORAGE_NAMES = (
    "",
    "liveness",
    "messagehub.storage.v1.StorageService",
    *(f"storage.{database}" for database in DATABASES),
)
UNKNOWN = ("nothing", "storage.nowhere_db", "messagehub.v1.Nothing", "Liveness", " ")
SECONDS_MAX = 20


class Watch:
    """One open `Watch` and what it tells."""

    def __init__(self, stub: Any, name: str) -> None:
        self._call = stub.Watch(health_pb2.HealthCheckRequest(service=name))

    async def told(self) -> int:
        async with asyncio.timeout(SECONDS_MAX):
            answer = await self._call.read()
        assert answer is not grpc.aio.EOF, "the watch ended"
        return answer.status

    async def told_until(self, wanted: int) -> None:
        while await self.told() != wanted:
            pass

    async def ended(self) -> bool:
        async with asyncio.timeout(SECONDS_MAX):
            return await self._call.read() is grpc.aio.EOF

    def cancel(self) -> None:
        self._call.cancel()


@asynccontextmanager
async def health_stub(address: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield health_pb2_grpc.HealthStub(channel)


@pytest.mark.parametrize("name", HUB_NAMES)
async def test_the_hub_serves_every_name(servers: Servers, name: str) -> None:
    assert await check(servers.hub.address, name) == SERVING


@pytest.mark.parametrize("name", STORAGE_NAMES)
async def test_the_storage_server_serves_every_name(servers: Servers, name: str) -> None:
    assert await check(servers.storage.address, name) == SERVING


@pytest.mark.parametrize("server", ["hub", "storage"])
@pytest.mark.parametrize("name", UNKNOWN)
async def test_an_unknown_name(servers: Servers, server: str, name: str) -> None:
    async with health_stub(getattr(servers, server).address) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = Watch(stub, name)
        assert await watch.told() == SERVICE_UNKNOWN
        watch.cancel()


@pytest.mark.parametrize("server", ["hub", "storage"])
async def test_a_watch_tells_the_status_at_once(servers: Servers, server: str) -> None:
    async with health_stub(getattr(servers, server).address) as stub:
        for name in HUB_NAMES if server == "hub" else STORAGE_NAMES:
            watch = Watch(stub, name)
            assert await watch.told() == SERVING, name
            watch.cancel()


async def test_a_hub_is_alive_before_it_is_ready(tmp_path: Path) -> None:
    address = free_address()
    data_dir = str(tmp_path)
    hub = HubServer(HubConfig(listen="127.0.0.1:0", storage=address, data_dir=data_dir))
    storage = StorageServer(StorageConfig(listen=address, data_dir=str(tmp_path)))
    await hub.start()
    try:
        async with health_stub(hub.address) as stub:
            watches = {name: Watch(stub, name) for name in HUB_NAMES}
            first = {name: await watch.told() for name, watch in watches.items()}
            assert first.pop("liveness") == SERVING
            assert set(first.values()) <= {NOT_SERVING, SERVICE_UNKNOWN}
            assert first[""] == NOT_SERVING
            await storage.start()
            del watches["liveness"]
            for watch in watches.values():
                await watch.told_until(SERVING)
            await storage.stop()
            for watch in watches.values():
                await watch.told_until(NOT_SERVING)
            assert await check(hub.address, "liveness") == SERVING
    finally:
        await hub.stop()


@pytest.mark.parametrize("server", ["hub", "storage"])
async def test_a_server_that_stops_says_so_and_ends_its_watches(
    tmp_path: Path, server: str
) -> None:
    async with running_servers(tmp_path) as servers:
        stopping = getattr(servers, server)
        async with health_stub(stopping.address) as stub:
            watch = Watch(stub, "")
            assert await watch.told() == SERVING
            await stopping.stop()
            assert await watch.told() == NOT_SERVING
            assert await watch.ended()
        assert await check(stopping.address) is None


def break_as_garbage(file: Path) -> None:
    file.write_bytes(b"this is no database, whatever its name says " * 200)


def break_as_directory(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize("server", ["hub", "storage"])
@pytest.mark.parametrize(
    ("break_it", "code", "reason"),
    [
        (break_as_garbage, "DATA_LOSS", "DATABASE_CORRUPT"),
        (break_as_directory, "UNAVAILABLE", "DATABASE_UNAVAILABLE"),
    ],
)
async def test_a_database_that_cannot_be_opened_leaves_the_others_serving(
    tmp_path: Path, break_it: Any, code: str, reason: str, server: str
) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    file = directory / "metrics_db.db"
    break_it(file)
    async with running_servers(tmp_path) as servers:
        asked = getattr(servers, server).address
        async with (
            grpc.aio.insecure_channel(servers.hub.address) as channel,
            health_stub(asked) as health,
        ):
            stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
            watch = Watch(health, "storage.metrics_db")
            assert await watch.told() == NOT_SERVING
            for name in ("", "storage.character_db"):
                assert await check(asked, name) == SERVING
            assert rows(await run_async(stub, "SELECT 1")) == [(1,)]
            with refused("UNAVAILABLE", "CIRCUIT_OPEN"):
                await run_async(stub, "SELECT 1", service="metrics")
            # By hand, calls pass, and the storage server says itself what is wrong.
            hub_stub: Any = hub_service_pb2_grpc.HubServiceStub(channel)
            await hub_stub.CloseCircuit(
                CloseCircuitRequest(source_service="metrics", database="metrics_db")
            )
            with refused(code, reason):
                await run_async(stub, "SELECT 1", service="metrics")
            # Once it can be opened, it is.
            if file.is_dir():
                file.rmdir()
            else:
                file.unlink()
            await watch.told_until(SERVING)
            assert rows(await run_async(stub, "SELECT 1", service="metrics")) == [(1,)]
