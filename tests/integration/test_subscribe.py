"""`Subscribe`: what was committed, live, in order, and without a gap from a cursor on."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from messagehub.v1 import event_service_pb2_grpc, storage_service_pb2_grpc
from messagehub.v1.event_pb2 import Event
from messagehub.v1.event_service_pb2 import SubscribeRequest, SubscribeResponse
from messagehub.v1.storage_service_pb2 import ExecuteBatchRequest
from tests.support.calls import (
    CALL_SECONDS,
    SERVICE,
    batch_operation,
    execute_request,
    query_request,
    run_async,
)
from tests.support.refusals import refusal_of, refused
from tests.support.servers import Servers, running_hub, running_servers

COMPLETED = "storage.operation_completed"
FAILED = "storage.operation_failed"
SECONDS_MAX = 20


@pytest.fixture(scope="module")
def hub_settings() -> dict[str, Any]:
    return {"heartbeat_seconds": 0.2}


class Reader:
    """One open stream and what it has brought."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.events: list[Event] = []
        self.cursor = ""

    async def message(self) -> SubscribeResponse:
        async with asyncio.timeout(SECONDS_MAX):
            answer = await self._call.read()
        assert answer is not grpc.aio.EOF, "the stream ended"
        assert answer.cursor
        self.cursor = answer.cursor
        self.events += answer.events
        return answer

    async def until(self, *request_ids: str) -> list[Event]:
        """Reads until these operations were told of."""
        while not set(request_ids) <= {request_id_of(event) for event in self.events}:
            await self.message()
        return self.events

    async def code(self) -> grpc.StatusCode:
        async with asyncio.timeout(SECONDS_MAX):
            return await self._call.code()


def request_id_of(event: Event) -> str:
    return getattr(event, event.WhichOneof("data")).request_id


@asynccontextmanager
async def subscribed(stub: Any, **fields: Any) -> AsyncIterator[Reader]:
    call = stub.Subscribe(SubscribeRequest(**{"source_service": SERVICE} | fields))
    try:
        yield Reader(call)
    finally:
        call.cancel()


@asynccontextmanager
async def live(stub: Any, **fields: Any) -> AsyncIterator[Reader]:
    """A stream whose first message, which says where it begins, was read."""
    async with subscribed(stub, **fields) as reader:
        first = await reader.message()
        assert not first.events
        yield reader


async def write(stub: Any, query: str, *parameters: Any, **envelope: Any) -> str:
    """Executes and gives the request id."""
    request_id = str(uuid.uuid4())
    await run_async(stub, query, *parameters, request_id=request_id, **envelope)
    return request_id


async def fail(stub: Any, query: str, **envelope: Any) -> str:
    request_id = str(uuid.uuid4())
    with pytest.raises(grpc.aio.AioRpcError):
        await run_async(stub, query, request_id=request_id, **envelope)
    return request_id


def ids(events: Iterable[Event]) -> list[str]:
    return [request_id_of(event) for event in events]


def assert_in_order(events: list[Event]) -> None:
    """Growing sequences and no event twice."""
    sequences = [event.sequence for event in events]
    assert sequences == sorted(set(sequences))
    assert len({event.id for event in events}) == len(events)


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


async def test_a_cursor_continues_right_after_its_events(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    await write(storage_stub, f"CREATE TABLE {table} (n)")
    insert = f"INSERT INTO {table} VALUES (?)"
    async with live(event_stub) as reader:
        first = [await write(storage_stub, insert, n) for n in range(5)]
        before = list(await reader.until(*first))
        cursor = reader.cursor
    missed = [await write(storage_stub, insert, n) for n in range(5)]
    for _ in range(2):  # a cursor may be used again
        async with subscribed(event_stub, cursor=cursor) as reader:
            after = list(await reader.until(*missed))
            later = await write(storage_stub, insert, 0)
            assert ids(await reader.until(later))[len(after) :] == [later]
        assert ids(after)[: len(missed)] == missed
        assert_in_order([*before, *after])


async def test_nothing_is_missing_whenever_a_stream_breaks(
    servers: Servers, storage_stub: Any, table: str
) -> None:
    """A reader that reconnects all the time, while writers write, on connections of its own."""
    await write(storage_stub, f"CREATE TABLE {table} (n INTEGER PRIMARY KEY)")
    written: list[str] = []
    done = asyncio.Event()

    async def keep_writing(start: int) -> None:
        insert = f"INSERT INTO {table} VALUES (?)"
        written.extend([await write(storage_stub, insert, n) for n in range(start, start + 150)])

    async def read_messages(cursor: str, count: int) -> tuple[list[Event], str]:
        async with grpc.aio.insecure_channel(servers.hub.address) as channel:
            stub = event_service_pb2_grpc.EventServiceStub(channel)
            start = {"cursor": cursor} if cursor else {}
            async with subscribed(stub, **start) as reader:
                for _ in range(count):
                    await reader.message()
                return reader.events, reader.cursor

    events, cursor = await read_messages("", 1)
    assert events == []
    writers = asyncio.gather(*(keep_writing(start) for start in (0, 1000, 2000)))
    writers.add_done_callback(lambda _: done.set())
    seen: list[Event] = []
    while not done.is_set() or len(seen) < len(written):
        found, cursor = await read_messages(cursor, 1 + len(seen) % 3)
        seen += found
    await writers
    assert sorted(ids(seen)) == sorted(written)
    assert_in_order(seen)


async def test_a_cursor_outlives_the_hub(
    servers: Servers, storage_stub: Any, event_stub: Any, table: str
) -> None:
    """The hub keeps no truth: any hub continues where another one ended."""
    async with live(event_stub) as reader:
        created = await write(storage_stub, f"CREATE TABLE {table} (n)")
        await reader.until(created)
        cursor = reader.cursor
    async with (
        running_hub(servers.storage.address) as hub,
        grpc.aio.insecure_channel(hub.address) as channel,
    ):
        other = storage_service_pb2_grpc.StorageServiceStub(channel)
        events = event_service_pb2_grpc.EventServiceStub(channel)
        inserted = await write(other, f"INSERT INTO {table} VALUES (1)")
        async with subscribed(events, cursor=cursor) as reader:
            assert ids(await reader.until(inserted)) == [inserted]
            # What one hub writes, the subscribers of every hub see.
            through_the_first = await write(storage_stub, f"INSERT INTO {table} VALUES (2)")
            found = await reader.until(through_the_first)
            assert ids(found) == [inserted, through_the_first]


async def test_from_the_earliest_everything_is_there(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    created = await write(storage_stub, f"CREATE TABLE {table} (n)", service="campaign")
    inserted = await write(storage_stub, f"INSERT INTO {table} VALUES (1)", service="campaign")
    async with subscribed(event_stub, source_service="campaign", earliest=True) as reader:
        events = await reader.until(created, inserted)
    assert ids(events)[-2:] == [created, inserted]
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


async def test_a_cursor_moves_on_over_events_that_are_held_back(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    async with live(event_stub, event_types=["nothing.*"]) as reader:
        before = reader.cursor
        created = await write(storage_stub, f"CREATE TABLE {table} (n)")
        while reader.cursor == before:
            await reader.message()
        assert reader.events == []
        moved = reader.cursor
    later = await write(storage_stub, f"DROP TABLE {table}")
    async with subscribed(event_stub, cursor=moved) as reader:
        assert ids(await reader.until(later)) == [later]
    async with subscribed(event_stub, cursor=before) as reader:
        assert ids(await reader.until(later)) == [created, later]


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
        ({"subscription": "mine"}, "UNIMPLEMENTED", "NOT_IMPLEMENTED", "subscription"),
    ],
)
async def test_a_subscription_that_cannot_be_is_refused(
    event_stub: Any, fields: dict[str, Any], code: str, reason: str, field: str
) -> None:
    async with subscribed(event_stub, **fields) as reader:
        with refused(code, reason) as refusal:
            await reader.message()
    assert list(refusal.fields) == [field]


async def test_a_cursor_of_other_databases_is_refused(event_stub: Any) -> None:
    async with live(event_stub) as reader:
        cursor = reader.cursor
    async with subscribed(event_stub, cursor=cursor, databases=["auth_db"]) as reader:
        with refused("INVALID_ARGUMENT", "INVALID_CURSOR"):
            await reader.message()


async def test_a_cursor_of_other_data_is_refused(event_stub: Any, tmp_path: Any) -> None:
    async with (
        running_servers(tmp_path) as others,
        grpc.aio.insecure_channel(others.hub.address) as channel,
        live(event_service_pb2_grpc.EventServiceStub(channel)) as reader,
    ):
        cursor = reader.cursor
    async with subscribed(event_stub, cursor=cursor) as reader:
        with refused("FAILED_PRECONDITION", "CURSOR_EPOCH_CHANGED") as refusal:
            await reader.message()
    # The refusal brings what to continue with.
    async with subscribed(event_stub, cursor=refusal.metadata["oldest_cursor"]) as reader:
        await reader.message()
