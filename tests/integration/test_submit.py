"""SubmitOperation and what follows it, with a database that can be used."""

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from messagehub.v1.storage_service_pb2 import (
    ListOperationsRequest,
)
from tests.support.calls import CALL_SECONDS, execute_request, rows, run_async
from tests.support.event_stream import COMPLETED, FAILED, live, request_id_of
from tests.support.refusals import refusal_of, refused
from tests.support.submissions import cancel, ended, get, listed, state_of, submit

RESULT_ROWS_MAX = 100


@pytest.fixture(scope="module")
def hub_settings() -> dict[str, Any]:
    # `metrics` may read the database of `character`, and `catalog` may not.
    grants = {
        "auth": {"character_db": "write"},
        "campaign": {"character_db": "write"},
        "metrics": {"character_db": "read"},
    }
    return {"grants": grants, "delivery_retry_seconds_max": 0.1}


@pytest.fixture(scope="module")
def storage_settings() -> dict[str, Any]:
    return {"result_rows_max": RESULT_ROWS_MAX, "write_seconds_max": 0.2}


async def test_an_operation_is_accepted_and_then_executed(storage_stub: Any, table: str) -> None:
    before = datetime.now(UTC)
    await run_async(storage_stub, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, n)")
    request_id = str(uuid.uuid4())
    answer = await submit(
        storage_stub,
        f"INSERT INTO {table} (n) VALUES (?)",
        "Ada",
        request_id=request_id.upper(),
        correlation_id="follow ✓",
    )
    assert (answer.correlation_id, answer.database) == ("follow ✓", "character_db")
    assert not answer.replayed
    accepted = answer.operation
    assert (accepted.request_id, state_of(accepted)) == (request_id, "QUEUED")
    assert (accepted.source_service, accepted.database) == ("character", "character_db")
    assert not accepted.HasField("result")
    done = await ended(storage_stub, request_id)
    assert state_of(done) == "COMPLETED"
    assert (done.correlation_id, done.attempts) == ("follow ✓", 1)
    assert (done.result.rows_affected, done.result.last_insert_id) == (1, 1)
    assert done.sequence > 0
    assert not done.HasField("error")
    created, updated = (time.ToDatetime(UTC) for time in (done.create_time, done.update_time))
    assert before <= created <= updated
    assert rows(await run_async(storage_stub, f"SELECT n FROM {table}")) == [("Ada",)]


async def test_ids_are_made_where_none_are_given(storage_stub: Any) -> None:
    answer = await submit(storage_stub, "SELECT 1")
    assert answer.correlation_id == answer.operation.correlation_id != ""
    assert uuid.UUID(answer.operation.request_id)
    await ended(storage_stub, answer.operation.request_id)


async def test_its_outcome_comes_as_an_event_and_is_known_from_then_on(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (n)")
    async with live(event_stub) as reader:
        for number in range(20):
            request_id = str(uuid.uuid4())
            await submit(
                storage_stub,
                f"INSERT INTO {table} VALUES (?) RETURNING n, n + 1 AS next",
                number,
                request_id=request_id,
                correlation_id=f"c-{number}",
            )
            event = (await reader.until(request_id))[-1]
            # Not a moment later: whoever saw the event may ask at once.
            known = await get(storage_stub, request_id)
            assert state_of(known) == "COMPLETED"
            assert rows(known.result) == [(number, number + 1)]
            assert (event.type, event.source) == (COMPLETED, "character")
            assert (event.correlation_id, event.sequence) == (f"c-{number}", known.sequence)
            assert event.operation_completed.result == known.result


async def test_a_read_is_answered_by_event_too(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (n INTEGER, who TEXT)")
    await run_async(storage_stub, f"INSERT INTO {table} VALUES (1, 'Ada'), (2, NULL)")
    async with live(event_stub) as reader:
        answer = await submit(storage_stub, f"SELECT * FROM {table} ORDER BY n")
        request_id = answer.operation.request_id
        event = (await reader.until(request_id))[-1]
    assert event.correlation_id == answer.correlation_id
    assert rows(event.operation_completed.result) == [(1, "Ada"), (2, None)]
    known = await ended(storage_stub, request_id)
    assert known.result == event.operation_completed.result
    assert known.sequence == event.sequence


async def test_the_same_request_id_gives_the_operation_as_it_is(
    storage_stub: Any, table: str
) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (n)")
    request_id = str(uuid.uuid4())
    query = f"INSERT INTO {table} VALUES (1)"
    answers = await asyncio.gather(
        *(submit(storage_stub, query, request_id=request_id) for _ in range(10))
    )
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 9
    done = await ended(storage_stub, request_id)
    again = await submit(storage_stub, query, request_id=request_id, correlation_id="later")
    assert again.replayed
    assert again.correlation_id == "later"
    assert again.operation == done
    assert rows(await run_async(storage_stub, f"SELECT count(*) FROM {table}")) == [(1,)]


async def test_a_request_id_stands_for_one_content(storage_stub: Any) -> None:
    request_id = str(uuid.uuid4())
    await submit(storage_stub, "SELECT 1", request_id=request_id)
    for query, *parameters in (["SELECT 2"], ["SELECT 1", 1]):
        with refused("ALREADY_EXISTS", "REQUEST_ID_REUSED") as refusal:
            await submit(storage_stub, query, *parameters, request_id=request_id)
        assert list(refusal.fields) == ["request_id"]
    await ended(storage_stub, request_id)
    with refused("ALREADY_EXISTS", "REQUEST_ID_REUSED"):
        await submit(storage_stub, "SELECT 2", request_id=request_id)
    # The ids of a service are its own: another one learns nothing of this. For another database
    # it is another operation.
    elsewhere = {"service": "auth", "request_id": request_id}
    assert not (await submit(storage_stub, "SELECT 1", **elsewhere)).replayed
    with refused("ALREADY_EXISTS", "REQUEST_ID_REUSED"):
        await submit(storage_stub, "SELECT 1", database="character_db", **elsewhere)


async def test_what_was_executed_under_an_id_is_not_done_again_under_it(
    storage_stub: Any, table: str
) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (n)")
    request_id, query = str(uuid.uuid4()), f"INSERT INTO {table} VALUES (1)"
    await run_async(storage_stub, query, request_id=request_id)
    await submit(storage_stub, query, request_id=request_id)
    assert state_of(await ended(storage_stub, request_id)) == "COMPLETED"
    assert rows(await run_async(storage_stub, f"SELECT count(*) FROM {table}")) == [(1,)]


async def test_a_failure_is_told_and_does_not_block_the_queue(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (n INTEGER PRIMARY KEY)")
    insert = f"INSERT INTO {table} VALUES (?)"
    async with live(event_stub) as reader:
        ids = [
            (await submit(storage_stub, insert, number)).operation.request_id
            for number in (1, 1, 2)
        ]
        operations = [await ended(storage_stub, request_id) for request_id in ids]
        events = {request_id_of(event): event for event in await reader.until(*ids)}
    assert [state_of(operation) for operation in operations] == ["COMPLETED", "FAILED", "COMPLETED"]
    failed = operations[1]
    refusal = refusal_of(failed.error)
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION")
    assert not failed.HasField("result")
    event = events[ids[1]]
    assert (event.type, event.source) == (FAILED, "character")
    assert event.sequence == failed.sequence
    assert event.operation_failed.error == failed.error


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELEKT 1", "INVALID_STATEMENT"),
        ("ATTACH 'x' AS y", "STATEMENT_FORBIDDEN"),
        ("SELECT * FROM nowhere", "INVALID_STATEMENT"),
    ],
)
async def test_what_the_database_refuses_fails(storage_stub: Any, query: str, reason: str) -> None:
    answer = await submit(storage_stub, query)
    failed = await ended(storage_stub, answer.operation.request_id)
    assert refusal_of(failed.error).reason == reason


async def test_a_failure_that_leaves_no_record_gets_one_and_is_announced(
    storage_stub: Any, event_stub: Any
) -> None:
    numbers = (
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT "
        f"{RESULT_ROWS_MAX + 1}) SELECT n FROM c"
    )
    async with live(event_stub) as reader:
        answer = await submit(storage_stub, numbers)
        request_id = answer.operation.request_id
        failed = await ended(storage_stub, request_id)
        event = next(e for e in await reader.until(request_id) if request_id_of(e) == request_id)
    assert refusal_of(failed.error).reason == "RESULT_TOO_LARGE"
    assert (event.type, event.source, event.subject) == (FAILED, "character", "character_db")
    assert event.correlation_id == answer.correlation_id
    assert event.operation_failed.error == failed.error
    assert event.operation_failed.query == numbers


async def test_a_write_is_found_in_whichever_database_it_was(storage_stub: Any, table: str) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (n)")
    request = execute_request(
        f"INSERT INTO {table} VALUES (1)",
        service="campaign",
        database="character_db",
        request_id=str(uuid.uuid4()),
    )
    answer = await storage_stub.Execute(request, timeout=CALL_SECONDS)
    found = await get(storage_stub, request.request_id, service="campaign")
    assert (found.database, found.sequence) == ("character_db", answer.sequence)
    # It is another service's, and whoever may only read is not told either.
    for service in ("character", "metrics"):
        with refused("NOT_FOUND", "OPERATION_NOT_FOUND"):
            await get(storage_stub, request.request_id, service=service)


async def test_a_statement_that_never_ends_in_time_fails_after_a_few_attempts(
    storage_stub: Any,
) -> None:
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT sum(n) FROM c"
    first = await submit(storage_stub, endless)
    second = await submit(storage_stub, "SELECT 1")
    failed = await ended(storage_stub, first.operation.request_id)
    assert refusal_of(failed.error).reason == "DEADLINE_EXCEEDED"
    assert failed.attempts == 5
    assert state_of(await ended(storage_stub, second.operation.request_id)) == "COMPLETED"


async def test_each_service_keeps_its_order(storage_stub: Any, table: str) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (service TEXT, n INTEGER)")

    async def submit_all(service: str) -> str:
        for number in range(50):
            answer = await submit(
                storage_stub,
                f"INSERT INTO {table} VALUES (?, ?)",
                service,
                number,
                service=service,
                database="character_db",
            )
        return answer.operation.request_id

    services = ("character", "auth", "campaign")
    last = await asyncio.gather(*(submit_all(service) for service in services))
    for service, request_id in zip(services, last, strict=True):
        await ended(storage_stub, request_id, service=service)
        query = f"SELECT n FROM {table} WHERE service = ? ORDER BY rowid"
        found = rows(await run_async(storage_stub, query, service))
        assert found == [(number,) for number in range(50)]


# What can be asked.


async def test_an_executed_write_can_be_asked_for_as_well(storage_stub: Any, table: str) -> None:
    request_id = str(uuid.uuid4())
    request = execute_request(f"CREATE TABLE {table} (n NOT NULL)", request_id=request_id)
    answer = await storage_stub.Execute(request, timeout=CALL_SECONDS)
    known = await get(storage_stub, request_id)
    assert (state_of(known), known.sequence) == ("COMPLETED", answer.sequence)
    refused_id = str(uuid.uuid4())
    with refused("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION"):
        await run_async(storage_stub, f"INSERT INTO {table} VALUES (NULL)", request_id=refused_id)
    known = await get(storage_stub, refused_id)
    assert refusal_of(known.error).reason == "CONSTRAINT_VIOLATION"


async def test_nobody_learns_of_the_operations_of_others(storage_stub: Any, table: str) -> None:
    executed = str(uuid.uuid4())
    await run_async(storage_stub, f"CREATE TABLE {table} (n)", request_id=executed)
    submitted = (await submit(storage_stub, "SELECT 1")).operation.request_id
    await ended(storage_stub, submitted)
    for request_id in (executed, submitted, str(uuid.uuid4())):
        # `auth` may even write that database.
        for database in ("", "character_db"):
            with refused("NOT_FOUND", "OPERATION_NOT_FOUND"):
                await get(storage_stub, request_id, service="auth", database=database)
        with refused("NOT_FOUND", "OPERATION_NOT_FOUND"):
            await cancel(storage_stub, request_id, service="auth")
    assert submitted not in {one.request_id for one in await listed(storage_stub, service="auth")}


async def test_a_list_has_filters_and_pages(storage_stub: Any) -> None:
    # Nobody else in this module submits as `catalog`.
    ids = []
    for number in range(7):
        query = "SELEKT" if number == 3 else f"SELECT {number}"
        answer = await submit(storage_stub, query, service="catalog")
        ids.append(answer.operation.request_id)
        await ended(storage_stub, ids[-1], service="catalog")

    async def numbers(**fields: Any) -> list[int]:
        found = await listed(storage_stub, service="catalog", **fields)
        return [ids.index(operation.request_id) for operation in found]

    assert await numbers() == [6, 5, 4, 3, 2, 1, 0]
    assert await numbers(page_size=2) == [6, 5, 4, 3, 2, 1, 0]
    assert await numbers(states=["OPERATION_STATE_FAILED"]) == [3]
    assert await numbers(states=["OPERATION_STATE_QUEUED"]) == []
    assert await numbers(database="catalog_db", page_size=3) == [6, 5, 4, 3, 2, 1, 0]
    (newest, *_) = await listed(storage_stub, service="catalog")
    assert newest == await get(storage_stub, ids[6], service="catalog")
    assert rows(newest.result) == [(6,)]
    first = ListOperationsRequest(source_service="catalog", page_size=3, correlation_id="c")
    page = await storage_stub.ListOperations(first, timeout=CALL_SECONDS)
    assert page.correlation_id == "c"
    assert len(page.operations) == 3


async def test_what_has_ended_cannot_be_cancelled(storage_stub: Any) -> None:
    request_id = (await submit(storage_stub, "SELECT 1")).operation.request_id
    await ended(storage_stub, request_id)
    with refused("FAILED_PRECONDITION", "OPERATION_NOT_CANCELLABLE") as refusal:
        await cancel(storage_stub, request_id)
    assert refusal.metadata == {"state": "COMPLETED"}
