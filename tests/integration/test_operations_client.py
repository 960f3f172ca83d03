"""`hub.submit` and its companions, and `messagehub submit` and `operations`, at a real hub."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from messagehub import Hub
from messagehub.errors import (
    ConstraintViolation,
    InvalidRequest,
    OperationNotCancellable,
    OperationNotFound,
    RequestIdReused,
)
from messagehub.operations import OperationState, SubmittedOperation
from tests.support.processes import run_command

if TYPE_CHECKING:
    from tests.support.servers import Servers

SECONDS_MAX = 30


@pytest_asyncio.fixture(loop_scope="session")
async def hub(servers: "Servers") -> AsyncIterator[Hub]:
    async with Hub(servers.hub.address, service="character") as client:
        yield client


async def ended(hub: Hub, request_id: str) -> SubmittedOperation:
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            operation = await hub.operation(request_id)
            if operation.state.final:
                return operation
            await asyncio.sleep(0.01)


async def test_submit_and_ask(hub: Hub, table: str) -> None:
    before = datetime.now(UTC)
    await hub.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)")
    accepted = await hub.submit(
        f"INSERT INTO {table} (name) VALUES (?) RETURNING id, name",
        ["Ada"],
        correlation_id="c",
    )
    assert (accepted.service, accepted.database) == ("character", "character_db")
    assert accepted.state is OperationState.QUEUED
    assert not accepted.replayed
    assert before <= accepted.created <= accepted.updated
    done = await ended(hub, accepted.request_id)
    assert done.state is OperationState.COMPLETED
    assert (done.columns, done.rows) == (("id", "name"), [(1, "Ada")])
    assert (done.rows_affected, done.last_insert_id) == (1, 1)
    assert (done.correlation_id, done.attempts, done.error) == ("c", 1, None)
    assert done.sequence > 0


async def test_submit_again_and_with_other_content(hub: Hub) -> None:
    request_id = str(uuid.uuid4())
    await hub.submit("SELECT :n", {"n": 1}, request_id=request_id)
    assert (await hub.submit("SELECT :n", {"n": 1}, request_id=request_id)).replayed
    with pytest.raises(RequestIdReused):
        await hub.submit("SELECT :n", {"n": 2}, request_id=request_id)
    await ended(hub, request_id)


async def test_a_failed_operation_has_its_error(hub: Hub, table: str) -> None:
    await hub.execute(f"CREATE TABLE {table} (n NOT NULL)")
    accepted = await hub.submit(f"INSERT INTO {table} VALUES (?)", [None])
    failed = await ended(hub, accepted.request_id)
    assert failed.state is OperationState.FAILED
    assert isinstance(failed.error, ConstraintViolation)
    with pytest.raises(OperationNotCancellable):
        await hub.cancel_operation(accepted.request_id)
    with pytest.raises(OperationNotFound):
        await hub.cancel_operation(str(uuid.uuid4()))


async def test_an_executed_write_is_an_operation_too(hub: Hub, table: str) -> None:
    request_id = str(uuid.uuid4())
    await hub.execute(f"CREATE TABLE {table} (n)", request_id=request_id, database="auth_db")
    known = await hub.operation(request_id, database="auth_db")
    assert (known.state, known.database) == (OperationState.COMPLETED, "auth_db")
    # Whoever does not say where it was is told of it all the same.
    assert await hub.operation(request_id) == known
    with pytest.raises(OperationNotFound):
        await hub.operation(request_id, database="character_db")


async def test_the_operations_of_a_service_page_by_page(servers: "Servers") -> None:
    async with Hub(servers.hub.address, service="metrics") as hub:
        ids = [(await hub.submit(f"SELECT {number}")).request_id for number in range(7)]
        for request_id in ids:
            await ended(hub, request_id)
        found = [operation.request_id async for operation in hub.operations(page_size=3)]
        assert found == ids[::-1]
        wanted = hub.operations(database="metrics_db", states=[OperationState.COMPLETED])
        assert len([operation async for operation in wanted]) == 7
        assert [one async for one in hub.operations(states=[OperationState.QUEUED])] == []
        with pytest.raises(InvalidRequest):
            hub.operations(states=[OperationState.UNKNOWN])


# The commands.


async def run(servers: "Servers", *arguments: str, status: int = 0) -> str:
    found, output, errors = await run_command(*arguments, "--target", servers.hub.address)
    assert found == status, f"{arguments}: {output}{errors}"
    return output or errors


def line_of(output: str, request_id: str) -> list[str]:
    (line,) = [line for line in output.splitlines() if line.startswith(request_id)]
    return line.split()


async def test_submit_prints_the_operation_and_waits_if_told(
    servers: "Servers", table: str
) -> None:
    await run(servers, "sql", "campaign_db", f"CREATE TABLE {table} (n, who)")
    request_id = str(uuid.uuid4())
    insert = f"INSERT INTO {table} VALUES (?, ?)"
    arguments = ("submit", "campaign_db", insert, "--param", "7", "--param", "Ada")
    output = await run(servers, *arguments, "--request-id", request_id, "--wait", "20")
    assert line_of(output, request_id)[1:5] == ["COMPLETED", "campaign_db", "campaign", "1"]
    assert "1 row affected" in output
    select = f"SELECT * FROM {table}"
    read = ("submit", "campaign_db", select, "--wait", "20", "--json", "--correlation-id", "c")
    fields = json.loads(await run(servers, *read))
    assert (fields["columns"], fields["rows"]) == (["n", "who"], [[7, "Ada"]])
    assert (fields["state"], fields["correlation_id"]) == ("COMPLETED", "c")


async def test_submit_that_fails_says_why_and_exits_with_1(servers: "Servers") -> None:
    output = await run(servers, "submit", "campaign_db", "SELEKT", "--wait", "20", status=1)
    assert "FAILED" in output
    assert "INVALID_STATEMENT: " in output
    await run(servers, "submit", "nowhere_db", "SELECT 1", status=1)


async def test_operations_lists_gets_and_cancels(servers: "Servers") -> None:
    ids = {}
    for database, query in (("catalog_db", "SELECT 1"), ("auth_db", "SELEKT")):
        arguments = ("submit", database, query, "--wait", "20", "--json")
        _, output, _ = await run_command(*arguments, "--target", servers.hub.address)
        ids[database] = json.loads(output)["request_id"]
    output = await run(servers, "operations")
    assert line_of(output, ids["catalog_db"])[1:4] == ["COMPLETED", "catalog_db", "catalog"]
    assert line_of(output, ids["auth_db"])[1:4] == ["FAILED", "auth_db", "auth"]
    lines = await run(servers, "operations", "list", "--state", "failed", "--json")
    failed = [json.loads(line) for line in lines.splitlines()]
    assert {one["state"] for one in failed} == {"FAILED"}
    assert [one["error"]["reason"] for one in failed if one["request_id"] == ids["auth_db"]] == [
        "INVALID_STATEMENT"
    ]
    lines = await run(servers, "operations", "--service", "catalog", "--limit", "1", "--json")
    assert json.loads(lines)["request_id"] == ids["catalog_db"]
    output = await run(servers, "operations", "--database", "auth_db")
    assert ids["catalog_db"] not in output
    output = await run(servers, "operations", "get", ids["auth_db"])
    assert "INVALID_STATEMENT: " in output
    fields = json.loads(await run(servers, "operations", "get", ids["catalog_db"], "--json"))
    assert fields["rows"] == [[1]]
    told = await run(servers, "operations", "get", str(uuid.uuid4()), status=1)
    assert "OPERATION_NOT_FOUND" in told
    told = await run(servers, "operations", "cancel", ids["catalog_db"], status=1)
    assert "OPERATION_NOT_CANCELLABLE" in told


async def test_operations_explains_itself(servers: "Servers") -> None:
    status, output, _ = await run_command("operations", "--help")
    assert status == 0
    for name in ("list", "get", "cancel"):
        assert f"\n  {name} " in output
