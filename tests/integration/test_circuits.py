"""Circuits over real gRPC: what a database that is away hurts, and how it comes back by itself."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from messagehub.v1 import (
    event_service_pb2_grpc,
    hub_service_pb2_grpc,
    storage_service_pb2_grpc,
)
from messagehub.v1.event_pb2 import Event
from messagehub.v1.event_service_pb2 import (
    DeleteSubscriptionRequest,
    PublishEventRequest,
    SubscribeRequest,
)
from messagehub.v1.hub_service_pb2 import (
    CIRCUIT_STATE_CLOSED,
    CIRCUIT_STATE_HALF_OPEN,
    CIRCUIT_STATE_OPEN,
    CloseCircuitRequest,
    DatabaseStatus,
    GetStatusRequest,
    OpenCircuitRequest,
    WatchStatusRequest,
)
from messagehub.v1.storage_service_pb2 import ExecuteBatchRequest, GetOperationRequest
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
from tests.support.eventually import eventually
from tests.support.fault_proxy import Direction, FaultProxy
from tests.support.health import NOT_SERVING, SERVING, check, wait_for_status, wait_until_serving
from tests.support.ports import free_address
from tests.support.refusals import refusal_of, refused
from tests.support.servers import running_hub

OWN, OTHER = "character_db", "auth_db"
ANSWER_SECONDS = 0.3
FAILURES_MAX = 3
SILENT_CALL_SECONDS = 0.5
UNDER_WAY = 20
TRIALS_MAX = 4


class Platform:
    """A hub that stays, its storage server behind a line that can fail, and stubs."""

    def __init__(self, config: StorageConfig, proxy: FaultProxy, address: str) -> None:
        self._config = config
        self.proxy = proxy
        self.address = address
        self.storage = StorageServer(config)
        self.channel = grpc.aio.insecure_channel(address)

    @property
    def stub(self) -> Any:
        return storage_service_pb2_grpc.StorageServiceStub(self.channel)

    @property
    def operator(self) -> Any:
        return hub_service_pb2_grpc.HubServiceStub(self.channel)

    @property
    def events(self) -> Any:
        return event_service_pb2_grpc.EventServiceStub(self.channel)

    async def stop_storage(self) -> None:
        await self.storage.stop()

    async def start_storage(self) -> None:
        self.storage = StorageServer(self._config)
        await self.storage.start()

    async def status(self, name: str = OWN) -> DatabaseStatus:
        answer = await self.operator.GetStatus(GetStatusRequest(), timeout=CALL_SECONDS)
        return next(one for one in answer.status.databases if one.database == name)

    async def closes(self, name: str = OWN) -> None:
        async def closed() -> bool:
            return (await self.status(name)).circuit == CIRCUIT_STATE_CLOSED

        await eventually(closed)


@asynccontextmanager
async def platform_at(directory: Path, **settings: Any) -> AsyncIterator[Platform]:
    config = StorageConfig(listen=free_address(), data_dir=str(directory), drain_seconds=0.2)
    first = StorageServer(config)
    await first.start()
    async with FaultProxy(config.listen) as proxy, running_hub(proxy.address, **settings) as hub:
        platform = Platform(config, proxy, hub.address)
        platform.storage = first
        try:
            yield platform
        finally:
            await platform.channel.close()
            await platform.storage.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    async with platform_at(tmp_path) as one:
        yield one


async def circuit_events(platform: Platform, count: int, database: str = OWN) -> list[Event]:
    """The first so many events of a database's circuit."""
    found: list[Event] = []
    call = platform.events.Subscribe(
        SubscribeRequest(
            source_service="character",
            databases=[database],
            event_types=["storage.circuit_*"],
            earliest=True,
        ),
        timeout=CALL_SECONDS,
    )
    while len(found) < count:
        found += (await call.read()).events
    call.cancel()
    return found


# The storage server goes and comes back.


async def test_without_its_storage_server_every_call_is_refused_at_once(
    platform: Platform, table: str
) -> None:
    await run_async(platform.stub, f"CREATE TABLE {table} (n)")
    watch = platform.operator.WatchStatus(WatchStatusRequest(), timeout=CALL_SECONDS)
    assert (await watch.read()).snapshot.ready
    await platform.stop_storage()
    await wait_for_status(platform.address, f"storage.{OWN}", NOT_SERVING)
    await every_call_is_refused(platform)
    status = await platform.status()
    assert (status.available, status.circuit) == (False, CIRCUIT_STATE_OPEN)
    while (update := await watch.read()).database.circuit != CIRCUIT_STATE_OPEN:
        pass
    assert not update.database.available
    await platform.start_storage()
    # Nobody calls: it comes back by itself.
    await wait_until_serving(platform.address, f"storage.{OWN}")
    assert (await platform.status()).circuit == CIRCUIT_STATE_CLOSED
    await run_async(platform.stub, f"INSERT INTO {table} VALUES (1)")
    while (update := await watch.read()).database.circuit != CIRCUIT_STATE_CLOSED:
        pass
    watch.cancel()


async def every_call_is_refused(platform: Platform) -> None:
    stub = platform.stub
    with refused("UNAVAILABLE", "CIRCUIT_OPEN") as refusal:
        await run_async(stub, "SELECT 1")
    assert refusal.retry_seconds is not None
    assert refusal.retry_seconds > 0
    assert refusal.metadata == {"database": OWN}
    with refused("UNAVAILABLE", "CIRCUIT_OPEN"):
        await stub.Query(query_request("SELECT 1"), timeout=CALL_SECONDS).read()
    with refused("UNAVAILABLE", "CIRCUIT_OPEN"):
        request = GetOperationRequest(source_service="character", request_id=str(uuid.uuid4()))
        await stub.GetOperation(request, timeout=CALL_SECONDS)
    with refused("UNAVAILABLE", "CIRCUIT_OPEN"):
        publishing = PublishEventRequest(source_service="character")
        publishing.event.type = "character.moved"
        await platform.events.PublishEvent(publishing, timeout=CALL_SECONDS)
    with refused("UNAVAILABLE", "CIRCUIT_OPEN"):
        request = SubscribeRequest(source_service="character", earliest=True)
        await platform.events.Subscribe(request, timeout=CALL_SECONDS).read()
    with refused("UNAVAILABLE", "CIRCUIT_OPEN"):
        request = SubscribeRequest(
            source_service="character", subscription="billing", databases=[OWN], latest=True
        )
        await platform.events.Subscribe(request, timeout=CALL_SECONDS).read()
    with refused("UNAVAILABLE", "CIRCUIT_OPEN"):
        deleting = DeleteSubscriptionRequest(source_service="character", subscription="billing")
        await platform.events.DeleteSubscription(deleting, timeout=CALL_SECONDS)
    batch = ExecuteBatchRequest(
        source_service="character", operations=[batch_operation("SELECT 1")] * 2
    )
    for result in (await stub.ExecuteBatch(batch, timeout=CALL_SECONDS)).results:
        assert refusal_of(result.error).reason == "CIRCUIT_OPEN"


async def test_the_journal_tells_what_the_circuit_did(platform: Platform) -> None:
    await platform.stop_storage()
    await wait_for_status(platform.address, f"storage.{OWN}", NOT_SERVING)
    await platform.start_storage()
    for database in (OWN, OTHER):
        await wait_until_serving(platform.address, f"storage.{database}")
        told = await circuit_events(platform, 3, database)
        assert [one.type for one in told] == [
            "storage.circuit_opened",
            "storage.circuit_half_opened",
            "storage.circuit_closed",
        ]
        for one in told:
            assert (one.source, one.subject) == ("hub", database)
            assert one.circuit_changed.storage_server == platform.proxy.address
        assert "not connected" in told[0].circuit_changed.cause


async def test_operations_that_were_under_way_are_answered_by_the_journal(
    platform: Platform, table: str
) -> None:
    """Executed, the answers lost, the connection cut: the same call still gets its outcomes."""
    await run_async(platform.stub, f"CREATE TABLE {table} (n)")
    platform.proxy.lose(Direction.TO_CALLER)
    insert = f"INSERT INTO {table} VALUES (?)"
    batch = ExecuteBatchRequest(
        source_service="character",
        operations=[batch_operation(insert, n) for n in range(UNDER_WAY)],
    )
    calling = asyncio.ensure_future(platform.stub.ExecuteBatch(batch, timeout=CALL_SECONDS))
    async with (
        running_hub(platform.storage.address) as other,
        grpc.aio.insecure_channel(other.address) as channel,
    ):
        direct = storage_service_pb2_grpc.StorageServiceStub(channel)

        async def executed() -> bool:
            found = rows(await run_async(direct, f"SELECT count(*) FROM {table}"))
            return found == [(UNDER_WAY,)]

        await eventually(executed)
    assert not calling.done()
    # The stream has a hole by now, so the proxy cuts it.
    await platform.proxy.forward()
    results = (await calling).results
    assert [one.replayed for one in results] == [True] * UNDER_WAY
    found = rows(await run_async(platform.stub, f"SELECT n FROM {table}"))
    assert found == [(n,) for n in range(UNDER_WAY)]


# One database alone.


async def test_a_database_that_cannot_be_opened_leaves_the_others_alone(tmp_path: Path) -> None:
    broken = tmp_path / "metrics_db.db"
    broken.mkdir()
    async with platform_at(tmp_path) as platform:
        with refused("UNAVAILABLE", "CIRCUIT_OPEN"):
            await run_async(platform.stub, "SELECT 1", service="metrics")
        names = [OWN, "metrics_db"] * 10
        batch = ExecuteBatchRequest(
            source_service="character",
            operations=[batch_operation("SELECT 1", database=name) for name in names],
        )
        results = (await platform.stub.ExecuteBatch(batch, timeout=CALL_SECONDS)).results
        assert [one.WhichOneof("outcome") for one in results] == ["result", "error"] * 10
        status = await platform.status("metrics_db")
        assert (status.available, status.circuit) == (False, CIRCUIT_STATE_OPEN)
        assert status.detail
        assert (await platform.status(OWN)).circuit == CIRCUIT_STATE_CLOSED
        assert await check(platform.address, "storage.metrics_db") == NOT_SERVING
        broken.rmdir()
        await wait_until_serving(platform.address, "storage.metrics_db")
        await run_async(platform.stub, "SELECT 1", service="metrics")


async def test_a_storm_of_constraint_violations_opens_nothing(
    platform: Platform, table: str
) -> None:
    await run_async(platform.stub, f"CREATE TABLE {table} (n INTEGER PRIMARY KEY)")
    await run_async(platform.stub, f"INSERT INTO {table} VALUES (1)")
    insert = f"INSERT INTO {table} VALUES (1)"
    for _ in range(3):
        calls = [run_async(platform.stub, insert) for _ in range(100)]
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert {failure.code() for failure in failures} == {grpc.StatusCode.FAILED_PRECONDITION}
    calls = [run_async(platform.stub, "SELECT nothing FROM nowhere") for _ in range(100)]
    failures = await asyncio.gather(*calls, return_exceptions=True)
    assert {failure.code() for failure in failures} == {grpc.StatusCode.INVALID_ARGUMENT}
    assert (await platform.status()).circuit == CIRCUIT_STATE_CLOSED
    assert rows(await run_async(platform.stub, f"SELECT n FROM {table}")) == [(1,)]


async def test_callers_that_give_up_open_nothing(platform: Platform) -> None:
    endless = (
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"
    )
    for _ in range(3):
        calls = [platform.stub.Execute(execute_request(endless), timeout=0.05) for _ in range(10)]
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert {failure.code() for failure in failures} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert (await platform.status()).circuit == CIRCUIT_STATE_CLOSED


async def test_a_silent_storage_server_opens_and_closes_when_it_speaks_again(
    tmp_path: Path,
) -> None:
    async with platform_at(
        tmp_path,
        storage_answer_seconds=ANSWER_SECONDS,
        circuit_failures_max=FAILURES_MAX,
        circuit_open_seconds_min=0.05,
        circuit_open_seconds_max=0.2,
    ) as platform:
        await run_async(platform.stub, "SELECT 1")
        platform.proxy.stall()
        calls = [
            platform.stub.Execute(execute_request("SELECT 1"), timeout=SILENT_CALL_SECONDS)
            for _ in range(FAILURES_MAX)
        ]
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert {failure.code() for failure in failures} == {grpc.StatusCode.DEADLINE_EXCEEDED}

        async def is_open() -> bool:
            return (await platform.status()).circuit == CIRCUIT_STATE_OPEN

        await eventually(is_open)
        # Still connected, as far as anybody can know.
        answer = await platform.operator.GetStatus(GetStatusRequest(), timeout=CALL_SECONDS)
        assert answer.status.storage_servers[0].connected
        assert (await platform.status(OTHER)).circuit == CIRCUIT_STATE_CLOSED
        await platform.proxy.forward()
        await platform.closes()
        await run_async(platform.stub, "SELECT 1")


async def test_half_open_admits_exactly_the_configured_number(tmp_path: Path) -> None:
    async with platform_at(tmp_path, circuit_trials_max=TRIALS_MAX) as platform:
        platform.proxy.stall()
        request = OpenCircuitRequest(source_service="character", database=OWN)
        request.duration.FromMilliseconds(50)
        await platform.operator.OpenCircuit(request, timeout=CALL_SECONDS)

        async def is_half_open() -> bool:
            return (await platform.status()).circuit == CIRCUIT_STATE_HALF_OPEN

        # The hub itself makes the first trial, and waits for its answer.
        await eventually(is_half_open)
        calls = [asyncio.ensure_future(run_async(platform.stub, "SELECT 1")) for _ in range(50)]
        admitted = TRIALS_MAX - 1
        await eventually(lambda: sum(call.done() for call in calls) >= 50 - admitted)
        assert [call.done() for call in calls].count(False) == admitted
        await platform.proxy.forward()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        refusals = [end for end in ends if isinstance(end, grpc.aio.AioRpcError)]
        assert len(refusals) == 50 - admitted
        for failure in refusals:
            with refused("UNAVAILABLE", "CIRCUIT_OPEN"):
                raise failure
        await platform.closes()


# By hand.


async def test_an_operator_opens_and_closes_a_circuit(platform: Platform) -> None:
    opened = await platform.operator.OpenCircuit(
        OpenCircuitRequest(source_service="character", database=OWN, correlation_id="c"),
        timeout=CALL_SECONDS,
    )
    assert opened.correlation_id == "c"
    assert (opened.database.database, opened.database.circuit) == (OWN, CIRCUIT_STATE_OPEN)
    assert "by hand" in opened.database.detail
    assert await check(platform.address, f"storage.{OWN}") == NOT_SERVING
    assert await check(platform.address) == SERVING
    await every_call_is_refused(platform)
    await run_async(platform.stub, "SELECT 1", service="auth")
    closed = await platform.operator.CloseCircuit(
        CloseCircuitRequest(source_service="character", database=OWN, correlation_id="c"),
        timeout=CALL_SECONDS,
    )
    assert closed.correlation_id == "c"
    assert (closed.database.available, closed.database.circuit) == (True, CIRCUIT_STATE_CLOSED)
    await run_async(platform.stub, "SELECT 1")
    told = await circuit_events(platform, 2)
    assert [one.type for one in told] == ["storage.circuit_opened", "storage.circuit_closed"]


async def test_a_circuit_that_is_opened_for_a_while_closes_by_itself(platform: Platform) -> None:
    request = OpenCircuitRequest(source_service="character", database=OWN)
    request.duration.FromMilliseconds(200)
    await platform.operator.OpenCircuit(request, timeout=CALL_SECONDS)
    with refused("UNAVAILABLE", "CIRCUIT_OPEN") as refusal:
        await run_async(platform.stub, "SELECT 1")
    assert refusal.retry_seconds is not None
    assert 0 < refusal.retry_seconds <= 0.2
    await platform.closes()
    await run_async(platform.stub, "SELECT 1")


async def test_what_is_opened_by_hand_stays_open_when_the_storage_server_returns(
    platform: Platform,
) -> None:
    request = OpenCircuitRequest(source_service="character", database=OWN)
    await platform.operator.OpenCircuit(request, timeout=CALL_SECONDS)
    await platform.stop_storage()
    await wait_for_status(platform.address, f"storage.{OTHER}", NOT_SERVING)
    await platform.start_storage()
    await wait_until_serving(platform.address, f"storage.{OTHER}")
    with refused("UNAVAILABLE", "CIRCUIT_OPEN"):
        await run_async(platform.stub, "SELECT 1")
    closing = CloseCircuitRequest(source_service="character", database=OWN)
    await platform.operator.CloseCircuit(closing, timeout=CALL_SECONDS)
    await run_async(platform.stub, "SELECT 1")


@pytest.mark.parametrize("method", ["OpenCircuit", "CloseCircuit"])
@pytest.mark.parametrize(
    ("fields", "code", "reason", "field"),
    [
        ({"database": OWN}, "INVALID_ARGUMENT", "INVALID_REQUEST", "source_service"),
        ({"source_service": "character"}, "INVALID_ARGUMENT", "INVALID_REQUEST", "database"),
        ({"source_service": "nobody", "database": OWN}, "NOT_FOUND", "INVALID_ROUTE", None),
        ({"source_service": "character", "database": "x"}, "NOT_FOUND", "INVALID_ROUTE", None),
    ],
)
async def test_a_wrong_request_is_refused(
    hub_stub: Any, method: str, fields: dict[str, str], code: str, reason: str, field: str | None
) -> None:
    make = OpenCircuitRequest if method == "OpenCircuit" else CloseCircuitRequest
    with refused(code, reason) as refusal:
        await getattr(hub_stub, method)(make(**fields), timeout=CALL_SECONDS)
    assert field is None or list(refusal.fields) == [field]


@pytest.mark.parametrize("milliseconds", [0, -5])
async def test_a_while_is_longer_than_nothing(hub_stub: Any, milliseconds: int) -> None:
    request = OpenCircuitRequest(source_service="character", database=OWN)
    request.duration.FromMilliseconds(milliseconds)
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        await hub_stub.OpenCircuit(request, timeout=CALL_SECONDS)
    assert list(refusal.fields) == ["duration"]


async def test_only_who_may_write_operates_a_circuit(tmp_path: Path) -> None:
    async with platform_at(tmp_path, grants={"auth": {OWN: "read"}}) as platform:
        for service in ("auth", "metrics"):
            with refused("PERMISSION_DENIED", "ACCESS_DENIED"):
                request = OpenCircuitRequest(source_service=service, database=OWN)
                await platform.operator.OpenCircuit(request, timeout=CALL_SECONDS)
            with refused("PERMISSION_DENIED", "ACCESS_DENIED"):
                closing = CloseCircuitRequest(source_service=service, database=OWN)
                await platform.operator.CloseCircuit(closing, timeout=CALL_SECONDS)
        assert (await platform.status()).circuit == CIRCUIT_STATE_CLOSED
