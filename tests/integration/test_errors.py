"""Every error has its code, its reason, and a message that names the field and the remedy."""

import re
from typing import Any

import grpc
import pytest

from messagehub.v1.storage_service_pb2 import ExecuteRequest
from tests.support.calls import CALL_SECONDS, execute_request, query_request, rows, run
from tests.support.refusals import Refusal, refused

MEBIBYTE = 1024 * 1024
MESSAGE_BYTES_MAX = 16 * MEBIBYTE
CONFIGURED = ("auth", "campaign", "catalog", "character", "metrics")


@pytest.fixture(params=["Execute", "Query"])
def ask(request: pytest.FixtureRequest, grpc_stub: Any) -> Any:
    """Sends one statement by both RPCs and gives the rows."""

    def execute(query: str, *parameters: Any, **envelope: Any) -> Any:
        return rows(run(grpc_stub, query, *parameters, **envelope))

    def stream(query: str, *parameters: Any, **envelope: Any) -> Any:
        pages = grpc_stub.Query(query_request(query, *parameters, **envelope), timeout=CALL_SECONDS)
        return [row for page in pages for row in rows(page.result)]

    return execute if request.param == "Execute" else stream


def field_of(refusal: Refusal) -> str:
    (field,) = refusal.fields
    return field


def test_an_unknown_service(ask: Any) -> None:
    with refused("NOT_FOUND", "INVALID_ROUTE") as refusal:
        ask("SELECT 1", service="nobody")
    assert field_of(refusal) == "source_service"
    for service in ("nobody", *CONFIGURED):
        assert service in refusal.message


def test_a_missing_service(ask: Any) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        ask("SELECT 1", service="")
    assert field_of(refusal) == "source_service"
    assert "character" in refusal.message


@pytest.mark.parametrize(
    "database", ["nowhere_db", "../character_db", "character_db ", "CHARACTER_DB"]
)
def test_an_unknown_database(ask: Any, database: str) -> None:
    with refused("NOT_FOUND", "INVALID_ROUTE") as refusal:
        ask("SELECT 1", database=database)
    assert field_of(refusal) == "database"
    assert "character_db" in refusal.message


@pytest.mark.parametrize("query", ["", " ", "\n\t "])
def test_a_missing_query(ask: Any, query: str) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        ask(query)
    assert field_of(refusal) == "statement.query"
    assert "statement.query" in refusal.message


def test_a_missing_statement(grpc_stub: Any) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        grpc_stub.Execute(ExecuteRequest(source_service="character"), timeout=CALL_SECONDS)
    assert field_of(refusal) == "statement.query"


@pytest.mark.parametrize(
    "query", ["-- only this", "/* and that */", ";", ";;", "/* open", "\ufeff"]
)
def test_a_query_without_a_statement(ask: Any, query: str) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
        ask(query)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("SELEC 1", "SELEC"),
        ("SELECT", "incomplete"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELECT nothing", "nothing"),
        ("SELECT no_function(1)", "no_function"),
        ("SELECT 'open", "open"),
        ("SELECT 1 FROM (SELECT 1", "incomplete"),
        ("SELECT 1 WHERE \x00", "null character"),
        ("WITH a AS (SELECT 1) SELECT * FROM b", "b"),
        ("SELECT json('{')", "JSON"),
        ("SELECT abs(-9223372036854775808)", "overflow"),
    ],
)
def test_malformed_sql(ask: Any, query: str, named: str) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT") as refusal:
        ask(query)
    assert named in refusal.message
    assert field_of(refusal).startswith("statement")


@pytest.mark.parametrize("query", ["SELECT 1; SELECT 2", "SELECT 1;;SELECT 2", "SELECT 1; x"])
def test_stacked_statements(ask: Any, query: str) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT") as refusal:
        ask(query)
    assert "one statement" in refusal.message


CONSTRAINTS = {
    "unique": "INSERT INTO {0} (id, u) VALUES (2, 1)",
    "primary_key": "INSERT INTO {0} (id) VALUES (1)",
    "not_null": "INSERT INTO {0} (id, n) VALUES (2, NULL)",
    "check": "INSERT INTO {0} (id, c) VALUES (2, -1)",
    "foreign_key": "INSERT INTO {0} (id, f) VALUES (2, 404)",
    "trigger": "INSERT INTO {0} (id, c) VALUES (2, 13)",
}


@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_a_constraint_violation(grpc_stub: Any, table: str, kind: str) -> None:
    run(
        grpc_stub,
        f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, u UNIQUE, n NOT NULL DEFAULT 0, "
        f"c DEFAULT 1 CHECK (c > 0), f REFERENCES {table} (id))",
    )
    run(
        grpc_stub,
        f"CREATE TRIGGER {table}_t BEFORE INSERT ON {table} WHEN new.c = 13 BEGIN "
        "SELECT raise(ABORT, 'not thirteen'); END",
    )
    run(grpc_stub, f"INSERT INTO {table} (id, u) VALUES (1, 1)")
    with refused("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION") as refusal:
        run(grpc_stub, CONSTRAINTS[kind].format(table))
    assert refusal.metadata["constraint"] == kind
    assert refusal.fields
    assert rows(run(grpc_stub, f"SELECT id FROM {table}")) == [(1,)]


def test_too_many_parameters(ask: Any) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        ask("SELECT ?", *([1] * 32_767))
    assert field_of(refusal) == "statement.parameters"
    assert re.search(r"32,?766", refusal.message)


def test_a_place_beyond_the_limit(ask: Any) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
        ask("SELECT ?32767", 1)


def test_a_query_that_is_too_long(ask: Any) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        ask(f"SELECT 1 -- {'x' * MEBIBYTE}")
    assert field_of(refusal) == "statement.query"
    assert ask(f"SELECT 1 -- {'x' * (MEBIBYTE - 100)}") == [(1,)]


@pytest.mark.parametrize("size", [MESSAGE_BYTES_MAX + 1, 40 * MEBIBYTE])
def test_an_oversize_message(ask: Any, size: int) -> None:
    with refused("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE") as refusal:
        ask("SELECT length(?)", bytes(size))
    assert refusal.metadata["limit_bytes"] == str(MESSAGE_BYTES_MAX)
    assert str(MESSAGE_BYTES_MAX) in refusal.message


def test_a_message_of_just_the_limit(ask: Any) -> None:
    request = execute_request("SELECT length(?)", b"", correlation_id="c")
    blob = bytes(MESSAGE_BYTES_MAX - request.ByteSize() - 20)
    assert ask("SELECT length(?)", blob, correlation_id="c") == [(len(blob),)]


def test_a_value_that_grew_too_large(ask: Any) -> None:
    with refused("RESOURCE_EXHAUSTED", "RESULT_TOO_LARGE"):
        ask("SELECT zeroblob(2000000000)")


COUNTING = (
    "WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted LIMIT ?) "
    "SELECT n, ? FROM counted"
)


def test_a_result_of_too_many_rows(grpc_stub: Any) -> None:
    assert len(run(grpc_stub, COUNTING, 10_000, "").rows) == 10_000
    with refused("RESOURCE_EXHAUSTED", "RESULT_TOO_LARGE") as refusal:
        run(grpc_stub, COUNTING, 10_001, "")
    assert refusal.metadata == {"limit_rows": "10000"}
    assert "Query" in refusal.message


def test_a_result_of_too_many_bytes(grpc_stub: Any) -> None:
    with refused("RESOURCE_EXHAUSTED", "RESULT_TOO_LARGE") as refusal:
        run(grpc_stub, COUNTING, 20, "x" * MEBIBYTE)
    assert "limit_bytes" in refusal.metadata
    assert "Query" in refusal.message


def test_a_change_whose_returned_rows_are_too_many_is_not_made(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (n, text)")
    with refused("RESOURCE_EXHAUSTED", "RESULT_TOO_LARGE"):
        run(grpc_stub, f"INSERT INTO {table} {COUNTING} RETURNING n", 10_001, "")
    assert rows(run(grpc_stub, f"SELECT count(*) FROM {table}")) == [(0,)]


def test_bytes_that_are_no_request(grpc_channel: grpc.Channel) -> None:
    raw = grpc_channel.unary_unary("/messagehub.v1.StorageService/Execute")
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
        raw(b"\xff\xff\xff\xff", timeout=CALL_SECONDS)


def test_a_correlation_id_that_is_too_long(ask: Any) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        ask("SELECT 1", correlation_id="x" * 129)
    assert field_of(refusal) == "correlation_id"


def test_an_error_with_a_lot_to_say_stays_small(ask: Any) -> None:
    # The details travel in a trailer, which gRPC bounds; `refused` checks their size.
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
        ask(f'SELECT "{"é" * 100_000}" FROM "{"✓" * 100_000}"')


def test_a_query_that_writes_is_refused(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (n)")
    for query in (
        f"INSERT INTO {table} VALUES (1)",
        f"INSERT INTO {table} VALUES (1) RETURNING n",
        f"WITH one AS (SELECT 1) INSERT INTO {table} SELECT * FROM one",
        f"DROP TABLE {table}",
    ):
        with refused("INVALID_ARGUMENT", "INVALID_STATEMENT") as refusal:
            list(grpc_stub.Query(query_request(query), timeout=CALL_SECONDS))
        assert "Execute" in refusal.message
    assert rows(run(grpc_stub, f"SELECT count(*) FROM {table}")) == [(0,)]
