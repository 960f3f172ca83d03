"""Reads: in a drain of many, or one by pages; from a snapshot, beside the writer."""

import asyncio
import threading
from collections import deque
from contextlib import aclosing

import pytest

from messagehub.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidStatement,
    ResultTooLarge,
    StatementForbidden,
)
from storage.core.engine import Access, Engine
from storage.core.operation import Operation, Outcome
from tests.conformance.engines import Place
from tests.conformance.operations import (
    ALL_ITEMS,
    CREATE,
    ENDLESS_READ,
    ENDLESS_ROWS,
    apply,
    done,
    error_of,
    insert,
    operation,
    read,
    reasons,
    result_of,
    selected,
)
from tests.support.calls import rows, statement

SHORT_SECONDS = 0.05
GUARD_SECONDS = 30.0


async def test_reads_are_answered_in_the_order_in_which_they_were_taken(engine: Engine) -> None:
    waiting = deque(operation(f"SELECT {number}") for number in range(200))
    order: list[tuple[Operation, Outcome | None]] = []
    expected = list(waiting)
    await engine.drain(
        0, lambda: waiting.popleft() if waiting else None, lambda *told: order.append(told)
    )
    assert [asked for asked, _ in order] == expected
    assert [rows(result_of(outcome)) for _, outcome in order if outcome] == [
        [(number,)] for number in range(200)
    ]


async def test_a_read_sees_every_write_that_was_answered_before(engine: Engine) -> None:
    for number in range(50):
        (written,) = await apply(engine, insert(number))
        (outcome,) = await read(engine, operation("SELECT count(*) FROM items"))
        assert outcome is not None
        assert rows(result_of(outcome)) == [(number + 1,)]
        assert outcome.sequence == written.sequence


async def test_a_failing_read_leaves_the_others_alone(engine: Engine) -> None:
    await done(engine, "INSERT INTO items VALUES (1, 5)")
    asked = ["SELECT n FROM items", "SELECT nonsense", "SELECT * FROM nowhere", "SELECT 2"]
    outcomes = await read(engine, *(operation(query) for query in asked))
    assert all(outcome is not None for outcome in outcomes)
    assert [o.error.reason if o and o.error else "" for o in outcomes] == [
        "",
        "INVALID_STATEMENT",
        "INVALID_STATEMENT",
        "",
    ]


async def test_a_reader_never_writes(engine: Engine) -> None:
    asked = (
        "INSERT INTO items VALUES (1, 0)",
        "INSERT INTO items VALUES (1, 0) RETURNING id",
        "UPDATE items SET n = 0",
        "DELETE FROM items",
        "CREATE TABLE more (a INTEGER)",
        "WITH c (n) AS (SELECT 7) INSERT INTO items SELECT n, n FROM c",
    )
    outcomes = await read(engine, *(operation(query) for query in asked), operation("SELECT 1"))
    assert outcomes[:-1] == [None] * len(asked), "they need the writer"
    assert outcomes[-1] is not None
    assert await selected(engine) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT 1", Access.READ),
        ("  -- a comment\n /* and another */ select 1", Access.READ),
        ("VALUES (1)", Access.READ),
        ("INSERT INTO items VALUES (1, 0)", Access.WRITE),
        ("UPDATE items SET n = 0", Access.WRITE),
        ("DELETE FROM items", Access.WRITE),
        ("CREATE TABLE more (a INTEGER)", Access.WRITE),
        ("", Access.WRITE),
        ("nonsense", Access.WRITE),
    ],
)
async def test_where_a_statement_belongs(place: Place, query: str, expected: Access) -> None:
    assert place.make().access(statement(query)) is expected


@pytest.mark.parametrize(
    "query",
    [
        "WITH c (n) AS (SELECT 1) INSERT INTO items SELECT n, n FROM c",
        "WITH c AS (SELECT 1 AS n), d AS (SELECT 2 AS n) UPDATE items SET n = (SELECT n FROM d)",
        "with c as (select ')' as n /* ( */) delete from items where n in (select n from c)",
    ],
)
async def test_a_write_that_begins_with_a_query_keeps_its_place_among_writes(
    place: Place, query: str
) -> None:
    """If it went to a reader first, a later write of the same caller could overtake it."""
    assert place.make().access(statement(query)) is Access.WRITE


@pytest.mark.parametrize(
    "query",
    [
        ENDLESS_READ,
        "WITH c (n) AS (SELECT replace('insert', 'update', 'delete')) SELECT n FROM c",
        'WITH "insert" AS (SELECT 1 AS n) SELECT n FROM "insert" -- delete',
    ],
)
async def test_a_query_that_only_reads_never_waits_for_the_writer(place: Place, query: str) -> None:
    assert place.make().access(statement(query)) is not Access.WRITE


@pytest.mark.parametrize("how", ["overdue", "cancelled", "over the server's limit"])
async def test_a_read_that_takes_too_long_ends_and_its_reader_goes_on(
    place: Place, how: str
) -> None:
    limit = SHORT_SECONDS if how == "over the server's limit" else 600.0
    engine = await place.open(read_seconds_max=limit)
    loop = asyncio.get_running_loop()
    endless = operation(ENDLESS_READ)
    if how == "overdue":
        endless.deadline = loop.time() + SHORT_SECONDS
    elif how == "cancelled":
        loop.call_later(SHORT_SECONDS, setattr, endless, "cancelled", True)
    async with asyncio.timeout(GUARD_SECONDS):
        outcomes = await read(engine, operation("SELECT 1"), endless, operation("SELECT 2"))
    expected = Cancelled if how == "cancelled" else DeadlineExceeded
    assert isinstance(error_of(outcomes[1]), expected)
    assert [rows(result_of(o)) for o in (outcomes[0], outcomes[2]) if o] == [[(1,)], [(2,)]]
    assert await selected(engine, "SELECT 3") == [(3,)]


@pytest.mark.parametrize("gone", [True, False], ids=["cancelled", "overdue"])
async def test_a_read_that_nobody_waits_for_is_not_begun(engine: Engine, gone: bool) -> None:
    endless = operation(ENDLESS_READ, cancelled=gone, deadline=1e12 if gone else 0.0)
    async with asyncio.timeout(GUARD_SECONDS):
        (outcome,) = await read(engine, endless)
    assert isinstance(error_of(outcome), Cancelled if gone else DeadlineExceeded)


async def test_a_write_over_the_servers_limit_ends_and_the_writer_goes_on(place: Place) -> None:
    engine = await place.open(write_seconds_max=SHORT_SECONDS)
    await done(engine, CREATE)
    endless = "INSERT INTO items WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c)"
    async with asyncio.timeout(GUARD_SECONDS):
        outcomes = await apply(engine, insert(1), operation(f"{endless} SELECT n + 9, n FROM c"))
    assert reasons(outcomes) == ["", "DEADLINE_EXCEEDED"]
    assert reasons(await apply(engine, insert(2))) == [""]
    assert await selected(engine) == [(1, 0), (2, 0)]


async def test_a_slow_read_on_one_reader_does_not_hold_up_another(engine: Engine) -> None:
    slow = operation(ENDLESS_READ)
    running = threading.Event()
    waiting = deque([slow])

    def take() -> Operation | None:
        running.set()
        return waiting.popleft() if waiting else None

    ended: list[Outcome | None] = []
    draining = asyncio.ensure_future(engine.drain(0, take, lambda _, o: ended.append(o)))
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            await asyncio.to_thread(running.wait)
            (quick,) = await read(engine, operation("SELECT 1"), lane=1)
            assert reasons(await apply(engine, insert(1))) == [""]
        assert quick is not None
        assert not draining.done()
        assert not ended
    finally:
        slow.cancelled = True
        await draining
    assert isinstance(error_of(ended[0]), Cancelled)


async def test_a_result_is_bounded_and_the_reader_goes_on(place: Place) -> None:
    engine = await place.open(result_rows_max=10)
    async with asyncio.timeout(GUARD_SECONDS):
        outcomes = await read(engine, operation(ENDLESS_ROWS), operation("SELECT 1"))
    assert isinstance(error_of(outcomes[0]), ResultTooLarge)
    assert outcomes[1] is not None
    assert rows(result_of(outcomes[1])) == [(1,)]


# Pages.


async def test_pages_are_one_snapshot_while_writers_go_on(engine: Engine) -> None:
    await done(engine, *(f"INSERT INTO items VALUES ({n}, 0)" for n in range(10)))
    seen = []
    async with aclosing(engine.pages(operation(ALL_ITEMS), 3)) as pages:
        async for page in pages:
            assert [column.name for column in page.columns] == ["id", "n"]
            seen.append([row[0] for row in rows(page)])
            await done(engine, "UPDATE items SET n = n + 1", "DELETE FROM items WHERE id > 8")
    assert seen == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert await selected(engine, "SELECT count(*) FROM items") == [(9,)]


@pytest.mark.parametrize("count", [0, 3, 6])
async def test_pages_end_at_any_number_of_rows(engine: Engine, count: int) -> None:
    await done(engine, *(f"INSERT INTO items VALUES ({n}, 0)" for n in range(count)))
    found = []
    async for page in engine.pages(operation(ALL_ITEMS), 3):
        assert page.columns, "every page says what its columns are"
        found += rows(page)
    assert found == [(number, 0) for number in range(count)]


async def test_pages_that_are_closed_early_release_their_reader(engine: Engine) -> None:
    for _ in range(20):
        async with asyncio.timeout(GUARD_SECONDS):
            async with aclosing(engine.pages(operation(ENDLESS_ROWS), 10)) as pages:
                async for page in pages:
                    assert len(page.rows) == 10
                    break
    await done(engine, "INSERT INTO items VALUES (1, 0)")
    assert await selected(engine) == [(1, 0)]


@pytest.mark.parametrize("how", ["overdue", "cancelled", "over the server's limit"])
async def test_pages_that_take_too_long_end(place: Place, how: str) -> None:
    limit = SHORT_SECONDS if how == "over the server's limit" else 600.0
    engine = await place.open(query_seconds_max=limit)
    loop = asyncio.get_running_loop()
    endless = operation(ENDLESS_READ)
    if how == "overdue":
        endless.deadline = loop.time() + SHORT_SECONDS
    elif how == "cancelled":
        loop.call_later(SHORT_SECONDS, setattr, endless, "cancelled", True)
    async with asyncio.timeout(GUARD_SECONDS):
        with pytest.raises(Cancelled if how == "cancelled" else DeadlineExceeded):
            await anext(engine.pages(endless, 10))
    async for page in engine.pages(operation("SELECT 1"), 10):
        assert rows(page) == [(1,)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT nonsense", InvalidStatement),
        ("INSERT INTO items VALUES (1, 0)", InvalidStatement),
        ("INSERT INTO items VALUES (1, 0) RETURNING id", InvalidStatement),
        ("COMMIT", StatementForbidden),
    ],
)
async def test_pages_refuse_what_is_no_query(
    engine: Engine, query: str, expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        await anext(engine.pages(operation(query), 10))
    async for page in engine.pages(operation("SELECT 1"), 10):
        assert rows(page) == [(1,)]
    assert await selected(engine) == []
