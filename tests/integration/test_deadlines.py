"""No call takes longer than it may: by its caller's deadline, or by the limits of the servers."""

import asyncio
from typing import Any

import grpc
import pytest

from tests.support.calls import CALL_SECONDS, execute_request, query_request, rows, run_async
from tests.support.refusals import refused

ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"
STATEMENT_SECONDS = 0.2
DEFAULT_SECONDS = 0.4


@pytest.fixture(scope="module")
def storage_settings() -> dict[str, Any]:
    return {
        "read_seconds_max": STATEMENT_SECONDS,
        "write_seconds_max": STATEMENT_SECONDS,
        "query_seconds_max": STATEMENT_SECONDS,
    }


@pytest.fixture(scope="module")
def hub_settings() -> dict[str, Any]:
    return {"default_timeout_seconds": DEFAULT_SECONDS}


async def test_a_read_that_takes_too_long_says_what_to_do(storage_stub: Any) -> None:
    with refused("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED") as refusal:
        await run_async(storage_stub, ENDLESS)
    assert "read_seconds_max" in refusal.message


async def test_a_write_that_takes_too_long_changes_nothing(storage_stub: Any, table: str) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (n)")
    with refused("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED") as refusal:
        await run_async(storage_stub, f"INSERT INTO {table} {ENDLESS}")
    assert "write_seconds_max" in refusal.message
    assert rows(await run_async(storage_stub, f"SELECT * FROM {table}")) == []


async def test_a_write_that_takes_too_long_takes_no_neighbour_along(
    storage_stub: Any, table: str
) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (n)")
    writes = [
        run_async(storage_stub, f"INSERT INTO {table} VALUES (?)", number) for number in range(20)
    ]
    slow = run_async(storage_stub, f"INSERT INTO {table} {ENDLESS}")
    *done, failure = await asyncio.gather(*writes, slow, return_exceptions=True)
    assert [result.rows_affected for result in done] == [1] * 20
    assert failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    found = rows(await run_async(storage_stub, f"SELECT count(*) FROM {table}"))
    assert found == [(20,)]


async def test_a_query_that_takes_too_long_ends(storage_stub: Any) -> None:
    with refused("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"):
        async for _ in storage_stub.Query(query_request(ENDLESS), timeout=CALL_SECONDS):
            pass


async def test_a_call_without_deadline_gets_the_default_of_the_hub(storage_stub: Any) -> None:
    """Also where the statements before it take all of that time."""
    with refused("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"):
        await storage_stub.Execute(execute_request(ENDLESS))
    batch = [storage_stub.Execute(execute_request(f"{ENDLESS} -- {n}")) for n in range(40)]
    failures = await asyncio.gather(*batch, return_exceptions=True)
    assert {failure.code() for failure in failures} == {grpc.StatusCode.DEADLINE_EXCEEDED}


@pytest.mark.parametrize("query", [ENDLESS, "CREATE TABLE {0} AS " + ENDLESS])
async def test_the_callers_deadline_ends_the_work(
    storage_stub: Any, table: str, query: str
) -> None:
    call = storage_stub.Execute(execute_request(query.format(table)), timeout=0.05)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert rows(await run_async(storage_stub, "SELECT 1")) == [(1,)]
    made = "SELECT count(*) FROM sqlite_master WHERE name = ?"
    assert rows(await run_async(storage_stub, made, table)) == [(0,)]
