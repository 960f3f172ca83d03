"""Whatever RPC of the storage server loses its answer, what was done was done once, and is told.

One hub that reaches its storage server through a relay which loses answers, and one that does not.
"""

import asyncio
import hashlib
import sqlite3
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from messagehub.client import Hub
from messagehub.schemas import SchemaUpdate
from messagehub.storage.v1 import storage_service_pb2
from messagehub.v1 import (
    event_service_pb2_grpc,
    hub_service_pb2_grpc,
    storage_service_pb2_grpc,
)
from messagehub.v1.hub_service_pb2 import AdoptDatabaseRequest
from messagehub.v1.storage_service_pb2 import GetOperationRequest
from storage.config import StorageConfig
from storage.server import StorageServer
from tests.integration.test_named_subscriptions import acknowledge, delete, free, listed
from tests.support.calls import CALL_SECONDS, SERVICE, execute_request, query_request, rows
from tests.support.event_stream import assert_in_order, ids, live, subscribed, write
from tests.support.eventually import eventually
from tests.support.health import wait_until_serving
from tests.support.losing_relay import LosingRelay
from tests.support.refusals import refused
from tests.support.servers import running_hub
from tests.support.submissions import ended, state_of, submit

LEASE_SECONDS = 0.6
COUNT = 40
NAME = "billing"


class Scene:
    """Stubs to the hub behind the relay, and one to the database that no fault can reach."""

    def __init__(self, relay: LosingRelay, storage: StorageServer, hub: str, channel: Any) -> None:
        self.relay = relay
        self.storage = storage
        self.hub = hub
        self.stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        self.events: Any = event_service_pb2_grpc.EventServiceStub(channel)
        self.operator: Any = hub_service_pb2_grpc.HubServiceStub(channel)
        self.direct: Any = None
        self.directory = Path()

    async def numbers(self) -> list[Any]:
        answer = await self.direct.Execute(
            execute_request("SELECT n FROM kept ORDER BY rowid"), timeout=CALL_SECONDS
        )
        return [row[0] for row in rows(answer.result)]


@pytest_asyncio.fixture(loop_scope="session")
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    storage = StorageServer(
        StorageConfig(listen="127.0.0.1:0", data_dir=str(tmp_path), drain_seconds=1)
    )
    await storage.start()
    settings = {"subscription_lease_seconds": LEASE_SECONDS, "heartbeat_seconds": 0.2}
    try:
        async with (
            LosingRelay(storage.address) as relay,
            running_hub(relay.address, **settings) as hub,
            running_hub(storage.address) as other,
            grpc.aio.insecure_channel(hub.address) as channel,
            grpc.aio.insecure_channel(other.address) as direct,
        ):
            made = Scene(relay, storage, hub.address, channel)
            made.direct = storage_service_pb2_grpc.StorageServiceStub(direct)
            made.directory = tmp_path
            await write(made.direct, "CREATE TABLE kept (n)")
            yield made
    finally:
        await storage.stop()


async def exchange(scene: Scene) -> None:
    request = execute_request("INSERT INTO kept VALUES (1)", request_id=str(uuid.uuid4()))
    scene.relay.lose("Exchange")
    answer = await scene.stub.Execute(request, timeout=CALL_SECONDS)
    assert answer.replayed
    submitted = []
    for number in range(2, COUNT):
        submitted.append(await submit(scene.stub, f"INSERT INTO kept VALUES ({number})"))
        if number % 10 == 0:
            scene.relay.lose("Exchange")
    for one in submitted:
        assert state_of(await ended(scene.stub, one.operation.request_id)) == "COMPLETED"
    assert await scene.numbers() == list(range(1, COUNT))


async def query(scene: Scene) -> None:
    scene.relay.lose("Query")
    call = scene.stub.Query(query_request("SELECT 7 AS n"), timeout=CALL_SECONDS)
    found = [row async for page in call for row in rows(page.result)]
    assert found == [(7,)]


async def look_up(scene: Scene) -> None:
    name = await write(scene.stub, "INSERT INTO kept VALUES (1)")
    scene.relay.lose("LookUpOperation")
    request = GetOperationRequest(source_service=SERVICE, request_id=name)
    answer = await scene.stub.GetOperation(request, timeout=CALL_SECONDS)
    assert state_of(answer.operation) == "COMPLETED"
    with refused("NOT_FOUND", "OPERATION_NOT_FOUND"):
        scene.relay.lose("LookUpOperation")
        request.request_id = str(uuid.uuid4())
        await scene.stub.GetOperation(request, timeout=CALL_SECONDS)


async def tail(scene: Scene) -> None:
    names = []
    async with live(scene.events, latest=True) as reader:
        for number in range(COUNT):
            names.append(await write(scene.direct, "INSERT INTO kept VALUES (?)", number))
            if number % 10 == 5:
                scene.relay.lose("Tail")
        events = await reader.until(*names)
    assert ids(events) == names
    assert_in_order(events)


async def watch(scene: Scene) -> None:
    """A session that ends is followed by one whose first word is lost, and by another one."""
    request = execute_request("INSERT INTO kept VALUES (1)", request_id=str(uuid.uuid4()))
    scene.relay.lose("WatchDatabases", 2)
    scene.relay.lose("Exchange")
    with suppress(grpc.aio.AioRpcError):
        await scene.stub.Execute(request, timeout=CALL_SECONDS)

    async def lost() -> bool:
        return scene.relay.lost["WatchDatabases"] == 2

    await eventually(lost)
    await wait_until_serving(scene.hub, "storage.character_db")
    assert (await scene.stub.Execute(request, timeout=CALL_SECONDS)).replayed
    assert await scene.numbers() == [1]


async def adopt(scene: Scene) -> None:
    file = scene.directory / "source.sqlite3"
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("CREATE TABLE heroes (name)")
        raw.execute("INSERT INTO heroes VALUES ('Ada')")
        raw.commit()
    content = file.read_bytes()
    piece = AdoptDatabaseRequest(
        source_service="catalog",
        size_bytes=len(content),
        checksum=hashlib.sha256(content).hexdigest(),
        chunk=content,
    )
    scene.relay.lose("AdoptDatabase")
    with refused("UNAVAILABLE", "STORAGE_UNAVAILABLE"):
        await scene.operator.AdoptDatabase(iter([piece]), timeout=CALL_SECONDS)
    with refused("FAILED_PRECONDITION", "DATABASE_NOT_EMPTY"):
        await scene.operator.AdoptDatabase(iter([piece]), timeout=CALL_SECONDS)
    answer = await scene.stub.Execute(
        execute_request("SELECT name FROM heroes", service="catalog"), timeout=CALL_SECONDS
    )
    assert rows(answer.result) == [("Ada",)]


async def open_subscription(scene: Scene) -> None:
    scene.relay.lose("OpenSubscription")
    async with live(scene.events, subscription=NAME, latest=True) as reader:
        name = await write(scene.direct, "INSERT INTO kept VALUES (1)")
        assert ids(await reader.until(name)) == [name]
        # The copy that lost its answer does not keep the name from the stream that has it.
        with refused("FAILED_PRECONDITION", "SUBSCRIPTION_IN_USE"):
            async with subscribed(scene.events, subscription=NAME, latest=True) as other:
                await other.message()


async def hold_subscriptions(scene: Scene) -> None:
    async with live(scene.events, subscription=NAME, latest=True) as reader:
        scene.relay.lose("HoldSubscriptions", 2)
        while scene.relay.lost["HoldSubscriptions"] < 2:
            await reader.message()
        name = await write(scene.direct, "INSERT INTO kept VALUES (1)")
        assert ids(await reader.until(name)) == [name]
        scene.relay.lose("HoldSubscriptions")
    # The lease is given up though nobody heard so.
    await free(scene.events, NAME)


async def acknowledge_subscription(scene: Scene) -> None:
    async with live(scene.events, subscription=NAME, latest=True) as reader:
        first = await write(scene.direct, "INSERT INTO kept VALUES (1)")
        await reader.until(first)
        scene.relay.lose("AcknowledgeSubscription")
        await acknowledge(scene.events, NAME, reader.cursor)
        second = await write(scene.direct, "INSERT INTO kept VALUES (2)")
        await reader.until(second)
    await free(scene.events, NAME)
    async with live(scene.events, subscription=NAME, latest=True) as reader:
        assert ids(await reader.until(second)) == [second]


async def list_subscriptions(scene: Scene) -> None:
    async with live(scene.events, subscription=NAME, latest=True):
        scene.relay.lose("ListSubscriptions")
        assert (await listed(scene.events, NAME)).active


async def delete_subscription(scene: Scene) -> None:
    async with live(scene.events, subscription=NAME, latest=True):
        pass
    await free(scene.events, NAME)
    scene.relay.lose("DeleteSubscription")
    with refused("UNAVAILABLE", "STORAGE_UNAVAILABLE"):
        await delete(scene.events, NAME)
    with refused("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND"):
        await delete(scene.events, NAME)


async def describe_schema(scene: Scene) -> None:
    scene.relay.lose("DescribeSchema")
    async with Hub(scene.hub, service=SERVICE) as hub:
        assert [table.name for table in (await hub.schema()).tables] == ["kept"]


async def rehearse_schema(scene: Scene) -> None:
    scene.relay.lose("RehearseSchema")
    async with Hub(scene.hub, service=SERVICE) as hub:
        update = SchemaUpdate("1.0.0", "DROP TABLE kept")
        answer = await hub.update_schema([update], dry_run=True)
        assert len(answer.results[0].statements) == 1
        assert (await hub.schema()).version == ""


SCENARIOS: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "Exchange": exchange,
    "Query": query,
    "Tail": tail,
    "LookUpOperation": look_up,
    "WatchDatabases": watch,
    "AdoptDatabase": adopt,
    "OpenSubscription": open_subscription,
    "HoldSubscriptions": hold_subscriptions,
    "AcknowledgeSubscription": acknowledge_subscription,
    "ListSubscriptions": list_subscriptions,
    "DeleteSubscription": delete_subscription,
    "DescribeSchema": describe_schema,
    "RehearseSchema": rehearse_schema,
}


def test_no_rpc_is_left_out() -> None:
    service = storage_service_pb2.DESCRIPTOR.services_by_name["StorageService"]
    assert set(SCENARIOS) == {method.name for method in service.methods}


@pytest.mark.parametrize("method", SCENARIOS)
async def test_an_answer_that_is_lost_changes_no_outcome(scene: Scene, method: str) -> None:
    async with asyncio.timeout(60):
        await SCENARIOS[method](scene)
    assert scene.relay.lost[method], "no answer was lost"
