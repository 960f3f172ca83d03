"""Every value comes back as it was sent: straight, and through columns that keep it."""

import math
import struct
from typing import Any

import pytest
from google.protobuf import struct_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from messagehub.v1.statement_pb2 import Value
from tests.support.calls import (
    CALL_SECONDS,
    content_of,
    execute_request,
    query_request,
    rows,
    run,
    value,
)
from tests.support.refusals import refused

MEBIBYTE = 1024 * 1024
INTEGERS = (0, 1, -1, 2**31, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63))
REALS = (
    *(0.0, -0.0, 1.0, -1.5, 0.1, 2.0**53, 1e300),
    *(5e-324, 2.2250738585072014e-308, 1.7976931348623157e308),
    *(math.inf, -math.inf, math.nan),
)
TEXTS = (
    "",
    " ",
    "plain",
    "naïve ✓ Ωμέγα 漢字",
    "\x00",
    "before\x00after",
    "\U0001f600 \U00010000 \U0010ffff",
    "e\u0301 combines, \u202e turns, \ufeff marks",
    "\ud7ff\ue000\ufffd\ufffe\uffff",
    "line\r\nfeed\ttab\x7f\x1b",
    "'; DROP TABLE heroes; --",
    "12",
    "x" * MEBIBYTE,
)
BLOBS = (
    b"",
    b"\x00",
    bytes(range(256)),
    b"text in a blob",
    b"\xff\xfe\x00not UTF-8",
    # What the storage server itself keeps a NaN as, and its beginning.
    b"\x00messagehub:nan",
    b"\x00messagehub:blob:",
    b"\x00messagehub:",
    b"y" * MEBIBYTE,
)
NULL = Value(null=struct_pb2.NULL_VALUE)
# Declared type to the values that a column of that type keeps as they are; others are converted
# by SQLite's rules (sqlite.org/datatype3.html), which are part of the engine. One of them: a REAL
# column keeps whole numbers as integers, which have no negative zero.
TYPED: dict[str, tuple[Any, ...]] = {
    "INTEGER": INTEGERS,
    "REAL": tuple(real for real in REALS if math.copysign(1, real) > 0 or real != 0),
    "TEXT": TEXTS,
    "BLOB": BLOBS,
}
EVERY = (None, *INTEGERS, *REALS, *TEXTS, *BLOBS)


def name_of(content: Any) -> str:
    text = repr(content)
    return text if len(text) <= 30 else f"{text[:20]}…{len(content)}"


def assert_same(back: Value, sent: Value) -> None:
    """The same kind and the same bits; one NaN is as good as another."""
    assert back.WhichOneof("kind") == sent.WhichOneof("kind")
    if sent.WhichOneof("kind") == "real":
        if math.isnan(sent.real):
            assert math.isnan(back.real)
        else:
            assert struct.pack("<d", back.real) == struct.pack("<d", sent.real)
    else:
        assert content_of(back) == content_of(sent)


def only_value(stub: Any, query: str, *parameters: Any) -> Value:
    (row,) = run(stub, query, *parameters).rows
    (one,) = row.values
    return one


def queried_value(stub: Any, query: str, *parameters: Any) -> Value:
    pages = list(stub.Query(query_request(query, *parameters), timeout=CALL_SECONDS))
    (row,) = [row for page in pages for row in page.result.rows]
    (one,) = row.values
    return one


@pytest.mark.parametrize("content", EVERY, ids=name_of)
def test_a_value_comes_straight_back(grpc_stub: Any, content: Any) -> None:
    assert_same(only_value(grpc_stub, "SELECT ?", content), value(content))
    assert_same(queried_value(grpc_stub, "SELECT ?", content), value(content))


@pytest.mark.parametrize("content", EVERY, ids=name_of)
def test_an_untyped_column_keeps_a_value(grpc_stub: Any, table: str, content: Any) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (kept)")
    returned = only_value(grpc_stub, f"INSERT INTO {table} VALUES (?) RETURNING kept", content)
    assert_same(returned, value(content))
    assert_same(only_value(grpc_stub, f"SELECT kept FROM {table}"), value(content))
    assert_same(queried_value(grpc_stub, f"SELECT kept FROM {table}"), value(content))


@pytest.mark.parametrize("declared", TYPED)
def test_a_column_of_its_type_keeps_a_value(grpc_stub: Any, table: str, declared: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (place INTEGER PRIMARY KEY, kept {declared})")
    sent = [value(content) for content in (None, *TYPED[declared])]
    for place, one in enumerate(sent):
        run(grpc_stub, f"INSERT INTO {table} VALUES (?, ?)", place, one)
    select = f"SELECT kept FROM {table} WHERE place = ?"
    for place, one in enumerate(sent):
        assert_same(only_value(grpc_stub, select, place), one)
        assert_same(queried_value(grpc_stub, select, place), one)


def test_a_column_of_a_strict_table_keeps_a_value(grpc_stub: Any, table: str) -> None:
    columns = ", ".join(f"c_{declared} {declared}" for declared in TYPED)
    run(grpc_stub, f"CREATE TABLE {table} (place INTEGER PRIMARY KEY, {columns}) STRICT")
    for declared, contents in TYPED.items():
        for content in contents:
            if declared == "REAL" and math.isnan(content):
                continue  # SQLite has no NaN, so a strict REAL column has no room for one
            insert = f"INSERT INTO {table} (c_{declared}) VALUES (?) RETURNING place"
            place = only_value(grpc_stub, insert, content)
            select = f"SELECT c_{declared} FROM {table} WHERE place = ?"
            assert_same(only_value(grpc_stub, select, place), value(content))


def test_a_real_column_makes_negative_zero_a_zero(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (kept REAL)")
    run(grpc_stub, f"INSERT INTO {table} VALUES (?)", -0.0)
    back = only_value(grpc_stub, f"SELECT kept FROM {table}")
    assert (back.WhichOneof("kind"), back.real) == ("real", 0.0)


def test_an_empty_blob_and_an_empty_text_are_not_null(grpc_stub: Any) -> None:
    answer = run(grpc_stub, "SELECT ? IS NULL, ? IS NULL, ? IS NULL", "", b"", None)
    assert rows(answer) == [(0, 0, 1)]


def test_values_compare_as_numbers_and_nan_sorts_above_them(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (kept REAL)")
    for content in (math.nan, 1.0, -math.inf, 0.0, math.inf, None):
        run(grpc_stub, f"INSERT INTO {table} VALUES (?)", content)
    found = [row[0] for row in rows(run(grpc_stub, f"SELECT kept FROM {table} ORDER BY kept"))]
    assert found[:-1] == [None, -math.inf, 0.0, 1.0, math.inf]
    assert math.isnan(found[-1])
    assert rows(run(grpc_stub, f"SELECT count(*) FROM {table} WHERE kept < 10")) == [(3,)]


@pytest.mark.parametrize("truth", [True, False])
def test_a_boolean_is_an_integer_unless_its_column_says_otherwise(
    grpc_stub: Any, table: str, truth: bool
) -> None:
    integer = Value(integer=int(truth))
    assert_same(only_value(grpc_stub, "SELECT ?", truth), integer)
    run(grpc_stub, f"CREATE TABLE {table} (plain, truth BOOLEAN, short bool NOT NULL)")
    run(grpc_stub, f"INSERT INTO {table} VALUES (?, ?, ?)", truth, truth, truth)
    for get in (only_value, queried_value):
        assert_same(get(grpc_stub, f"SELECT plain FROM {table}"), integer)
        assert_same(get(grpc_stub, f"SELECT truth FROM {table}"), Value(boolean=truth))
        assert_same(get(grpc_stub, f"SELECT short FROM {table}"), Value(boolean=truth))
        # An expression has no declared type.
        assert_same(get(grpc_stub, f"SELECT +truth FROM {table}"), integer)


def test_a_boolean_column_keeps_what_is_no_boolean(grpc_stub: Any, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (truth BOOLEAN)")
    for content in (None, 2, -1, "yes", b"\x01", 0.5):
        run(grpc_stub, f"DELETE FROM {table}")
        run(grpc_stub, f"INSERT INTO {table} VALUES (?)", content)
        assert_same(only_value(grpc_stub, f"SELECT truth FROM {table}"), value(content))


def test_ten_megabytes_come_back(grpc_stub: Any, table: str) -> None:
    blob = bytes(range(256)) * (10 * MEBIBYTE // 256)
    text = "é" * (5 * MEBIBYTE)
    run(grpc_stub, f"CREATE TABLE {table} (place INTEGER PRIMARY KEY, kept)")
    for place, content in enumerate((blob, text)):
        assert only_value(grpc_stub, "SELECT ?", content) == value(content)
        run(grpc_stub, f"INSERT INTO {table} VALUES (?, ?)", place, content)
        select = f"SELECT kept FROM {table} WHERE place = ?"
        assert only_value(grpc_stub, select, place) == value(content)
        assert queried_value(grpc_stub, select, place) == value(content)
    lengths = run(grpc_stub, f"SELECT length(kept) FROM {table} ORDER BY place")
    assert rows(lengths) == [(len(blob),), (len(text),)]


def test_a_value_without_a_kind_is_refused_by_its_place(grpc_stub: Any) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        run(grpc_stub, "SELECT ?, ?", 1, Value())
    assert list(refusal.fields) == ["statement.parameters[1]"]
    request = execute_request("SELECT :hero")
    request.statement.named_parameters["hero"].SetInParent()
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        grpc_stub.Execute(request, timeout=CALL_SECONDS)
    assert list(refusal.fields) == ["statement.named_parameters[hero]"]


ANY_VALUE = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=40),
    st.binary(max_size=40),
)


@settings(deadline=None, max_examples=60)
@given(contents=st.lists(ANY_VALUE, min_size=1, max_size=20))
def test_any_row_comes_back(grpc_stub: Any, contents: list[Any]) -> None:
    places = ", ".join("?" for _ in contents)
    (row,) = run(grpc_stub, f"SELECT {places}", *contents).rows
    for back, sent in zip(row.values, contents, strict=True):
        assert_same(back, value(sent))
