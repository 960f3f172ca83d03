"""A whole hub before a storage server that answers as the test says, through generated stubs."""

import asyncio
import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from hub.config import HubConfig
from hub.server import HubServer
from messagehub.errors import ConstraintViolation, DatabaseNotEmpty, InvalidStatement
from messagehub.status import to_status
from messagehub.v1 import (
    hub_service_pb2_grpc,
    storage_service_pb2_grpc,
)
from messagehub.v1.hub_service_pb2 import (
    CIRCUIT_STATE_OPEN,
    AdoptDatabaseRequest,
    GetStatusRequest,
    WatchStatusRequest,
)
from messagehub.v1.statement_pb2 import ResultSet, Row
from messagehub.v1.storage_service_pb2 import (
    OPERATION_STATE_COMPLETED,
    OPERATION_STATE_FAILED,
    ExecuteBatchRequest,
    ExecuteRequest,
    GetOperationRequest,
    Operation,
    QueryRequest,
)
from tests.support.calls import (
    batch_operation,
    execute_request,
    query_request,
    statement,
    value,
)
from tests.support.health import NOT_SERVING, SERVING, check, wait_for_status, wait_until_serving
from tests.support.ports import free_address
from tests.support.refusals import refusal_of, refused
from tests.unit.hub.fake_storage import FakeStorage, done, running_fake, soon, states, storage

QUICK = {"reconnect_seconds_min": 0.01, "reconnect_seconds_max": 0.05}
PUBLIC_SERVICES = [
    f"messagehub.v1.{name}Service"
    for name in ("Backup", "Event", "Hub", "Schema", "Storage", "Transaction")
]
SECONDS = 20.0


@dataclass
class Scene:
    hub: HubServer
    fake: FakeStorage
    channel: grpc.aio.Channel

    @property
    def storage(self) -> Any:
        return storage_service_pb2_grpc.StorageServiceStub(self.channel)

    @property
    def hub_stub(self) -> Any:
        return hub_service_pb2_grpc.HubServiceStub(self.channel)


@asynccontextmanager
async def running_hub(storage_address: str, **settings):
    with TemporaryDirectory() as data_dir:
        given = {"listen": "127.0.0.1:0", "data_dir": data_dir} | QUICK | settings
        hub = HubServer(HubConfig(storage=storage_address, **given))
        await hub.start()
        try:
            yield hub
        finally:
            await hub.stop()


@asynccontextmanager
async def scene(**settings):
    async with (
        running_fake() as (fake, address),
        running_hub(address, **settings) as hub,
        grpc.aio.insecure_channel(hub.address) as channel,
    ):
        await wait_until_serving(hub.address)
        yield Scene(hub, fake, channel)


# Execute, ExecuteBatch, Query.


async def test_execute_carries_the_envelope_there_and_back():
    async with scene() as s:
        calling = asyncio.ensure_future(
            s.storage.Execute(
                execute_request(
                    "SELECT ?",
                    1,
                    database="auth_db",
                    correlation_id="follow-me",
                    request_id="6B29FC40CA471067B31D00DD010662DA",
                ),
                timeout=SECONDS,
            )
        )
        (sent,) = await s.fake.next_operations()
        assert (sent.database, sent.source_service) == ("auth_db", "character")
        assert sent.correlation_id == "follow-me"
        assert sent.request_id == "6b29fc40-ca47-1067-b31d-00dd010662da"
        assert sent.statement == statement("SELECT ?", 1)
        # gRPC rounds a timeout on its way.
        assert 0 < sent.timeout_ms <= SECONDS * 1000 * 1.1
        s.fake.answer(done(sent, schema_version="1.2.0", replayed=True), frames_taken=1)
        answer = await soon(calling)
        assert (answer.correlation_id, answer.database) == ("follow-me", "auth_db")
        assert (answer.sequence, answer.schema_version, answer.replayed) == (3, "1.2.0", True)
        assert answer.result == ResultSet(rows_affected=1)


async def test_what_is_left_empty_is_generated():
    async with scene(default_timeout_seconds=7) as s:
        calling = asyncio.ensure_future(s.storage.Execute(execute_request("X")))
        (sent,) = await s.fake.next_operations()
        assert sent.database == "character_db"
        assert sent.correlation_id
        assert len(sent.request_id) == 36
        assert 0 < sent.timeout_ms <= 7000
        s.fake.answer(done(sent), frames_taken=1)
        assert (await soon(calling)).correlation_id == sent.correlation_id


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        (ExecuteRequest(source_service="auth"), "INVALID_ARGUMENT", "INVALID_REQUEST", 0),
        (execute_request("X", service=""), "INVALID_ARGUMENT", "INVALID_REQUEST", 1),
        (execute_request("X", service="ghost"), "NOT_FOUND", "INVALID_ROUTE", 1),
        (execute_request("X", database="ghost"), "NOT_FOUND", "INVALID_ROUTE", 2),
        (execute_request("X", request_id="7"), "INVALID_ARGUMENT", "INVALID_REQUEST", 3),
        (execute_request("X", schema_version="?"), "INVALID_ARGUMENT", "INVALID_REQUEST", 4),
        (execute_request("X", transaction_id="t"), "INVALID_ARGUMENT", "INVALID_REQUEST", 5),
    ],
)
async def test_a_wrong_request_is_refused_before_anything_leaves(request_, code, reason, field):
    names = (
        "statement.query",
        "source_service",
        "database",
        "request_id",
        "schema_version",
        "transaction_id",
    )
    async with scene() as s:
        with refused(code, reason) as refusal:
            await s.storage.Execute(request_, timeout=SECONDS)
        assert list(refusal.fields) == [names[field]]
        assert s.fake.frames.empty()


async def test_grants_are_checked_on_every_operation():
    async with scene(grants={"auth": {"metrics_db": "read"}}) as s:
        with refused("PERMISSION_DENIED", "ACCESS_DENIED"):
            await s.storage.Execute(execute_request("X", database="auth_db"), timeout=SECONDS)
        reading = execute_request("X", service="auth", database="metrics_db")
        calling = asyncio.ensure_future(s.storage.Execute(reading, timeout=SECONDS))
        (sent,) = await s.fake.next_operations()
        assert sent.read_only
        s.fake.answer(done(sent), frames_taken=1)
        await soon(calling)


async def test_each_operation_of_a_batch_has_a_result_or_an_error():
    async with scene() as s:
        s.fake.echo = True
        answer = await s.storage.ExecuteBatch(
            ExecuteBatchRequest(
                source_service="character",
                correlation_id="c",
                operations=[
                    batch_operation("A"),
                    batch_operation(" ", database="auth_db"),
                    batch_operation("C", database="ghost"),
                    batch_operation("D", request_id="7"),
                    batch_operation("E", schema_version="?"),
                    batch_operation("F", database="auth_db"),
                ],
            ),
            timeout=SECONDS,
        )
        assert answer.correlation_id == "c"
        databases = [one.database for one in answer.results]
        assert databases == ["character_db", "auth_db", "ghost", "", "", "auth_db"]
        kinds = [one.WhichOneof("outcome") for one in answer.results]
        assert kinds == ["result", "error", "error", "error", "error", "result"]
        reasons = [refusal_of(answer.results[n].error).reason for n in (1, 2, 3, 4)]
        assert reasons == [
            "INVALID_REQUEST",
            "INVALID_ROUTE",
            "INVALID_REQUEST",
            "INVALID_REQUEST",
        ]
        assert answer.results[0].sequence == 3
        assert [one.statement.query for one in await s.fake.next_operations()] == ["A", "F"]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ExecuteBatchRequest(source_service="auth"), "operations"),
        (
            ExecuteBatchRequest(source_service="auth", operations=[batch_operation("X")] * 3),
            "operations",
        ),
        (ExecuteBatchRequest(operations=[batch_operation("X")]), "source_service"),
    ],
)
async def test_a_wrong_batch_fails_as_a_whole(request_, field):
    async with scene(batch_operations_max=2) as s:
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
            await s.storage.ExecuteBatch(request_, timeout=SECONDS)
        assert list(refusal.fields) == [field]


async def test_the_rows_of_a_batch_are_bounded_together():
    async with scene(message_bytes_max=10_000) as s:
        request = ExecuteBatchRequest(
            source_service="auth", operations=[batch_operation(name) for name in "ABC"]
        )
        calling = asyncio.ensure_future(s.storage.ExecuteBatch(request, timeout=SECONDS))
        sent = await s.fake.next_operations()
        rows = [Row(values=[value("x" * 6000)])]
        for one, result in zip(sent, [rows, rows, []], strict=True):
            s.fake.answer(storage.Outcome(number=one.number, result=ResultSet(rows=result)))
        answer = await soon(calling)
        kinds = [one.WhichOneof("outcome") for one in answer.results]
        assert kinds == ["result", "error", "result"]
        refusal = refusal_of(answer.results[1].error)
        assert refusal.reason == "RESULT_TOO_LARGE"
        assert "succeeded" in refusal.message


def page(*texts: str) -> storage.QueryResponse:
    rows = [Row(values=[value(text)]) for text in texts]
    return storage.QueryResponse(sequence=4, schema_version="2.0.0", result=ResultSet(rows=rows))


async def test_query_passes_pages_through():
    async with scene() as s:
        s.fake.pages = [page("a", "b"), page("c")]
        request = query_request("SELECT", correlation_id="c", page_size=2, database="auth_db")
        pages = [one async for one in s.storage.Query(request, timeout=SECONDS)]
        assert [one.result for one in pages] == [one.result for one in s.fake.pages]
        for one in pages:
            assert (one.correlation_id, one.database) == ("c", "auth_db")
            assert (one.sequence, one.schema_version, one.replayed) == (4, "2.0.0", False)
        (asked,) = s.fake.queries
        assert (asked.database, asked.source_service, asked.page_size) == (
            "auth_db",
            "character",
            2,
        )
        assert asked.correlation_id == "c"
        assert asked.statement == request.statement


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_size": 1001}, "page_size"),
        ({"request_id": "7"}, "request_id"),
        ({"service": ""}, "source_service"),
    ],
)
async def test_a_wrong_query_is_refused(fields, field):
    async with scene() as s:
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
            await s.storage.Query(query_request("SELECT", **fields), timeout=SECONDS).read()
        assert list(refusal.fields) == [field]
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
            await s.storage.Query(QueryRequest(source_service="auth"), timeout=SECONDS).read()
        assert not s.fake.queries


async def test_a_failed_query_ends_with_the_storage_servers_error():
    async with scene() as s:
        s.fake.query_failure = InvalidStatement("near X", fields={"statement": "near X"})
        with refused("INVALID_ARGUMENT", "INVALID_STATEMENT") as refusal:
            await s.storage.Query(query_request("X"), timeout=SECONDS).read()
        assert refusal.fields == {"statement": "near X"}
        assert refusal.message == "near X"


async def test_a_query_holds_still_while_its_caller_does_not_read_and_ends_when_it_leaves():
    async with scene() as s:
        s.fake.pages = [page("x" * 100_000)]
        s.fake.endless_query = True
        call = s.storage.Query(query_request("SELECT"), timeout=SECONDS)
        await call.read()

        async def settled():
            seen = -1
            while seen != s.fake.pages_sent:
                seen = s.fake.pages_sent
                await asyncio.sleep(0.05)

        await soon(settled())
        # What fits into the windows of the two connections, not what the query would give.
        assert s.fake.pages_sent < 500
        assert not s.fake.query_ended.is_set()
        call.cancel()
        await soon(s.fake.query_ended.wait())


async def test_a_call_that_is_over_in_time_withdraws_its_operation():
    async with scene() as s:
        calling = asyncio.ensure_future(s.storage.Execute(execute_request("X"), timeout=SECONDS))
        (sent,) = await s.fake.next_operations()
        calling.cancel()
        frame = await soon(s.fake.frames.get())
        assert list(frame.cancelled) == [sent.number]


async def test_a_call_without_a_deadline_has_the_default_one():
    async with scene(default_timeout_seconds=0.2) as s:
        with refused("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"):
            await s.storage.Execute(execute_request("X"))


# GetOperation.

WRITE_ID = "6b29fc40-ca47-1067-b31d-00dd010662da"


def recorded(outcome: storage.Outcome) -> storage.LookUpOperationResponse:
    record = storage.JournalRecord(
        source_service="auth", correlation_id="then", time_us=1_700_000_000_250_000
    )
    return storage.LookUpOperationResponse(found=True, record=record, outcome=outcome)


async def look_up(s: Scene, **fields: str) -> Operation:
    request = GetOperationRequest(correlation_id="now", **fields)
    answer = await s.storage.GetOperation(request, timeout=SECONDS)
    assert answer.correlation_id == "now"
    return answer.operation


async def test_a_committed_write_can_be_asked_for():
    async with scene() as s:
        s.fake.recorded[WRITE_ID] = recorded(
            storage.Outcome(sequence=9, result=ResultSet(rows_affected=2))
        )
        operation = await look_up(
            s, source_service="auth", database="metrics_db", request_id=WRITE_ID.upper()
        )
        (asked,) = s.fake.look_ups
        assert (asked.database, asked.correlation_id) == ("metrics_db", "now")
        assert (operation.request_id, operation.database) == (WRITE_ID, "metrics_db")
        assert (operation.source_service, operation.correlation_id) == ("auth", "then")
        assert (operation.state, operation.sequence) == (OPERATION_STATE_COMPLETED, 9)
        assert operation.result == ResultSet(rows_affected=2)
        assert not operation.HasField("error")
        assert operation.create_time.ToMilliseconds() == 1_700_000_000_250
        assert operation.update_time == operation.create_time


async def test_a_refused_write_can_be_asked_for():
    async with scene() as s:
        error = to_status(ConstraintViolation("taken", metadata={"constraint": "UNIQUE"}))
        s.fake.recorded[WRITE_ID] = recorded(storage.Outcome(sequence=9, error=error))
        operation = await look_up(s, source_service="auth", request_id=WRITE_ID)
        assert operation.state == OPERATION_STATE_FAILED
        assert refusal_of(operation.error).reason == "CONSTRAINT_VIOLATION"
        assert not operation.HasField("result")


async def test_a_write_that_is_not_recorded_is_not_found():
    async with scene() as s:
        with refused("NOT_FOUND", "OPERATION_NOT_FOUND") as refusal:
            await look_up(s, source_service="auth", request_id=WRITE_ID)
        assert WRITE_ID in refusal.message


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"source_service": "auth"}, "request_id"),
        ({"source_service": "auth", "request_id": "7"}, "request_id"),
        ({"request_id": WRITE_ID}, "source_service"),
    ],
)
async def test_a_wrong_question_is_refused(fields, field):
    async with scene() as s:
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
            await look_up(s, **fields)
        assert list(refusal.fields) == [field]


# The connection.


async def test_without_a_storage_server_the_hub_answers_at_once_and_is_not_ready():
    async with running_hub(free_address()) as hub:
        async with grpc.aio.insecure_channel(hub.address) as channel:
            stub = storage_service_pb2_grpc.StorageServiceStub(channel)
            hub_stub = hub_service_pb2_grpc.HubServiceStub(channel)
            with refused("UNAVAILABLE", "STORAGE_UNAVAILABLE") as refusal:
                await stub.Execute(execute_request("X"), timeout=SECONDS)
            assert refusal.retry_seconds == pytest.approx(0.05)
            with refused("UNAVAILABLE", "STORAGE_UNAVAILABLE") as refusal:
                await stub.Query(query_request("X"), timeout=SECONDS).read()
            assert refusal.retry_seconds == pytest.approx(0.05)
            with refused("UNAVAILABLE", "STORAGE_UNAVAILABLE"):
                await stub.GetOperation(
                    GetOperationRequest(source_service="auth", request_id=WRITE_ID)
                )
            with refused("UNAVAILABLE", "STORAGE_UNAVAILABLE"):
                await hub_stub.AdoptDatabase(pieces(b"x"))
            status = (await hub_stub.GetStatus(GetStatusRequest())).status
            assert not status.ready
            assert not status.storage_servers[0].connected
        assert await check(hub.address) == NOT_SERVING
        assert await check(hub.address, "liveness") == SERVING
        assert await check(hub.address, "messagehub.v1.StorageService") == NOT_SERVING
        assert await check(hub.address, "storage.auth_db") == NOT_SERVING


async def test_the_hub_finds_a_storage_server_that_comes_goes_and_returns():
    address = free_address()
    async with running_hub(address) as hub, grpc.aio.insecure_channel(hub.address) as channel:
        stub = storage_service_pb2_grpc.StorageServiceStub(channel)
        for _ in range(3):
            async with running_fake(address) as (fake, _):
                fake.echo = True
                await wait_until_serving(hub.address)
                await stub.Execute(execute_request("X"), timeout=SECONDS)
            await wait_for_status(hub.address, "", NOT_SERVING)
            with refused("UNAVAILABLE", "CIRCUIT_OPEN") as refusal:
                await stub.Execute(execute_request("X"), timeout=SECONDS)
            assert refusal.retry_seconds == pytest.approx(0.05)


async def test_an_operation_under_way_when_the_connection_breaks_is_sent_again():
    async with scene(drain_seconds=0.1) as s:
        calling = asyncio.ensure_future(s.storage.Execute(execute_request("X"), timeout=SECONDS))
        (first,) = await s.fake.next_operations()
        s.fake.end_exchange()
        # Between them the hub tells of the circuit that opened and closed.
        sent = []
        while not (again := [one for one in sent if one.HasField("statement")]):
            sent = await s.fake.next_operations()
        assert again[0].request_id == first.request_id
        assert again[0].statement == first.statement
        s.fake.answer(done(again[0], replayed=True), frames_taken=1)
        assert (await soon(calling)).replayed


async def test_an_operation_that_is_not_sent_again_has_an_unknown_outcome():
    async with scene(retry_attempts_max=1, drain_seconds=0.1) as s:
        calling = asyncio.ensure_future(s.storage.Execute(execute_request("X"), timeout=SECONDS))
        (sent,) = await s.fake.next_operations()
        s.fake.end_exchange()
        with refused("UNAVAILABLE", "STORAGE_UNAVAILABLE") as refusal:
            await soon(calling)
        assert refusal.metadata == {"request_id": sent.request_id}
        assert refusal.retry_seconds is not None
        await wait_until_serving(s.hub.address)
        assert (len(s.fake.watches), s.fake.exchanges) == (2, 2)


async def test_a_query_whose_connection_breaks_is_unavailable_and_may_be_called_again():
    address = free_address()
    async with running_hub(address) as hub, grpc.aio.insecure_channel(hub.address) as channel:
        async with running_fake(address) as (fake, _):
            await wait_until_serving(hub.address)
            fake.pages = [page("x")]
            fake.endless_query = True
            stub = storage_service_pb2_grpc.StorageServiceStub(channel)
            call = stub.Query(query_request("SELECT"), timeout=SECONDS)
            await call.read()
        with refused("UNAVAILABLE", "STORAGE_UNAVAILABLE") as refusal:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert "call again" in refusal.message
        assert refusal.retry_seconds is not None


async def test_all_configured_databases_are_asked_for():
    async with scene(services={"shop": "shop_db", "till": "shop_db", "stock": "stock_db"}) as s:
        assert list(s.fake.watches[0].databases) == ["shop_db", "stock_db"]


# Health.


async def test_health_says_what_is_built_and_what_each_database_can():
    async with scene(drain_seconds=0.1) as s:
        for name in ("", "liveness"):
            assert await check(s.hub.address, name) == SERVING, name
        for name in ("Backup", "Storage", "Transaction", "Event", "Hub", "Schema"):
            assert await check(s.hub.address, f"messagehub.v1.{name}Service") == SERVING, name
        s.fake.change(*states("auth_db", available=False))
        await wait_for_status(s.hub.address, "storage.auth_db", NOT_SERVING)
        assert await check(s.hub.address, "storage.character_db") == SERVING
        assert await check(s.hub.address) == SERVING
        s.fake.change(*states("auth_db"))
        await wait_for_status(s.hub.address, "storage.auth_db", SERVING)


async def test_reflection_lists_every_service():
    async with scene() as s:
        stub = reflection_pb2_grpc.ServerReflectionStub(s.channel)
        call = stub.ServerReflectionInfo(timeout=SECONDS)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await call.read()
        await call.done_writing()
        names = [one.name for one in answer.list_services_response.service]
        assert set(PUBLIC_SERVICES) | {"grpc.health.v1.Health"} <= set(names)


# Status.


async def test_the_status_tells_routes_servers_and_databases():
    async with scene() as s:
        answer = await s.hub_stub.GetStatus(GetStatusRequest(correlation_id="c"))
        status = answer.status
        assert answer.correlation_id == "c"
        assert status.ready
        assert status.open_access
        assert status.version
        assert status.start_time.seconds > 0
        routes = {one.service: one.database for one in status.routes}
        assert routes["character"] == "character_db"
        (server,) = status.storage_servers
        assert (server.connected, server.version, server.engine) == (True, "9.9", "fake 1")
        assert [one.database for one in status.databases] == sorted(routes.values())
        for database in status.databases:
            assert database.available
            assert database.storage_server == server.address
            assert (database.sequence, database.schema_version) == (7, "1.2.0")


async def test_with_grants_access_is_not_open():
    async with scene(grants={}) as s:
        assert not (await s.hub_stub.GetStatus(GetStatusRequest())).status.open_access


async def test_watch_status_gives_a_snapshot_and_then_changes():
    async with scene() as s:
        call = s.hub_stub.WatchStatus(WatchStatusRequest(correlation_id="c"), timeout=SECONDS)
        first = await call.read()
        assert first.correlation_id == "c"
        assert first.snapshot.ready
        s.fake.change(*states("auth_db", available=False))
        second = await call.read()
        assert second.correlation_id == "c"
        assert second.database.database == "auth_db"
        assert second.database.detail == "cannot be opened"
        third = await call.read()
        assert third.database.circuit == CIRCUIT_STATE_OPEN
        s.fake.end_watch()
        fourth = await call.read()
        assert fourth.HasField("storage_server")
        assert not fourth.storage_server.connected
        call.cancel()


# Adoption.

CONTENT = b"SQLite format 3\0" * 10
HEADER = {
    "source_service": "catalog",
    "size_bytes": len(CONTENT),
    "checksum": hashlib.sha256(CONTENT).hexdigest(),
}


def pieces(*chunks: bytes, **header):
    yield AdoptDatabaseRequest(**HEADER | header, chunk=chunks[0])
    for chunk in chunks[1:]:
        yield AdoptDatabaseRequest(chunk=chunk)


async def test_a_file_streams_through():
    async with scene() as s:
        answer = await s.hub_stub.AdoptDatabase(
            pieces(b"", CONTENT[:50], CONTENT[50:], correlation_id="c"), timeout=SECONDS
        )
        assert (answer.correlation_id, answer.database) == ("c", "catalog_db")
        assert list(answer.tables) == ["heroes", "monsters"]
        first = s.fake.adopted[0]
        assert (first.database, first.correlation_id) == ("catalog_db", "c")
        assert (first.size_bytes, first.checksum) == (HEADER["size_bytes"], HEADER["checksum"])
        assert b"".join(piece.chunk for piece in s.fake.adopted) == CONTENT


async def test_a_refused_file_ends_with_the_storage_servers_error():
    async with scene() as s:
        s.fake.adoption_failure = DatabaseNotEmpty("it holds tables")
        many = pieces(*[b"x" * 100_000] * 20)
        with refused("FAILED_PRECONDITION", "DATABASE_NOT_EMPTY"):
            await s.hub_stub.AdoptDatabase(many, timeout=SECONDS)


async def test_a_file_whose_way_breaks_is_unavailable():
    address = free_address()
    async with running_hub(address) as hub, grpc.aio.insecure_channel(hub.address) as channel:
        async with running_fake(address) as (fake, _):
            await wait_until_serving(hub.address)
            call = hub_service_pb2_grpc.HubServiceStub(channel).AdoptDatabase(timeout=SECONDS)
            for piece in pieces(*[b"x" * 100_000] * 20):
                await call.write(piece)
            await soon(fake.piece_came.wait())
        await call.done_writing()
        with refused("UNAVAILABLE", "STORAGE_UNAVAILABLE") as refusal:
            await call
        assert refusal.retry_seconds is not None


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], None),
        ([AdoptDatabaseRequest(source_service="auth")], "size_bytes"),
        (list(pieces(b"x", checksum="?")), "checksum"),
        (list(pieces(b"x", source_service="")), "source_service"),
        (list(pieces(b"x", b"x" * 101)), "chunk"),
    ],
)
async def test_a_wrong_file_is_refused(messages, field):
    async with scene(adopt_chunk_bytes_max=100) as s:
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
            await s.hub_stub.AdoptDatabase(iter(messages), timeout=SECONDS)
        assert list(refusal.fields) == ([field] if field else [])


async def test_an_adoption_needs_a_grant_to_write():
    async with scene(grants={"catalog": {"auth_db": "read"}}) as s:
        with refused("PERMISSION_DENIED", "ACCESS_DENIED"):
            await s.hub_stub.AdoptDatabase(pieces(b"x", database="auth_db"), timeout=SECONDS)
        assert not s.fake.adopted


# The end.


async def test_stopping_ends_watches_and_lets_calls_finish():
    async with (
        running_fake() as (fake, address),
        running_hub(address, drain_seconds=SECONDS) as hub,
        grpc.aio.insecure_channel(hub.address) as channel,
    ):
        await wait_until_serving(hub.address)
        stub = storage_service_pb2_grpc.StorageServiceStub(channel)
        watching = hub_service_pb2_grpc.HubServiceStub(channel).WatchStatus(WatchStatusRequest())
        probing = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).snapshot.ready
        assert (await probing.read()).status == SERVING
        calling = asyncio.ensure_future(stub.Execute(execute_request("X"), timeout=SECONDS))
        (sent,) = await fake.next_operations()
        stopping = asyncio.create_task(hub.stop())
        assert not (await soon(watching.read())).snapshot.ready
        assert (await soon(probing.read())).status == NOT_SERVING
        for stream in (watching, probing):
            assert await soon(stream.read()) is grpc.aio.EOF
        assert not stopping.done()
        fake.answer(done(sent), frames_taken=1)
        assert (await soon(calling)).sequence == 3
        await soon(stopping)


async def test_what_does_not_finish_in_the_drain_time_is_cancelled():
    async with (
        running_fake() as (fake, address),
        running_hub(address, drain_seconds=0.1) as hub,
        grpc.aio.insecure_channel(hub.address) as channel,
    ):
        await wait_until_serving(hub.address)
        stub = storage_service_pb2_grpc.StorageServiceStub(channel)
        calling = asyncio.ensure_future(stub.Execute(execute_request("X"), timeout=1000))
        await fake.next_operations()
        await soon(hub.stop())
        with pytest.raises(grpc.aio.AioRpcError):
            await soon(calling)


async def test_an_address_in_use_is_a_clear_error():
    async with running_hub(free_address()) as hub:
        second = HubServer(HubConfig(listen=hub.address))
        with pytest.raises(OSError, match=f"cannot listen on {hub.address}"):
            await second.start()


async def test_a_hub_stops_while_it_tries_to_connect():
    async with running_hub(free_address()):
        await asyncio.sleep(0)
