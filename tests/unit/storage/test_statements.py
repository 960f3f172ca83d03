"""Running one statement: what kind it is, its limits, and how it is interrupted."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagehub.errors import (
    Cancelled,
    DeadlineExceeded,
    HubError,
    InvalidRequest,
    InvalidStatement,
    MessageTooLarge,
    ResultTooLarge,
    StatementForbidden,
)
from messagehub.v1.statement_pb2 import ResultSet
from storage.core.engine import Access
from storage.sqlite import statements
from storage.sqlite.statements import Runner, access, first_word, inserts
from tests.conformance.operations import ENDLESS_READ, operation
from tests.support.calls import Python, rows, statement
from tests.unit.storage.sqlite_parts import Clock, runner, writer


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("SELECT 1", "SELECT"),
        ("select 1", "SELECT"),
        ("\n\t (SELECT 1)", ""),
        ("-- a\n--b\nSELECT", "SELECT"),
        ("/* a */ /**/ INSERT", "INSERT"),
        ("/* a * / */UPDATE", "UPDATE"),
        ("-- only", ""),
        ("/* only", ""),
        ("", ""),
        (";", ""),
        ("SELECT1", "SELECT"),
        ("x" * 10_000, "X" * 10_000),
    ],
)
def test_the_first_word(query: str, word: str) -> None:
    assert first_word(query) == word


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("WITH c AS (SELECT 1) SELECT * FROM c", Access.READ),
        ("WITH RECURSIVE c(n) AS (VALUES (1)) VALUES (2)", Access.READ),
        ("WITH c AS (SELECT 1) REPLACE INTO t SELECT * FROM c", Access.WRITE),
        ("WITH c AS (SELECT '(' || \"a\" FROM t) DELETE FROM t", Access.WRITE),
        ("WITH c AS (SELECT 1 /* ) */ -- )\n) DELETE FROM t", Access.WRITE),
        ("WITH [insert] AS (SELECT 1) SELECT 1", Access.READ),
        ("WITH `delete` AS (SELECT 1) SELECT 1", Access.READ),
        ("WITH c AS (SELECT 1)", Access.UNSURE),
        ("WITH", Access.UNSURE),
        ("WITH c AS (SELECT 'unterminated", Access.UNSURE),
        ("EXPLAIN INSERT INTO t VALUES (1)", Access.READ),
        ("PRAGMA table_info(t)", Access.READ),
        ("BEGIN", Access.WRITE),
    ],
)
def test_where_a_statement_belongs(query: str, expected: Access) -> None:
    assert access(statement(query)) is expected


@given(st.text(alphabet="()'\"`[]-/*\n WITHSELECTinsert,", max_size=60))
def test_any_text_belongs_somewhere(text: str) -> None:
    assert access(statement("WITH " + text)) in Access


@pytest.mark.parametrize("query", ["WITH " + "(" * 200_000, "'" * 200_001, "/*" * 100_000])
def test_long_texts_are_looked_at_quickly_and_not_kept(query: str) -> None:
    before = statements._remembered_words.cache_info().currsize
    access(statement(query))
    assert statements._remembered_words.cache_info().currsize == before


@pytest.mark.parametrize("query", ["INSERT INTO t", "REPLACE INTO t", "WITH c AS (SELECT 1)"])
def test_what_may_insert(query: str) -> None:
    assert inserts(statement(query))
    assert not inserts(statement("UPDATE t"))


def run(running: Runner, query: str, *parameters: Python, **named: Python) -> ResultSet:
    running.begin(operation(query), 60.0)
    result = ResultSet()
    try:
        running.fetch(running.start(statement(query, *parameters, **named)), result)
    finally:
        running.end()
    return result


def test_a_statement_with_parameters_of_both_kinds() -> None:
    running = runner()
    assert rows(run(running, "SELECT ?, ?", 1, "a")) == [(1, "a")]
    assert rows(run(running, "SELECT ?2, ?1", 1, "a")) == [("a", 1)]
    assert rows(run(running, "SELECT :x, @y, $z", x=1, y="a", z=None)) == [(1, "a", None)]


@pytest.mark.parametrize(
    ("query", "parameters", "named", "expected"),
    [
        ("SELECT ?", (), {}, InvalidStatement),
        ("SELECT ?", (1, 2), {}, InvalidStatement),
        ("SELECT :x", (), {"y": 1}, InvalidStatement),
        ("SELECT 1; SELECT 2", (), {}, InvalidStatement),
        ("SELECT 1\x00", (), {}, InvalidStatement),
        ("-- nothing", (), {}, InvalidStatement),
        ("VACUUM", (), {}, StatementForbidden),
        ("vacuum into 'x'", (), {}, StatementForbidden),
    ],
)
def test_what_does_not_fit_is_refused(
    query: str, parameters: tuple[Any, ...], named: dict[str, Any], expected: type[HubError]
) -> None:
    running = runner()
    with pytest.raises(expected) as caught:
        run(running, query, *parameters, **named)
    assert caught.value.fields
    assert rows(run(running, "SELECT 1")) == [(1,)]


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_the_length_of_a_statement_is_bounded(over: int) -> None:
    running = runner(statement_bytes_max=1000)
    query = "SELECT 1 -- é"
    query += "x" * (1000 + over - len(query.encode()))
    if over > 0:
        with pytest.raises(MessageTooLarge) as caught:
            run(running, query)
        assert caught.value.metadata["limit_bytes"] == "1000"
    else:
        assert rows(run(running, query)) == [(1,)]


@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("named", [True, False])
def test_the_number_of_parameters_is_bounded(over: int, named: bool) -> None:
    running = runner(parameters_max=10)
    count = 10 + over
    if named:
        query = "SELECT " + ", ".join(f":p{n}" for n in range(count))
        asking = statement(query, **{f"p{n}": n for n in range(count)})
    else:
        asking = statement("SELECT " + ", ".join("?" * count), *range(count))
    running.begin(operation("x"), 60.0)
    if over > 0:
        with pytest.raises(InvalidRequest) as caught:
            running.start(asking)
        assert caught.value.metadata["limit"] == "10"
    else:
        assert running.start(asking).fetchall() == [tuple(range(count))]


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_the_size_of_a_value_is_bounded(over: int) -> None:
    running = runner(value_bytes_max=5000)
    size = 5000 + over
    for query, parameters in (
        ("SELECT length(?)", ("x" * size,)),
        ("SELECT length(?)", (b"x" * size,)),
        (f"SELECT length(zeroblob({size}) || '')", ()),
    ):
        running.begin(operation("x"), 60.0)
        if over > 0:
            with pytest.raises(sqlite3.Error):
                running.start(statement(query, *parameters)).fetchall()
        else:
            assert running.start(statement(query, *parameters)).fetchall() in (
                [(size,)],
                [(0,)],
            )


NUMBERS = "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c LIMIT"


@pytest.mark.parametrize("over", [-1, 0, 1, 300])
def test_the_rows_of_a_result_are_bounded(over: int) -> None:
    running = runner(result_rows_max=500)
    if over > 0:
        with pytest.raises(ResultTooLarge) as caught:
            run(running, f"{NUMBERS} {500 + over}")
        assert caught.value.metadata["limit_rows"] == "500"
    else:
        assert len(run(running, f"{NUMBERS} {500 + over}").rows) == 500 + over
    assert rows(run(running, "SELECT 1")) == [(1,)]


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_the_bytes_of_a_result_are_bounded(over: int) -> None:
    running = runner(result_bytes_max=10_000)
    half = 5000 - 4  # a value takes four bytes besides its content
    texts = ("x" * half, "x" * (half + over))
    query = "SELECT ? UNION ALL SELECT ?"
    if over > 0:
        with pytest.raises(ResultTooLarge) as caught:
            run(running, query, *texts)
        assert caught.value.metadata["limit_bytes"] == "10000"
    else:
        assert len(run(running, query, *texts).rows) == 2


def test_a_large_result_is_refused_before_it_is_all_in_memory() -> None:
    running = runner(result_bytes_max=10_000)
    made: list[int] = []
    running.raw.create_function("made", 1, lambda n: made.append(n) or "x" * 1000)
    with pytest.raises(ResultTooLarge):
        run(running, f"SELECT made(n) FROM ({NUMBERS} 900)")
    assert len(made) < 50, "rows are fetched by the size of the last ones"


# Interruption.


def test_an_operation_that_is_too_late_or_cancelled_is_not_begun() -> None:
    running = runner(clock=Clock(1000.0))
    running.begin(operation("x", deadline=1000.1), 60.0)
    with pytest.raises(DeadlineExceeded):
        running.begin(operation("x", deadline=1000.0), 60.0)
    with pytest.raises(Cancelled):
        running.begin(operation("x", cancelled=True), 60.0)


@pytest.mark.parametrize("how", ["overdue", "cancelled", "over the limit"])
def test_a_running_statement_is_interrupted_and_the_connection_goes_on(how: str) -> None:
    clock = Clock()
    running = runner(clock=clock)
    asked = operation(ENDLESS_READ, deadline=1005.0 if how == "overdue" else 1e9)

    def look(_: object) -> int:
        if how == "cancelled":
            asked.cancelled = True
        else:
            clock.now = 1006.0
        return 1

    running.raw.create_function("look", 1, look)
    running.begin(asked, 5.0 if how == "over the limit" else 60.0)
    query = ENDLESS_READ.replace("count(*)", "count(*), max(CASE n WHEN 10 THEN look(n) END)")
    with pytest.raises(sqlite3.OperationalError) as caught:
        running.start(statement(query))
    assert caught.value.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT
    expected = Cancelled if how == "cancelled" else DeadlineExceeded
    assert isinstance(running.why_interrupted(asked), expected)
    running.end()
    assert rows(run(running, "SELECT 1")) == [(1,)]


def test_between_operations_nothing_is_interrupted() -> None:
    clock = Clock()
    running = runner(clock=clock)
    running.begin(operation("x", deadline=1001.0), 60.0)
    running.end()
    clock.now = 2000.0
    assert len(running.raw.execute(f"{NUMBERS} 200000").fetchall()) == 200_000


@pytest.mark.parametrize("mark", ["\ufeff", "\ufeff \n", "-- a\n\ufeff"])
def test_a_byte_order_mark_is_white_space(mark: str) -> None:
    running = runner()
    assert rows(run(running, f"{mark}SELECT 7")) == [(7,)]
    assert access(statement(f"{mark}SELECT 7")) is Access.READ


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (";SELECT 1", "begins with a semicolon"),
        (" \n;; SELECT 1", "begins with a semicolon"),
        (";", "begins with no keyword"),
        (" ; ;\ufeff", "begins with no keyword"),
        ("(SELECT 1)", "begins with no keyword"),
        ("SELECT 1; SELECT 2", "one statement"),
    ],
)
def test_what_is_no_single_statement_is_told_apart(query: str, said: str) -> None:
    with pytest.raises(InvalidStatement) as caught:
        run(runner(), query)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("query", "named", "superfluous"),
    [
        ("SELECT :a", {"a": 1, "b": 2}, "b"),
        ("SELECT 1", {"a": 1}, "a"),
        (
            'SELECT \':a\', ":b", 1 -- :a\n/* @b */ FROM (SELECT 1 AS ":b")',
            {"a": 1, "b": 2},
            "a, b",
        ),
        ("SELECT ?", {"a": 1}, "a"),
        ("SELECT :A", {"a": 1, "A": 2}, "a"),
    ],
)
def test_a_named_parameter_that_is_nowhere_in_the_statement_is_named(
    query: str, named: dict[str, int], superfluous: str
) -> None:
    with pytest.raises(InvalidStatement) as caught:
        run(runner(), query, **named)
    assert f"no parameter named {superfluous}:" in caught.value.message
    assert list(caught.value.fields) == [f"statement.named_parameters[{superfluous[0]}]"]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("SELECT :a", "a"),
        ("SELECT @a_1", "a_1"),
        ("SELECT $a", "a"),
        ("SELECT :a$b", "a$b"),
        ("SELECT $a::b::c", "a::b::c"),
        ("SELECT $a(b)", "a(b)"),
        ("SELECT :naïve", "naïve"),
        ("SELECT :a→b", "a→b"),
        ("SELECT 1-:a+1", "a"),
        ("SELECT (:a)", "a"),
        ("SELECT CASE WHEN :a THEN :a END", "a"),
        ("SELECT 'it''s' || :a", "a"),
    ],
)
def test_every_name_that_sqlite_takes_can_be_given(query: str, name: str) -> None:
    assert len(rows(run(runner(), query, **{name: 1}))) == 1


def test_who_returns_too_much_is_not_told_to_stream(tmp_path: Path) -> None:
    making, _ = writer(tmp_path / "items_db.db", result_rows_max=2)
    create, returning, reading = making.apply(
        [
            operation("CREATE TABLE items (n)"),
            operation("INSERT INTO items VALUES (1), (2), (3) RETURNING n"),
            operation("SELECT 1 UNION SELECT 2 UNION SELECT 3", submitted=True),
        ]
    ).outcomes
    assert create.error is None
    assert isinstance(returning.error, ResultTooLarge)
    assert "return less" in returning.error.message
    assert "nothing was changed" in returning.error.message
    assert isinstance(reading.error, ResultTooLarge)
    assert "use Query, which streams" in reading.error.message
