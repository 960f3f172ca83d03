"""The limits of statements and results, from outside: one below, at it, one above."""

import asyncio
from pathlib import Path

import pytest

from messagehub.storage.v1 import storage_service_pb2 as wire
from tests.conformance.limit_checks import GUARD_SECONDS, OVER, check, one, refused, works
from tests.conformance.operations import (
    CREATE,
    ENDLESS_READ,
    ENDLESS_WRITE,
)
from tests.conformance.storage_client import asking, failure_of, reasons, serving
from tests.support.calls import rows, statement

SHORT_SECONDS = 0.05


# Statements.


@OVER
@pytest.mark.parametrize("writing", [True, False])
async def test_statement_bytes(tmp_path: Path, over: int, writing: bool) -> None:
    async with serving(tmp_path, statement_bytes_max=1000) as client:
        query = "CREATE TABLE items (id INTEGER) -- é" if writing else "SELECT 1 -- é"
        query += "x" * (1000 + over - len(query.encode()))
        outcome = await one(client, query)
        await check(client, outcome, over, "MESSAGE_TOO_LARGE", limit_bytes="1000")


@OVER
async def test_parameters(tmp_path: Path, over: int) -> None:
    async with serving(tmp_path, parameters_max=50) as client:
        count = 50 + over
        outcome = await one(client, "SELECT " + ", ".join("?" * count), *range(count))
        await check(client, outcome, over, "INVALID_REQUEST", limit="50")


@OVER
@pytest.mark.parametrize("writing", [True, False])
@pytest.mark.parametrize("kind", [str, bytes])
async def test_value_bytes(
    tmp_path: Path, over: int, writing: bool, kind: type[str] | type[bytes]
) -> None:
    # A row is a value too, and its header takes a few bytes: the limit is for the row.
    header = 3 if writing else 0
    async with serving(tmp_path, value_bytes_max=50_000) as client:
        await one(client, "CREATE TABLE texts (content BLOB)")
        size = 50_000 + over - (header + 1 if writing else 0)
        content = "x" * size if kind is str else b"x" * size
        query = "INSERT INTO texts VALUES (?)" if writing else "SELECT length(?)"
        outcome = await one(client, query, content)
        await check(client, outcome, over, "RESULT_TOO_LARGE")


@pytest.mark.parametrize("writing", [True, False])
async def test_statement_seconds(tmp_path: Path, writing: bool) -> None:
    limits = {"read_seconds_max": SHORT_SECONDS, "write_seconds_max": SHORT_SECONDS}
    async with serving(tmp_path, **limits) as client:
        await one(client, CREATE)
        endless = ENDLESS_WRITE if writing else ENDLESS_READ
        async with asyncio.timeout(GUARD_SECONDS):
            outcomes = await client.run(asking(endless), asking("SELECT 1"))
        assert reasons(outcomes) == ["DEADLINE_EXCEEDED", ""]
        assert "seconds_max" in failure_of(outcomes[0]).message
        await works(client)


@pytest.mark.parametrize("writing", [True, False])
async def test_seconds_of_a_caller(tmp_path: Path, writing: bool) -> None:
    async with serving(tmp_path) as client:
        await one(client, CREATE)
        endless = asking(ENDLESS_WRITE if writing else ENDLESS_READ, timeout_ms=50)
        async with asyncio.timeout(GUARD_SECONDS):
            outcomes = await client.run(endless, asking("SELECT 1"))
        assert reasons(outcomes) == ["DEADLINE_EXCEEDED", ""]
        await works(client)


# Results.


NUMBERS = "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c LIMIT"


@OVER
async def test_result_rows(tmp_path: Path, over: int) -> None:
    async with serving(tmp_path, result_rows_max=700) as client:
        outcome = await one(client, f"{NUMBERS} {700 + over}")
        await check(client, outcome, over, "RESULT_TOO_LARGE", limit_rows="700")


@OVER
async def test_rows_that_a_write_returns(tmp_path: Path, over: int) -> None:
    async with serving(tmp_path, result_rows_max=700) as client:
        await one(client, CREATE)
        query = f"INSERT INTO items SELECT n, n FROM ({NUMBERS} {700 + over}) RETURNING id"
        outcome = await one(client, query)
        await check(client, outcome, over, "RESULT_TOO_LARGE", limit_rows="700")
        kept = await one(client, "SELECT count(*) FROM items")
        assert rows(kept.result) == [(0 if over > 0 else 700 + over,)], "all or nothing"


@OVER
async def test_result_bytes(tmp_path: Path, over: int) -> None:
    async with serving(tmp_path, result_bytes_max=10_000) as client:
        # A value takes four bytes besides its content, and the column `a` seven.
        content = 10_000 - 7 - 2 * 4
        values = ("a" * 5000, "b" * (content - 5000 + over))
        outcome = await one(client, "SELECT ? AS a UNION ALL SELECT ?", *values)
        await check(client, outcome, over, "RESULT_TOO_LARGE", limit_bytes="10000")


@OVER
async def test_page_rows(tmp_path: Path, over: int) -> None:
    async with serving(tmp_path, page_rows_max=100) as client:
        request = wire.QueryRequest(
            database="items_db", statement=statement(f"{NUMBERS} 250"), page_size=100 + over
        )
        pages = [len(page.result.rows) async for page in client.stub.Query(request)]
        assert pages[0] == min(100, 100 + over)
        assert sum(pages) == 250


async def test_page_bytes(tmp_path: Path) -> None:
    async with serving(tmp_path, page_bytes_max=10_000) as client:
        query = statement("SELECT printf('%.500c', 'x') FROM (" + NUMBERS + " 200)")
        request = wire.QueryRequest(database="items_db", statement=query)
        pages = [page.result async for page in client.stub.Query(request)]
        assert sum(len(page.rows) for page in pages) == 200
        assert len(pages) > 10 - 1
        assert max(page.ByteSize() for page in pages) < 2 * 10_000


async def test_query_seconds(tmp_path: Path) -> None:
    async with serving(tmp_path, query_seconds_max=SHORT_SECONDS) as client:
        request = wire.QueryRequest(database="items_db", statement=statement(ENDLESS_READ))
        async with asyncio.timeout(GUARD_SECONDS):
            assert (await refused(client.stub.Query(request))).reason == "DEADLINE_EXCEEDED"
        await works(client)
