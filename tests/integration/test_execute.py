"""`Execute`: parameters, results, routes and the envelope."""

from typing import Any

import grpc
import pytest

from messagehub.v1.statement_pb2 import Statement
from messagehub.v1.storage_service_pb2 import ExecuteRequest, ExecuteResponse
from tests.support.calls import (
    CALL_SECONDS,
    DATABASE,
    SERVICE,
    execute,
    query_request,
    rows,
    run,
    statement,
)
from tests.support.refusals import refused

SERVICES = ("character", "campaign", "auth", "metrics", "catalog")


def run_named(stub: Any, query: str, **named: Any) -> list[Any]:
    request = ExecuteRequest(source_service=SERVICE, statement=statement(query, **named))
    return rows(stub.Execute(request, timeout=CALL_SECONDS).result)


def columns(stub: Any, query: str, *parameters: Any) -> list[tuple[str, str]]:
    """Names and declared types, the same from `Execute` and from every page of `Query`."""
    result = run(stub, query, *parameters)
    found = [(column.name, column.declared_type) for column in result.columns]
    for page in stub.Query(query_request(query, *parameters), timeout=CALL_SECONDS):
        assert [(c.name, c.declared_type) for c in page.result.columns] == found
    return found


# Parameters.


def test_positional_parameters_are_given_in_order(grpc_stub: Any) -> None:
    assert rows(run(grpc_stub, "SELECT ?, ?, ?", 1, "two", 3.5)) == [(1, "two", 3.5)]


def test_numbered_parameters_may_be_used_twice(grpc_stub: Any) -> None:
    assert rows(run(grpc_stub, "SELECT ?2, ?1, ?2", "a", "b")) == [("b", "a", "b")]


def test_named_parameters_have_three_marks(grpc_stub: Any) -> None:
    found = run_named(grpc_stub, "SELECT :a, @b, $c, :a", a=1, b="two", c=None)
    assert found == [(1, "two", None, 1)]


def test_positional_and_named_parameters_do_not_mix(grpc_stub: Any) -> None:
    request = ExecuteRequest(source_service=SERVICE, statement=statement("SELECT ?, :a", 1, a=2))
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        grpc_stub.Execute(request, timeout=CALL_SECONDS)
    assert list(refusal.fields) == ["statement.named_parameters"]


@pytest.mark.parametrize("given", [(), (1,), (1, 2, 3)])
def test_as_many_parameters_as_places_are_needed(grpc_stub: Any, given: tuple[int, ...]) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
        run(grpc_stub, "SELECT ?, ?", *given)


def test_a_missing_named_parameter_is_refused(grpc_stub: Any) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
        run_named(grpc_stub, "SELECT :a, :b", a=1)


def test_as_many_parameters_as_the_limit_says(grpc_stub: Any) -> None:
    places = ", ".join(["(?)"] * 32_766)
    query = f"SELECT count(*), sum(column1) FROM (VALUES {places})"
    assert rows(run(grpc_stub, query, *range(32_766))) == [(32_766, sum(range(32_766)))]


# Results.


def test_columns_tell_their_name_and_declared_type(grpc_stub: Any, table: str) -> None:
    run(
        grpc_stub,
        f'CREATE TABLE {table} (id INTEGER PRIMARY KEY, "index" VARCHAR(40), "two words" DOUBLE '
        'PRECISION, kept, truth BOOLEAN DEFAULT FALSE, "naïve ✓" DECIMAL(10, 2))',
    )
    assert columns(grpc_stub, f"SELECT * FROM {table}") == [
        ("id", "INTEGER"),
        ("index", "VARCHAR(40)"),
        ("two words", "DOUBLE PRECISION"),
        ("kept", ""),
        ("truth", "BOOLEAN"),
        ("naïve ✓", "DECIMAL(10, 2)"),
    ]


def test_a_declared_type_follows_a_column_through_a_query(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name VARCHAR(40))")
    run(grpc_stub, f"CREATE VIEW {table}_view AS SELECT name AS title, id FROM {table}")
    query = (
        f"WITH heroes AS (SELECT * FROM {table}) SELECT heroes.name AS hero, title, upper(title), "
        f"'a ? and :b' AS text, ? AS given FROM heroes JOIN {table}_view ON heroes.id = "
        f"{table}_view.id /* a ? */ WHERE heroes.id > ?2 -- :last ?\n"
    )
    assert columns(grpc_stub, query, "x", 0) == [
        ("hero", "VARCHAR(40)"),
        ("title", "VARCHAR(40)"),
        ("upper(title)", ""),
        ("text", ""),
        ("given", ""),
    ]


def test_columns_of_one_name_stay_apart(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (a INTEGER, b TEXT)")
    run(grpc_stub, f"INSERT INTO {table} VALUES (1, 'x')")
    query = f"SELECT b AS a, a, a FROM {table}"
    assert columns(grpc_stub, query) == [("a", "TEXT"), ("a", "INTEGER"), ("a", "INTEGER")]
    assert rows(run(grpc_stub, query)) == [("x", 1, 1)]


def test_a_changed_table_has_its_new_columns_at_once(grpc_stub: Any, table: str) -> None:
    select = f"SELECT * FROM {table}"
    run(grpc_stub, f"CREATE TABLE {table} (a INTEGER)")
    assert columns(grpc_stub, select) == [("a", "INTEGER")]
    run(grpc_stub, f"ALTER TABLE {table} ADD COLUMN b BOOLEAN")
    run(grpc_stub, f"INSERT INTO {table} VALUES (1, ?)", True)
    assert columns(grpc_stub, select) == [("a", "INTEGER"), ("b", "BOOLEAN")]
    assert rows(run(grpc_stub, select)) == [(1, True)]
    run(grpc_stub, f"DROP TABLE {table}")
    run(grpc_stub, f"CREATE TABLE {table} (a TEXT, b INTEGER)")
    run(grpc_stub, f"INSERT INTO {table} VALUES ('x', 1)")
    assert columns(grpc_stub, select) == [("a", "TEXT"), ("b", "INTEGER")]
    (row,) = rows(run(grpc_stub, select))
    assert row == ("x", 1)
    assert type(row[1]) is int


def test_a_query_without_rows_has_columns_and_a_change_without_returning_none(
    grpc_stub: Any, table: str
) -> None:
    assert not run(grpc_stub, f"CREATE TABLE {table} (a INTEGER)").columns
    result = run(grpc_stub, f"SELECT a FROM {table}")
    assert [column.name for column in result.columns] == ["a"]
    assert not result.rows
    assert not run(grpc_stub, f"INSERT INTO {table} VALUES (1)").columns


def test_what_a_change_affected_is_counted(grpc_stub: Any, table: str) -> None:
    def counts(query: str, *parameters: Any) -> tuple[int, int]:
        result = run(grpc_stub, query, *parameters)
        return result.rows_affected, result.last_insert_id

    assert counts(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, n INTEGER UNIQUE)") == (0, 0)
    assert counts(f"INSERT INTO {table} (n) VALUES (1), (2), (3)") == (3, 3)
    assert counts(f"INSERT INTO {table} VALUES (?, 4)", 2**40) == (1, 2**40)
    assert counts(f"INSERT OR IGNORE INTO {table} (n) VALUES (4)") == (0, 0)
    assert counts(f"UPDATE {table} SET n = n + 10 WHERE n < 3") == (2, 0)
    assert counts(f"SELECT * FROM {table}") == (0, 0)
    assert counts(f"REPLACE INTO {table} (id, n) VALUES (7, 3)") == (1, 7)
    assert counts(f"DELETE FROM {table}") == (4, 0)


def test_what_a_change_behind_with_affected_is_counted(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (n INTEGER)")
    more = "WITH more(n) AS (VALUES (1), (2), (3))"
    inserted = run(grpc_stub, f"{more} INSERT INTO {table} SELECT n FROM more")
    assert (inserted.rows_affected, inserted.last_insert_id) == (3, 3)
    some = f"{more} UPDATE {table} SET n = n + 10 WHERE n IN (SELECT n FROM more WHERE n > 1)"
    assert run(grpc_stub, some).rows_affected == 2
    assert run(grpc_stub, f"{more} DELETE FROM {table} WHERE n > 10").rows_affected == 2


def test_what_a_trigger_did_is_not_counted(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, n)")
    run(grpc_stub, f"CREATE TABLE {table}_log (id INTEGER PRIMARY KEY, n)")
    run(grpc_stub, f"INSERT INTO {table}_log VALUES (500, 0)")
    run(
        grpc_stub,
        f"CREATE TRIGGER {table}_t AFTER INSERT ON {table} BEGIN "
        f"INSERT INTO {table}_log (n) VALUES (new.n); INSERT INTO {table}_log (n) VALUES (new.n); "
        "END",
    )
    result = run(grpc_stub, f"INSERT INTO {table} VALUES (9, 1)")
    assert (result.rows_affected, result.last_insert_id) == (1, 9)
    assert rows(run(grpc_stub, f"SELECT count(*) FROM {table}_log")) == [(3,)]


def test_returning_gives_rows(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)")
    result = run(
        grpc_stub, f"INSERT INTO {table} (name) VALUES (?), (?) RETURNING id, name", "a", "b"
    )
    assert rows(result) == [(1, "a"), (2, "b")]
    assert [column.name for column in result.columns] == ["id", "name"]
    assert result.rows_affected == 2
    deleted = run(grpc_stub, f"DELETE FROM {table} RETURNING *")
    assert sorted(rows(deleted)) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1;",
        "  \n\tSELECT 1 ;  ",
        "/* one */ SELECT 1 -- two",
        "-- one\nSELECT 1 /* two",
        "SELECT 1; -- done\n",
        "select 1",
        "VALUES (1)",
        "WITH one AS (SELECT 1) SELECT * FROM one",
    ],
)
def test_one_statement_may_be_dressed(grpc_stub: Any, query: str) -> None:
    assert rows(run(grpc_stub, query)) == [(1,)]
    pages = list(grpc_stub.Query(query_request(query), timeout=CALL_SECONDS))
    assert [row for page in pages for row in rows(page.result)] == [(1,)]


def test_a_schema_can_be_read(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
    info = rows(run(grpc_stub, f"PRAGMA table_info({table})"))
    assert [row[1:4] for row in info] == [("id", "INTEGER", 0), ("name", "TEXT", 1)]
    assert rows(run(grpc_stub, f"SELECT name FROM pragma_table_info('{table}')")) == [
        ("id",),
        ("name",),
    ]
    master = run(grpc_stub, "SELECT type FROM sqlite_master WHERE name = ?", table)
    assert rows(master) == [("table",)]
    assert rows(run(grpc_stub, f"EXPLAIN QUERY PLAN SELECT * FROM {table}"))


def test_a_read_sees_every_write_that_was_answered(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (n INTEGER)")
    for count in range(1, 51):
        written = execute(grpc_stub, f"INSERT INTO {table} VALUES (?)", count)
        read = execute(grpc_stub, f"SELECT count(*) FROM {table}")
        assert rows(read.result) == [(count,)]
        assert read.sequence >= written.sequence


# Routes and the envelope.


def test_every_service_reaches_its_own_database(grpc_stub: Any, table: str) -> None:
    for service in SERVICES:
        made = execute(grpc_stub, f"CREATE TABLE {table} (owner TEXT)", service=service)
        assert made.database == f"{service}_db"
        run(grpc_stub, f"INSERT INTO {table} VALUES (?)", service, service=service)
    for service in SERVICES:
        found = run(grpc_stub, f"SELECT owner FROM {table}", service=service)
        assert rows(found) == [(service,)]


def test_a_service_may_name_a_database(grpc_stub: Any, table: str) -> None:
    made = execute(grpc_stub, f"CREATE TABLE {table} (a)", service="auth", database="metrics_db")
    assert made.database == "metrics_db"
    assert execute(grpc_stub, f"SELECT * FROM {table}", service="metrics").database == "metrics_db"
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
        run(grpc_stub, f"SELECT * FROM {table}", service="auth")


def test_the_envelope_comes_back(grpc_stub: Any, table: str) -> None:
    answer = execute(grpc_stub, f"CREATE TABLE {table} (a)", correlation_id="trace ✓ 1")
    assert answer.correlation_id == "trace ✓ 1"
    assert answer.database == DATABASE
    assert answer.sequence > 0
    assert answer.schema_version == ""
    assert answer.replayed is False
    pages = grpc_stub.Query(
        query_request(f"SELECT * FROM {table}", correlation_id="trace ✓ 2"), timeout=CALL_SECONDS
    )
    (page,) = pages
    assert (page.correlation_id, page.database) == ("trace ✓ 2", DATABASE)
    assert page.sequence >= answer.sequence
    assert page.replayed is False


def test_a_correlation_id_is_generated(grpc_stub: Any) -> None:
    one, other = execute(grpc_stub, "SELECT 1"), execute(grpc_stub, "SELECT 1")
    assert one.correlation_id
    assert other.correlation_id not in ("", one.correlation_id)


def test_every_write_has_a_sequence_of_its_own(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (a)")
    sequences = [
        execute(grpc_stub, f"INSERT INTO {table} VALUES (?)", n).sequence for n in range(20)
    ]
    assert sequences == sorted(set(sequences))


def test_a_range_of_schema_versions_that_is_not_met_is_refused(grpc_stub: Any) -> None:
    with refused("FAILED_PRECONDITION", "SCHEMA_MISMATCH"):
        execute(grpc_stub, "SELECT 1", schema_version="1")


def test_a_call_is_a_plain_grpc_call(grpc_channel: grpc.Channel) -> None:
    """Bytes in and bytes out, as a client in any language sends them."""
    call = grpc_channel.unary_unary("/messagehub.v1.StorageService/Execute")
    request = ExecuteRequest(source_service=SERVICE, statement=Statement(query="SELECT 42"))
    raw = call(request.SerializeToString(), timeout=CALL_SECONDS)
    assert rows(ExecuteResponse.FromString(raw).result) == [(42,)]
