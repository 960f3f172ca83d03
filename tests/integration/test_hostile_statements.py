"""Statements that look harmless and once were not: each hurts at most the one who sends it."""

from typing import Any

import pytest

from tests.support.calls import query_request, rows, run
from tests.support.refusals import refused


@pytest.mark.parametrize(
    "query",
    [
        "/**/" * 200 + "1",
        "WITH " + "[" * 100_000,
        "WITH " + "'" * 99_999,
        "SELECT " + "/*" * 50_000,
        "-- \n" * 20_000,
    ],
    ids=["comments", "brackets", "quotes", "open comments", "empty lines"],
)
def test_a_text_that_is_slow_to_take_apart_is_refused_like_any_other(
    grpc_stub: Any, query: str
) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
        run(grpc_stub, query)


def test_what_sqlite_says_in_no_known_encoding_is_the_statements_own_error(grpc_stub: Any) -> None:
    run(grpc_stub, "CREATE TABLE hostile_encoding (a)")
    expression = "json_extract('{}', CAST(x'24ff' AS TEXT))"
    for query in (f"SELECT {expression}", f"INSERT INTO hostile_encoding VALUES ({expression})"):
        with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
            run(grpc_stub, query)
    run(grpc_stub, "INSERT INTO hostile_encoding VALUES (1)")
    assert rows(run(grpc_stub, "SELECT a FROM hostile_encoding")) == [(1,)]


@pytest.mark.parametrize(
    "definition",
    [
        "x REFERENCES _messagehub_journal (record)",
        "x REFERENCES _MessageHub_journal (sequence) ON DELETE CASCADE",
        "x, FOREIGN KEY (x) REFERENCES _messagehub_meta DEFERRABLE INITIALLY DEFERRED",
    ],
)
def test_no_foreign_key_reaches_the_hubs_tables(grpc_stub: Any, definition: str) -> None:
    with refused("PERMISSION_DENIED", "STATEMENT_FORBIDDEN"):
        run(grpc_stub, f"CREATE TABLE hostile_reference ({definition})")
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
        run(grpc_stub, "SELECT * FROM hostile_reference")


ZEROS = "hex(zeroblob(8000000))"
NEARLY = "hex(zeroblob(4000000)) || '1'"


# Each of these took from several seconds to hours, in which nothing could interrupt it.
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (f"instr({ZEROS}, {NEARLY})", 0),
        (f"length(replace({ZEROS}, {NEARLY}, 'x'))", 16_000_000),
        (f"{ZEROS} LIKE '%' || substr({ZEROS}, 1, 990) || '1'", 0),
        (f"{ZEROS} GLOB '*' || substr({ZEROS}, 1, 990) || '1'", 0),
        (f"length(trim({ZEROS}, '0'))", 0),
        (f"length(replace({ZEROS}, '0', 'xxxxxxxx'))", None),
        (f"{ZEROS} LIKE '%_' || substr({ZEROS}, 1, 990) || '1'", None),
        ("printf('%.2000000000c', 'x')", None),
        ("length(printf(replace(hex(zeroblob(500)), '00', '%.1000000000c'), 'x'))", None),
        ("printf('%.*c', 2000000000, 'x')", None),
    ],
)
def test_no_call_of_a_function_takes_long(grpc_stub: Any, expression: str, expected: Any) -> None:
    if expected is not None:
        assert rows(run(grpc_stub, f"SELECT {expression}")) == [(expected,)]
        page = next(iter(grpc_stub.Query(query_request(f"SELECT {expression}"))))
        assert rows(page.result) == [(expected,)]
        return
    with refused("RESOURCE_EXHAUSTED", "RESULT_TOO_LARGE"):
        run(grpc_stub, f"SELECT {expression}")
    with refused("RESOURCE_EXHAUSTED", "RESULT_TOO_LARGE"):
        next(iter(grpc_stub.Query(query_request(f"SELECT {expression}"))))


def test_a_writer_meets_long_values_as_a_reader_does(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (a, b AS (instr(a, '1')), CHECK (a LIKE '%1'))")
    run(grpc_stub, f"CREATE INDEX {table}_trimmed ON {table} (trim(a, '0'))")
    insert = f"INSERT INTO {table} VALUES ({NEARLY}), ('01')"
    for sequence in (1, 2):
        assert run(grpc_stub, insert).rows_affected == 2
        found = rows(run(grpc_stub, f"SELECT b, count(*) FROM {table} GROUP BY b ORDER BY b"))
        assert found == [(2, sequence), (8_000_001, sequence)]
    with refused("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION"):
        run(grpc_stub, f"INSERT INTO {table} VALUES ({ZEROS})")
    assert rows(run(grpc_stub, "PRAGMA integrity_check")) == [("ok",)]


def test_a_statement_that_doubles_and_doubles_is_refused_before_it_is_compiled(
    grpc_stub: Any,
) -> None:
    links = ", ".join(f"c{n + 1}(x) AS (SELECT a.x FROM c{n} a, c{n} b)" for n in range(30))
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT") as refusal:
        run(grpc_stub, f"WITH c0(x) AS (SELECT 1), {links} SELECT count(*) FROM c30")
    assert refusal.metadata["limit_words"]


def test_names_of_columns_count_as_a_result(grpc_stub: Any) -> None:
    """Two thousand columns of half a megabyte each do not break the line to the storage server."""
    name = "n" * 500_000
    wide = f'WITH w AS (SELECT 1 AS "{name}") SELECT {", ".join(["w.*"] * 100)} FROM w'
    with refused("RESOURCE_EXHAUSTED", "RESULT_TOO_LARGE"):
        run(grpc_stub, wide)
    with refused("RESOURCE_EXHAUSTED", "RESULT_TOO_LARGE"):
        next(iter(grpc_stub.Query(query_request(wide))))
    assert rows(run(grpc_stub, "SELECT 1")) == [(1,)]
