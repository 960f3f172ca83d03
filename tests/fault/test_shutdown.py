"""SIGTERM in the middle of everything: not ready, drain, streams end with their cursor, exit.

Both servers must end by themselves, whatever is open, and a client of the SDK must not notice
more than a pause.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from messagehub.client import Hub
from messagehub.v1 import (
    event_service_pb2_grpc,
    hub_service_pb2_grpc,
    storage_service_pb2_grpc,
)
from messagehub.v1.event_service_pb2 import SubscribeRequest
from messagehub.v1.hub_service_pb2 import WatchStatusRequest
from tests.support.calls import SERVICE, execute_request, query_request, rows, run_async
from tests.support.eventually import eventually
from tests.support.health import NOT_SERVING, SERVING
from tests.support.processes import ServerProcess, running_processes
from tests.support.refusals import DETAILS_TRAILER, Refusal, refused

# Short, so that what does not end by itself meets its end within the test; or as long as it takes.
SHORT_DRAIN_SECONDS = 1.0
LONG_DRAIN_SECONDS = 12.0
CALL_SECONDS = 30.0
SECONDS_MAX = 60.0
COUNT = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"
SLOW_WRITE = f"INSERT INTO kept {COUNT}"
MANY = COUNT.replace("count(*)", "n")


class Platform:
    """Both processes and every stub to the hub."""

    def __init__(self, storage: ServerProcess, hub: ServerProcess, channel: Any) -> None:
        self.storage = storage
        self.hub = hub
        self.stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        self.events: Any = event_service_pb2_grpc.EventServiceStub(channel)
        self.status: Any = hub_service_pb2_grpc.HubServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)


@asynccontextmanager
async def running_platform(directory: Path, drain_seconds: float) -> AsyncIterator[Platform]:
    (directory / "messagehub.toml").write_text(
        f"[hub]\ndrain_seconds = {drain_seconds}\n[storage]\ndrain_seconds = {drain_seconds}\n"
    )
    async with running_processes(directory) as processes:
        storage = processes.storage()
        hub = processes.hub(storage.address)
        await hub.ready()
        async with grpc.aio.insecure_channel(hub.address) as channel:
            platform = Platform(storage, hub, channel)
            await run_async(platform.stub, "CREATE TABLE kept (id)")
            yield platform


@pytest_asyncio.fixture(loop_scope="session")
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    async with running_platform(tmp_path, SHORT_DRAIN_SECONDS) as made:
        yield made


def slow(platform: Platform, query: str) -> Any:
    return platform.stub.Execute(execute_request(query), timeout=CALL_SECONDS)


async def began(platform: Platform) -> None:
    """Calls that were made before have arrived at the storage server by now."""
    await run_async(platform.stub, "SELECT 1")


async def test_a_hub_ends_by_itself_with_everything_open(platform: Platform) -> None:
    subscription = platform.events.Subscribe(SubscribeRequest(source_service=SERVICE))
    first = await subscription.read()
    health = platform.health.Watch(health_pb2.HealthCheckRequest(service=""))
    assert (await health.read()).status == SERVING
    watch = platform.status.WatchStatus(WatchStatusRequest())
    assert (await watch.read()).snapshot.ready
    slow_read, slow_write = slow(platform, COUNT), slow(platform, SLOW_WRITE)
    query = platform.stub.Query(query_request(COUNT), timeout=CALL_SECONDS)
    unread = platform.stub.Query(query_request(MANY), timeout=CALL_SECONDS)
    assert (await unread.read()).result.rows
    await began(platform)
    stopping = asyncio.create_task(platform.hub.stop())
    assert (await health.read()).status == NOT_SERVING
    assert await health.read() is grpc.aio.EOF
    assert not (await until_snapshot(watch)).ready
    assert await watch.read() is grpc.aio.EOF
    last = await subscription.read()
    while last.events:
        last = await subscription.read()
    assert last.cursor
    assert first.cursor
    assert await subscription.read() is grpc.aio.EOF
    for call in (slow_read, slow_write, query.read()):
        with refused("UNAVAILABLE", "SHUTTING_DOWN") as refusal:
            await call
        assert refusal.retry_seconds is not None
    assert await stopping == 0


async def until_snapshot(watch: Any) -> Any:
    while True:
        update = await watch.read()
        if update.HasField("snapshot"):
            return update.snapshot


async def test_a_storage_server_ends_by_itself_with_everything_open(platform: Platform) -> None:
    subscription = platform.events.Subscribe(
        SubscribeRequest(source_service=SERVICE, event_types=["storage.operation_completed"])
    )
    await subscription.read()
    slow_read, slow_write = slow(platform, COUNT), slow(platform, SLOW_WRITE)
    query = platform.stub.Query(query_request(COUNT), timeout=CALL_SECONDS)
    await began(platform)
    stopping = asyncio.create_task(platform.storage.stop())
    for call in (slow_read, slow_write, query.read()):
        with refused("UNAVAILABLE", "SHUTTING_DOWN") as refusal:
            await call
        assert refusal.retry_seconds is not None
    assert await stopping == 0
    platform.storage.start()
    await platform.hub.ready("storage.character_db")
    assert rows(await run_async(platform.stub, "SELECT count(*) FROM kept")) == [(0,)]
    # The same stream goes on: the hub kept its place.
    await run_async(platform.stub, "INSERT INTO kept VALUES (1)")
    async with asyncio.timeout(SECONDS_MAX):
        while not (message := await subscription.read()).events:
            pass
    assert message.events[-1].operation_completed.rows_affected == 1
    subscription.cancel()


@pytest.mark.parametrize("server", ["hub", "storage"])
async def test_a_write_that_is_nearly_done_is_answered(tmp_path: Path, server: str) -> None:
    counted = f"INSERT INTO kept {COUNT.replace('FROM c)', 'FROM c LIMIT 1000000)')}"
    request = execute_request(counted, request_id=str(uuid.uuid4()))
    async with running_platform(tmp_path, LONG_DRAIN_SECONDS) as platform:
        call = platform.stub.Execute(request, timeout=CALL_SECONDS)
        await began(platform)
        assert await getattr(platform, server).stop() == 0
        assert (await call).result.rows_affected == 1


@pytest.mark.parametrize("server", ["hub", "storage"])
async def test_whoever_calls_meanwhile_is_told_to_call_again(
    platform: Platform, server: str
) -> None:
    acknowledged: list[int] = []
    refusals: list[grpc.aio.AioRpcError] = []
    gone = asyncio.Event()

    async def hammer(worker: int) -> None:
        number = worker
        while not gone.is_set():
            request = execute_request("INSERT INTO kept VALUES (?)", number)
            try:
                await platform.stub.Execute(request, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as failure:
                refusals.append(failure)
                await asyncio.sleep(0.005)
            else:
                acknowledged.append(number)
            number += 100

    async with asyncio.TaskGroup() as workers:
        for worker in range(16):
            workers.create_task(hammer(worker))
        await eventually(lambda: len(acknowledged) > 200)
        assert await getattr(platform, server).stop() == 0
        gone.set()
    assert refusals
    for failure in refusals:
        check_refusal(failure, may_be_bare=server == "hub")
    getattr(platform, server).start()
    await platform.hub.ready("storage.character_db")
    kept = {row[0] for row in rows(await run_async(platform.stub, "SELECT id FROM kept"))}
    assert kept >= set(acknowledged)


def check_refusal(failure: grpc.aio.AioRpcError, *, may_be_bare: bool) -> None:
    """Every answer of a hub says what to do. Without a hub gRPC answers by itself, without details:
    UNAVAILABLE, or CANCELLED for what reaches a server that closes its last connections."""
    if may_be_bare and DETAILS_TRAILER not in dict(failure.trailing_metadata() or ()):
        assert failure.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        return
    refusal = Refusal()
    refusal.read_call(failure)
    assert refusal.code == "UNAVAILABLE"
    assert refusal.reason in ("SHUTTING_DOWN", "STORAGE_UNAVAILABLE", "CIRCUIT_OPEN")
    assert refusal.retry_seconds is not None


@pytest.mark.parametrize("server", ["hub", "storage"])
async def test_a_client_notices_no_more_than_a_pause(platform: Platform, server: str) -> None:
    stopping: ServerProcess = getattr(platform, server)
    restarted = asyncio.Event()
    written: list[str] = []
    seen: list[str] = []

    async def write(hub: Hub) -> None:
        while not restarted.is_set():
            request_id = str(uuid.uuid4())
            await hub.execute("INSERT INTO kept VALUES (?)", [request_id], request_id=request_id)
            written.append(request_id)

    async def follow(hub: Hub, connected: asyncio.Event) -> None:
        async with hub.subscribe(types="storage.operation_completed") as events:
            connected.set()
            async for event in events:
                seen.append(event.data.request_id)  # type: ignore[union-attr]
                if seen[-1] == last:
                    return

    last = str(uuid.uuid4())
    async with Hub(platform.hub.address, service=SERVICE) as hub, asyncio.timeout(SECONDS_MAX):
        connected = asyncio.Event()
        following = asyncio.create_task(follow(hub, connected))
        await connected.wait()
        async with asyncio.TaskGroup() as writers:
            for _ in range(4):
                writers.create_task(write(hub))
            await eventually(lambda: len(written) > 50)
            assert await stopping.stop() == 0
            stopping.start()
            await platform.hub.ready("storage.character_db")
            before = len(written)
            await eventually(lambda: len(written) > before + 50)
            restarted.set()
        await hub.execute("INSERT INTO kept VALUES ('last')", request_id=last)
        await following
        kept = (await hub.execute("SELECT count(*), count(DISTINCT id) FROM kept")).rows
    assert kept == [(len(written) + 1, len(written) + 1)]
    assert sorted(seen) == sorted([*written, last])
