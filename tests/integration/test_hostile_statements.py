"""Statements that look harmless and once were not: each hurts at most the one who sends it."""

from typing import Any

import pytest

from tests.support.calls import rows, run
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
