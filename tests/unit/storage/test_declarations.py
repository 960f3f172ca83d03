"""The declared types of a query's columns."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from messagehub.v1.statement_pb2 import Column
from storage.sqlite import declarations
from storage.sqlite.declarations import Declarations, booleans, columns
from storage.sqlite.reader import Reader
from tests.conformance.operations import operation
from tests.support.calls import statement
from tests.unit.storage.sqlite_parts import runner


@pytest.fixture
def raw() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.execute(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, name VARCHAR(40), alive BOOLEAN, plain)"
    )
    return made


def columns_of(
    known: Declarations, raw: sqlite3.Connection, query: str, *parameters: object, shape: int = 0
) -> list[Column]:
    types = known.types(query, shape)
    return columns(raw.execute(query, parameters), types)


def declared(raw: sqlite3.Connection, query: str, *parameters: object) -> list[str]:
    return [c.declared_type for c in columns_of(Declarations(raw), raw, query, *parameters)]


@pytest.mark.parametrize(
    ("query", "parameters", "types"),
    [
        ("SELECT * FROM items", (), ["INTEGER", "VARCHAR(40)", "BOOLEAN", ""]),
        ("SELECT name AS n, id + 1 FROM items", (), ["VARCHAR(40)", ""]),
        ("SELECT name FROM items WHERE id = ?", (1,), ["VARCHAR(40)"]),
        (
            "SELECT name FROM items WHERE id = ?1 OR name = '?' OR name = ':x'",
            (1,),
            ["VARCHAR(40)"],
        ),
        ("SELECT i.alive FROM items AS i -- is it ?", (), ["BOOLEAN"]),
        ('SELECT alive /* ?2 */ FROM items WHERE "id" = ?', (1,), ["BOOLEAN"]),
        ("WITH c AS (SELECT name FROM items) SELECT name FROM c", (), ["VARCHAR(40)"]),
        ("VALUES (1, 'a')", (), ["", ""]),
        ("SELECT alive, alive FROM items", (), ["BOOLEAN", "BOOLEAN"]),
        ("PRAGMA table_info(items)", (), [""] * 6),
        ("EXPLAIN SELECT 1", (), [""] * 8),
        ("SELECT name FROM items;", (), ["VARCHAR(40)"]),
    ],
)
def test_types_are_those_of_the_columns(
    raw: sqlite3.Connection, query: str, parameters: tuple[object, ...], types: list[str]
) -> None:
    assert declared(raw, query, *parameters) == types


def test_names_are_those_of_the_query(raw: sqlite3.Connection) -> None:
    query = 'SELECT id, id AS "a b", count(*), id FROM items'
    found = columns_of(Declarations(raw), raw, query)
    assert [column.name for column in found] == ["id", "a b", "count(*)", "id"]


def test_named_parameters_are_replaced_too(raw: sqlite3.Connection) -> None:
    query = "SELECT alive FROM items WHERE id IN (:a, @b, $c)"
    assert Declarations(raw).types(query, 0) == ["BOOLEAN"]


def test_nothing_is_left_behind(raw: sqlite3.Connection) -> None:
    for query in ("SELECT * FROM items", "PRAGMA table_info(items)", "VALUES (1)"):
        declared(raw, query)
    assert raw.execute("SELECT count(*) FROM sqlite_temp_master").fetchone() == (0,)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 UNION ALL SELECT id FROM items",
        "SELECT id, (SELECT count(*) FROM items AS i WHERE i.id <= items.id) FROM items",
        "SELECT id FROM items WHERE EXISTS (SELECT 1 FROM items AS i WHERE i.id = items.id)",
        "WITH c AS (SELECT id FROM items) SELECT id, (SELECT max(id) FROM c) FROM c",
    ],
)
def test_a_query_is_not_ended_by_asking_for_its_types(tmp_path: Path, query: str) -> None:
    """Making a temporary view ends the statements that run on the connection."""
    file = tmp_path / "items.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as writing:
        writing.execute("PRAGMA journal_mode = WAL")
        writing.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)")
        writing.executemany("INSERT INTO items VALUES (?)", [(n,) for n in range(1, 6)])
        expected = len(writing.execute(query).fetchall())
        running = runner(file)
        reader = Reader(running, lambda: running, lambda: 0, lambda: 0, lambda: "", database="m")
        for _ in range(2):
            assert len(reader._read(operation(query), statement(query)).rows) == expected
        running.raw.close()


def test_types_follow_the_schema(raw: sqlite3.Connection) -> None:
    known = Declarations(raw)
    query = "SELECT name FROM items"

    def ask(shape: int) -> str:
        return columns_of(known, raw, query, shape=shape)[0].declared_type

    assert ask(0) == "VARCHAR(40)"
    raw.execute("DROP TABLE items")
    raw.execute("CREATE TABLE items (name TEXT)")
    assert ask(0) == "VARCHAR(40)", "remembered as long as nobody tells of a change"
    assert ask(1) == "TEXT"


def test_what_is_remembered_is_bounded(raw: sqlite3.Connection) -> None:
    known = Declarations(raw)
    for number in range(declarations.TEXTS_REMEMBERED + 50):
        query = f"SELECT {number}"
        columns_of(known, raw, query)
    assert len(known._known) == declarations.TEXTS_REMEMBERED
    long = f"SELECT 1 -- {'x' * declarations.TEXT_CHARACTERS_REMEMBERED}"
    columns_of(known, raw, long)
    assert all(query != long for _, query in known._known)


def test_a_change_between_the_snapshot_and_the_types_is_not_remembered_wrongly(
    tmp_path: Path,
) -> None:
    """A reader that began before a schema change must not remember the old types as the new."""
    file = tmp_path / "items.db"
    writing = sqlite3.connect(file, isolation_level=None)
    writing.execute("PRAGMA journal_mode = WAL")
    writing.execute("CREATE TABLE items (name VARCHAR(40))")
    running = runner(file)
    shape = 0
    reader = Reader(running, lambda: running, lambda: 0, lambda: shape, lambda: "", database="m")
    asked = operation("SELECT name FROM items")
    start = running.start

    def started_just_before_a_change(sent: object) -> sqlite3.Cursor:
        nonlocal shape
        cursor = start(sent)  # type: ignore[arg-type]
        if shape == 0:
            writing.execute("DROP TABLE items")
            writing.execute("CREATE TABLE items (name TEXT)")
            shape = 2
        return cursor

    running.start = started_just_before_a_change  # type: ignore[method-assign]
    writing.execute("INSERT INTO items VALUES ('a')")
    first = reader._read(asked, statement("SELECT name FROM items"))
    assert first.columns == [Column(name="name", declared_type="VARCHAR(40)")]
    second = reader._read(asked, statement("SELECT name FROM items"))
    assert second.columns == [Column(name="name", declared_type="TEXT")]
    running.raw.close()
    writing.close()


def test_which_columns_hold_truth_values() -> None:
    columns = [Column(declared_type=t) for t in ("BOOLEAN", "INT", "bool", "", "Boolean")]
    assert booleans(columns) == {0, 2, 4}
