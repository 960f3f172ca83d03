"""Who may submit what, and submitting by publishing an event."""

import uuid
from typing import Any

import pytest

from messagehub.v1.event_pb2 import EventDraft, OperationRequest
from messagehub.v1.event_service_pb2 import PublishEventRequest
from messagehub.v1.storage_service_pb2 import (
    CancelOperationRequest,
    GetOperationRequest,
    ListOperationsRequest,
    SubmitOperationRequest,
)
from tests.support.calls import CALL_SECONDS, rows, run_async, statement
from tests.support.event_stream import COMPLETED, live
from tests.support.refusals import refused
from tests.support.submissions import ended, listed, state_of, submit


@pytest.fixture(scope="module")
def hub_settings() -> dict[str, Any]:
    # `metrics` may read the database of `character`, and `catalog` may not.
    return {"grants": {"metrics": {"character_db": "read"}}}


@pytest.mark.parametrize(
    ("service", "database", "code", "reason"),
    [
        ("", "", "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("nobody", "", "NOT_FOUND", "INVALID_ROUTE"),
        ("character", "nowhere_db", "NOT_FOUND", "INVALID_ROUTE"),
        ("catalog", "character_db", "PERMISSION_DENIED", "ACCESS_DENIED"),
        # It may read, but the outcome would go into the journal of that database.
        ("metrics", "character_db", "PERMISSION_DENIED", "ACCESS_DENIED"),
    ],
)
async def test_who_may_not_is_refused_at_the_door(
    storage_stub: Any, service: str, database: str, code: str, reason: str
) -> None:
    with refused(code, reason):
        await submit(storage_stub, "SELECT 1", service=service, database=database)
    known = await listed(storage_stub, service="metrics")
    assert known == []


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (SubmitOperationRequest(source_service="auth"), "statement.query"),
        (
            SubmitOperationRequest(
                source_service="auth", statement=statement("SELECT 1"), request_id="7"
            ),
            "request_id",
        ),
        (GetOperationRequest(source_service="auth"), "request_id"),
        (CancelOperationRequest(source_service="auth"), "request_id"),
        (CancelOperationRequest(source_service="auth", request_id="x"), "request_id"),
        (ListOperationsRequest(source_service="auth", page_size=1001), "page_size"),
        (ListOperationsRequest(source_service="auth", page_token="x"), "page_token"),
        (ListOperationsRequest(source_service="auth", states=[0]), "states[0]"),
        (ListOperationsRequest(), "source_service"),
    ],
)
async def test_a_bad_request_is_refused_by_field(
    storage_stub: Any, request_: Any, field: str
) -> None:
    method = type(request_).__name__.removesuffix("Request")
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        await getattr(storage_stub, method)(request_, timeout=CALL_SECONDS)
    assert list(refusal.fields) == [field]


async def test_a_range_of_schema_versions_that_is_none_is_refused(storage_stub: Any) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        await submit(storage_stub, "SELECT 1", schema_version="nonsense")
    assert list(refusal.fields) == ["schema_version"]


async def publish(stub: Any, **fields: Any) -> Any:
    request = PublishEventRequest(**{"source_service": "character"} | fields)
    return await stub.PublishEvent(request, timeout=CALL_SECONDS)


def request_of(query: str, *parameters: Any, **fields: Any) -> EventDraft:
    return EventDraft(
        type="storage.operation_request",
        operation_request=OperationRequest(statement=statement(query, *parameters)),
        **fields,
    )


async def test_a_published_request_is_a_submission(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (n)")
    request_id = str(uuid.uuid4())
    draft = request_of(f"INSERT INTO {table} VALUES (?) RETURNING n", 7)
    async with live(event_stub) as reader:
        fields = {"event": draft, "request_id": request_id, "correlation_id": "asked by event"}
        answer = await publish(event_stub, **fields)
        assert (answer.database, answer.correlation_id) == ("character_db", "asked by event")
        assert not answer.replayed
        event = (await reader.until(request_id))[-1]
    assert (event.type, event.correlation_id) == (COMPLETED, "asked by event")
    assert rows(event.operation_completed.result) == [(7,)]
    assert (await publish(event_stub, **fields)).replayed
    assert state_of(await ended(storage_stub, request_id)) == "COMPLETED"
    assert rows(await run_async(storage_stub, f"SELECT count(*) FROM {table}")) == [(1,)]


@pytest.mark.parametrize(
    ("draft", "code", "field"),
    [
        (
            EventDraft(type="storage.operation_request"),
            "INVALID_ARGUMENT",
            "event.operation_request",
        ),
        (
            EventDraft(type="storage.operation_request", custom=b"x"),
            "INVALID_ARGUMENT",
            "event.operation_request",
        ),
        (request_of(" "), "INVALID_ARGUMENT", "event.operation_request.statement.query"),
        (request_of("SELECT 1", database="nowhere_db"), "NOT_FOUND", "event.database"),
    ],
)
async def test_a_bad_published_request_is_refused_by_field(
    event_stub: Any, draft: EventDraft, code: str, field: str
) -> None:
    reason = "INVALID_REQUEST" if code == "INVALID_ARGUMENT" else "INVALID_ROUTE"
    with refused(code, reason) as refusal:
        await publish(event_stub, event=draft)
    assert list(refusal.fields) == [field]
