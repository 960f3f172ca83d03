"""`Query`: pages of bounded size from one snapshot, and no work for a caller that went away."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from messagehub.v1.storage_service_pb2 import QueryResponse
from tests.support.calls import (
    CALL_SECONDS,
    execute_request,
    query_request,
    rows,
    run_async,
)
from tests.support.refusals import Refusal, refused

KIBIBYTE = 1024
ROWS_MAX = 1000
# What the storage server cuts pages at, and room for the envelope and the tags between values.
PAGE_BYTES_MAX = 256 * KIBIBYTE
ENVELOPE_BYTES_MAX = 32 * KIBIBYTE
COUNTING = (
    "WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted LIMIT ?) "
    "SELECT n, ? AS filling FROM counted"
)
ENDLESS = (
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c WHERE n < 0"
)
FREED_SECONDS_MAX = 20


async def pages_of(stub: Any, query: str, *parameters: Any, **envelope: Any) -> list[QueryResponse]:
    call = stub.Query(query_request(query, *parameters, **envelope), timeout=60)
    return [page async for page in call]


def numbers(pages: list[QueryResponse]) -> list[Any]:
    return [row.values[0].integer for page in pages for row in page.result.rows]


async def test_a_hundred_thousand_rows_come_in_pages_of_bounded_size(storage_stub: Any) -> None:
    pages = await pages_of(storage_stub, COUNTING, 100_000, "some text to fill the page with")
    assert numbers(pages) == list(range(1, 100_001))
    assert max(len(page.result.rows) for page in pages) <= ROWS_MAX
    assert max(page.ByteSize() for page in pages) <= PAGE_BYTES_MAX + ENVELOPE_BYTES_MAX
    assert {page.sequence for page in pages} == {pages[0].sequence}
    for page in pages:
        assert [column.name for column in page.result.columns] == ["n", "filling"]
        assert page.database == "character_db"
        assert page.correlation_id == pages[0].correlation_id != ""


@pytest.mark.parametrize(
    ("row_kibibytes", "count"), [(1, 20_000), (30, 600), (300, 60), (1024, 20), (10 * 1024, 12)]
)
async def test_pages_are_cut_by_bytes_whatever_the_rows_are(
    storage_stub: Any, row_kibibytes: int, count: int
) -> None:
    row_bytes = row_kibibytes * KIBIBYTE
    pages = await pages_of(storage_stub, COUNTING, count, b"x" * row_bytes)
    assert numbers(pages) == list(range(1, count + 1))
    largest = max(page.ByteSize() for page in pages)
    assert largest <= PAGE_BYTES_MAX + row_bytes + ENVELOPE_BYTES_MAX


async def test_a_caller_may_ask_for_smaller_pages(storage_stub: Any) -> None:
    pages = await pages_of(storage_stub, COUNTING, 25, "", page_size=10)
    assert [len(page.result.rows) for page in pages if page.result.rows] == [10, 10, 5]
    one_by_one = await pages_of(storage_stub, COUNTING, 3, "", page_size=1)
    assert [len(page.result.rows) for page in one_by_one if page.result.rows] == [1, 1, 1]


@pytest.mark.parametrize("page_size", [-1, ROWS_MAX + 1, 2**31 - 1])
async def test_a_page_size_out_of_range_is_refused(storage_stub: Any, page_size: int) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        await pages_of(storage_stub, "SELECT 1", page_size=page_size)
    assert list(refusal.fields) == ["page_size"]
    assert str(ROWS_MAX) in refusal.message


async def test_a_query_without_rows_gives_one_page_with_its_columns(
    storage_stub: Any, table: str
) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (a INTEGER, b VARCHAR(3))")
    (page,) = await pages_of(storage_stub, f"SELECT * FROM {table}")
    assert [(c.name, c.declared_type) for c in page.result.columns] == [
        ("a", "INTEGER"),
        ("b", "VARCHAR(3)"),
    ]
    assert not page.result.rows


async def test_all_pages_are_of_one_snapshot(storage_stub: Any, table: str) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (n INTEGER PRIMARY KEY)")
    # More than the buffers between the file and the caller hold.
    fill = f"INSERT INTO {table} SELECT n FROM ({COUNTING})"
    await run_async(storage_stub, fill, 200_000, "")
    call = storage_stub.Query(
        query_request(f"SELECT n, zeroblob(100) FROM {table} ORDER BY n"), timeout=60
    )
    stream = aiter(call)
    first = await anext(stream)
    await run_async(storage_stub, f"DELETE FROM {table} WHERE n % 2 = 0")
    await run_async(storage_stub, f"INSERT INTO {table} VALUES (-1), (500000)")
    rest = [page async for page in stream]
    assert numbers([first, *rest]) == list(range(1, 200_001))
    later = await pages_of(storage_stub, f"SELECT count(*) FROM {table}")
    assert rows(later[0].result) == [(100_002,)]
    assert later[0].sequence > first.sequence


async def test_queries_and_writes_do_not_wait_for_each_other(storage_stub: Any, table: str) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (n)")
    call = storage_stub.Query(query_request(COUNTING, 10_000_000, "x" * 100), timeout=60)
    await call.read()
    for number in range(20):
        await run_async(storage_stub, f"INSERT INTO {table} VALUES (?)", number)
    assert rows(await run_async(storage_stub, f"SELECT count(*) FROM {table}")) == [(20,)]
    call.cancel()


async def test_a_failure_half_way_ends_the_stream_with_its_reason(storage_stub: Any) -> None:
    query = (
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) "
        "SELECT json_array_length(iif(n < 5000, '[]', 'broken')) FROM c"
    )
    call = storage_stub.Query(query_request(query), timeout=60)
    count = 0
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
        async for page in call:
            count += len(page.result.rows)
    assert 0 < count < 5000


# A database serves few reads and queries at once; where callers went away, others get their turn
# long before the statements would have ended by themselves (30 s, 600 s).


async def no_longer_refused(stub: Any) -> None:
    """Returns once a query runs; fails if the places stay taken."""
    async with asyncio.timeout(FREED_SECONDS_MAX):
        while True:
            try:
                await pages_of(stub, "SELECT 1")
            except grpc.aio.AioRpcError as failure:
                refusal = Refusal()
                refusal.read_call(failure)
                assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
                await asyncio.sleep(0.05)
            else:
                return


async def too_many(stub: Any) -> AsyncIterator[Any]:
    """Opens endless queries until one is refused."""
    while True:
        call = stub.Query(query_request(ENDLESS), timeout=60)
        yield call
        probe = stub.Query(query_request("SELECT 1"), timeout=60)
        try:
            await probe.read()
        except grpc.aio.AioRpcError:
            return
        finally:
            probe.cancel()


async def test_queries_that_were_cancelled_stop(storage_stub: Any) -> None:
    for _ in range(2):
        calls = [call async for call in too_many(storage_stub)]
        assert len(calls) < 100
        for call in calls:
            call.cancel()
        await no_longer_refused(storage_stub)


async def test_queries_whose_deadline_is_over_stop(storage_stub: Any) -> None:
    calls = [storage_stub.Query(query_request(ENDLESS), timeout=0.2) for _ in range(8)]
    await asyncio.gather(*(call.read() for call in calls), return_exceptions=True)
    codes = {await call.code() for call in calls}
    assert grpc.StatusCode.DEADLINE_EXCEEDED in codes
    assert codes <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    await no_longer_refused(storage_stub)


async def test_queries_that_are_not_read_to_their_end_hold_nobody_up(storage_stub: Any) -> None:
    for _ in range(20):
        call = storage_stub.Query(query_request(COUNTING, 10_000_000, "x" * 100), timeout=60)
        await call.read()
        call.cancel()
        await no_longer_refused(storage_stub)


async def test_reads_that_were_cancelled_stop(storage_stub: Any) -> None:
    for _ in range(3):
        calls = [
            storage_stub.Execute(execute_request(ENDLESS), timeout=CALL_SECONDS) for _ in range(8)
        ]
        answered = [asyncio.ensure_future(call) for call in calls]
        await asyncio.wait(answered, timeout=0.05)
        for call in calls:
            call.cancel()
        async with asyncio.timeout(FREED_SECONDS_MAX / 2):
            assert rows(await run_async(storage_stub, "SELECT 1")) == [(1,)]
        await asyncio.gather(*answered, return_exceptions=True)


async def test_a_write_that_was_cancelled_lets_the_others_through(
    storage_stub: Any, table: str
) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (n)")
    endless = execute_request(f"INSERT INTO {table} {ENDLESS}")
    call = asyncio.ensure_future(storage_stub.Execute(endless, timeout=CALL_SECONDS))
    await asyncio.wait([call], timeout=0.05)
    call.cancel()
    async with asyncio.timeout(FREED_SECONDS_MAX / 4):
        await run_async(storage_stub, f"INSERT INTO {table} VALUES (1)")
    assert rows(await run_async(storage_stub, f"SELECT n FROM {table}")) == [(1,)]
