"""`Subscribe`: what is told of, to whom, and how."""

import uuid
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from messagehub.v1.event_service_pb2 import SubscribeRequest
from messagehub.v1.storage_service_pb2 import ExecuteBatchRequest
from tests.support.calls import (
    CALL_SECONDS,
    SERVICE,
    batch_operation,
    execute_request,
    query_request,
    run_async,
)
from tests.support.event_stream import (
    COMPLETED,
    FAILED,
    SECONDS_MAX,
    assert_in_order,
    fail,
    ids,
    live,
    subscribed,
    write,
)
from tests.support.refusals import refusal_of, refused


@pytest.fixture(scope="module")
def hub_settings() -> dict[str, Any]:
    return {"heartbeat_seconds": 0.2}


async def test_a_write_is_told_of_with_all_that_is_known(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    async with live(event_stub) as reader:
        await write(storage_stub, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, n)")
        request_id = str(uuid.uuid4())
        query = f"INSERT INTO {table} (n) VALUES (?), (?)"
        request = execute_request(
            query,
            1,
            2,
            request_id=request_id,
            correlation_id="trace ✓",
            service="auth",
            database="character_db",
        )
        before = datetime.now(UTC)
        answer = await storage_stub.Execute(request, timeout=CALL_SECONDS)
        event = (await reader.until(request_id))[-1]
    assert event.type == COMPLETED
    assert event.source == "auth"
    assert event.subject == "character_db"
    assert event.correlation_id == "trace ✓"
    assert event.transaction_id == ""
    assert event.sequence == answer.sequence
    assert event.id.startswith("character_db/")
    assert event.id.endswith(f"/{event.sequence}")
    assert event.data_content_type == "application/protobuf"
    assert abs((event.time.ToDatetime(UTC) - before).total_seconds()) < SECONDS_MAX
    completed = event.operation_completed
    assert completed.request_id == request_id
    assert completed.query == query
    assert (completed.rows_affected, completed.last_insert_id) == (2, 2)
    assert not completed.HasField("result")


async def test_a_write_that_fails_is_told_of_with_the_reason(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    await write(storage_stub, f"CREATE TABLE {table} (n INTEGER PRIMARY KEY)")
    await write(storage_stub, f"INSERT INTO {table} VALUES (1)")
    async with live(event_stub) as reader:
        insert = f"INSERT INTO {table} VALUES (1)"
        request_id = await fail(storage_stub, insert, correlation_id="c")
        event = (await reader.until(request_id))[-1]
    assert (event.type, event.correlation_id, event.source) == (FAILED, "c", SERVICE)
    failed = event.operation_failed
    assert (failed.request_id, failed.query) == (request_id, insert)
    refusal = refusal_of(status_pb2.Status.FromString(failed.error.SerializeToString()))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION")
    assert refusal.metadata["constraint"] == "primary_key"


async def test_reads_and_repetitions_leave_no_event(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    async with live(event_stub) as reader:
        created = await write(storage_stub, f"CREATE TABLE {table} (n)")
        await run_async(storage_stub, f"SELECT * FROM {table}", request_id=str(uuid.uuid4()))
        for query in ("SELECT * FROM nowhere", "SELEC 1", "SELECT * FROM _messagehub_journal"):
            call = storage_stub.Query(query_request(query), timeout=CALL_SECONDS)
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
        for query in ("SELECT * FROM nowhere", "SELECT ?", "VALUES (nothing)"):
            await fail(storage_stub, query)
        await run_async(storage_stub, f"CREATE TABLE {table} (n)", request_id=created)
        last = await write(storage_stub, f"INSERT INTO {table} VALUES (1)")
        events = await reader.until(created, last)
    assert ids(events) == [created, last]


async def test_a_failing_read_behind_with_leaves_no_event(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    async with live(event_stub) as reader:
        await fail(storage_stub, "WITH one AS (SELECT 1) SELECT nothing FROM one")
        await fail(storage_stub, "WITH one AS (SELECT 1) SELECT * FROM nowhere")
        last = await write(storage_stub, f"CREATE TABLE {table} (n)")
        events = await reader.until(last)
    assert ids(events) == [last]


async def test_the_operations_of_a_batch_are_told_of_one_by_one(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    wanted = [str(uuid.uuid4()) for _ in range(4)]
    queries = (
        f"CREATE TABLE {table} (n INTEGER PRIMARY KEY)",
        f"INSERT INTO {table} VALUES (1)",
        f"INSERT INTO {table} VALUES (1)",
        f"DELETE FROM {table}",
    )
    operations = [
        batch_operation(query, request_id=request_id)
        for query, request_id in zip(queries, wanted, strict=True)
    ]
    async with live(event_stub) as reader:
        request = ExecuteBatchRequest(source_service=SERVICE, operations=operations)
        await storage_stub.ExecuteBatch(request, timeout=CALL_SECONDS)
        events = await reader.until(*wanted)
    assert ids(events) == wanted
    assert [event.type for event in events] == [COMPLETED, COMPLETED, FAILED, COMPLETED]
    assert_in_order(events)


async def test_all_databases_in_one_stream(storage_stub: Any, event_stub: Any, table: str) -> None:
    services = ("auth", "campaign", "character")
    async with live(event_stub, databases=["*"]) as everything:
        databases = ["auth_db", "campaign_db"]
        async with live(event_stub, databases=databases) as some:
            wanted = {
                service: await write(storage_stub, f"CREATE TABLE {table} (n)", service=service)
                for service in services
            }
            await everything.until(*wanted.values())
            await some.until(wanted["auth"], wanted["campaign"])
    assert sorted(ids(everything.events)) == sorted(wanted.values())
    assert sorted(event.subject for event in some.events) == databases
    # One cursor stands for all of them.
    later = await write(storage_stub, f"DROP TABLE {table}", service="campaign")
    async with subscribed(event_stub, databases=["*"], cursor=everything.cursor) as reader:
        assert ids(await reader.until(later)) == [later]


async def test_filters_hold_back_what_does_not_match(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    create, drop = f"CREATE TABLE {table} (n)", f"DROP TABLE {table}"
    filters: dict[str, dict[str, Any]] = {
        "failed": {"event_types": ["*.operation_failed"]},
        "completed": {"event_types": [COMPLETED, "nothing.*"]},
        "source": {"sources": ["auth", "metrics"]},
        "correlation": {"correlation_id": "mine"},
        "both": {"sources": ["auth"], "event_types": ["storage.*"]},
        "all": {},
    }
    end = f"CREATE TABLE {table}_end (n)"
    got: dict[str, list[str]] = {}
    async with live(event_stub) as start:
        cursor = start.cursor
    created = await write(storage_stub, create, correlation_id="mine")
    failed = await fail(storage_stub, create)
    dropped = await write(storage_stub, drop, service="auth", database="character_db")
    ended = await write(
        storage_stub, end, correlation_id="mine", service="auth", database="character_db"
    )
    broken = await fail(storage_stub, end, service="auth", database="character_db")
    last = {"failed": broken, "source": broken, "both": broken, "all": broken}
    for name, wanted in filters.items():
        async with subscribed(event_stub, cursor=cursor, **wanted) as reader:
            got[name] = ids(await reader.until(last.get(name, ended)))
    assert got == {
        "failed": [failed, broken],
        "completed": [created, dropped, ended],
        "source": [dropped, ended, broken],
        "correlation": [created, ended],
        "both": [dropped, ended, broken],
        "all": [created, failed, dropped, ended, broken],
    }


async def test_many_slow_subscribers_take_nobodys_place(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    """Twenty streams that are never read hold up neither queries nor writes nor each other."""
    await write(storage_stub, f"CREATE TABLE {table} (n)")
    request = SubscribeRequest(source_service=SERVICE, earliest=True)
    calls = [event_stub.Subscribe(request) for _ in range(20)]
    try:
        for call in calls:
            await call.read()
        operations = [batch_operation(f"INSERT INTO {table} VALUES (?)", "x" * 1000)] * 500
        batch = ExecuteBatchRequest(source_service=SERVICE, operations=operations)
        await storage_stub.ExecuteBatch(batch, timeout=CALL_SECONDS)
        last = await write(storage_stub, f"INSERT INTO {table} VALUES (0)")
        async with subscribed(event_stub, earliest=True) as reader:
            await reader.until(last)
        call = storage_stub.Query(query_request(f"SELECT count(*) FROM {table}"), timeout=10)
        assert (await call.read()).result.rows[0].values[0].integer == 501
    finally:
        for call in calls:
            call.cancel()


@pytest.mark.parametrize(
    ("fields", "code", "reason", "field"),
    [
        ({"source_service": ""}, "INVALID_ARGUMENT", "INVALID_REQUEST", "source_service"),
        ({"source_service": "nobody"}, "NOT_FOUND", "INVALID_ROUTE", "source_service"),
        ({"databases": ["x"]}, "NOT_FOUND", "INVALID_ROUTE", "databases[0]"),
        ({"cursor": "nonsense"}, "INVALID_ARGUMENT", "INVALID_CURSOR", "cursor"),
        ({"cursor": "✓"}, "INVALID_ARGUMENT", "INVALID_CURSOR", "cursor"),
        ({"cursor": ""}, "INVALID_ARGUMENT", "INVALID_CURSOR", "cursor"),
        ({"subscription": "Mine"}, "INVALID_ARGUMENT", "INVALID_REQUEST", "subscription"),
        ({"subscription": "a" * 64}, "INVALID_ARGUMENT", "INVALID_REQUEST", "subscription"),
        ({"consumer": "me"}, "INVALID_ARGUMENT", "INVALID_REQUEST", "consumer"),
        (
            {"subscription": "mine", "consumer": "a\n"},
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
            "consumer",
        ),
    ],
)
async def test_a_subscription_that_cannot_be_is_refused(
    event_stub: Any, fields: dict[str, Any], code: str, reason: str, field: str
) -> None:
    async with subscribed(event_stub, **fields) as reader:
        with refused(code, reason) as refusal:
            await reader.message()
    assert list(refusal.fields) == [field]
