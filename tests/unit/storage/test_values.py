"""Values through a real SQLite and back, exactly."""

import math
import sqlite3
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from messagehub.errors import InvalidRequest, ResultTooLarge
from messagehub.v1.statement_pb2 import ResultSet, Statement, Value
from storage.sqlite.values import append_rows, check_size, parameters, to_sql
from tests.support.calls import content_of, value

MARK = b"\x00messagehub:"


def through(sent: Value, declared: str = "") -> Value:
    """What comes back of a value that was stored in a column and selected."""
    raw = sqlite3.connect(":memory:")
    raw.execute(f"CREATE TABLE t (v {declared})")
    raw.execute("INSERT INTO t VALUES (?)", (to_sql(sent),))
    result = ResultSet()
    booleans = frozenset({0}) if declared == "BOOLEAN" else frozenset[int]()
    append_rows(result, raw.execute("SELECT v FROM t").fetchall(), booleans)
    raw.close()
    return result.rows[0].values[0]


texts = st.text(st.characters(exclude_categories=["Cs"]))
contents = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    texts,
    st.binary(),
    st.builds(lambda rest: MARK + rest, st.binary()),
)


@given(contents)
@example(2**63 - 1)
@example(-(2**63))
@example(-0.0)
@example(math.inf)
@example("")
@example("a\x00b")
@example(b"")
@example(MARK)
@example(MARK + b"nan")
@example(MARK + b"blob:" + MARK)
def test_every_value_comes_back_as_it_was(content: Any) -> None:
    back = content_of(through(value(content)))
    assert type(back) is type(content)
    if isinstance(content, float):
        assert struct.pack("d", back) == struct.pack("d", content), "also the sign of zero"
    else:
        assert back == content


def test_nan_comes_back_and_sorts_above_every_number() -> None:
    back = through(Value(real=math.nan))
    assert back.WhichOneof("kind") == "real"
    assert math.isnan(back.real)
    raw = sqlite3.connect(":memory:")
    raw.execute("CREATE TABLE t (v)")
    sent = [math.nan, math.inf, 1e308, 5, -math.inf]
    raw.executemany("INSERT INTO t VALUES (?)", [(to_sql(value(v)),) for v in sent])
    result = ResultSet()
    append_rows(result, raw.execute("SELECT v FROM t ORDER BY v DESC").fetchall(), frozenset())
    assert math.isnan(result.rows[0].values[0].real)
    raw.close()


@pytest.mark.parametrize("truth", [True, False])
def test_truth_values_come_back_from_columns_that_are_declared_so(truth: bool) -> None:
    assert content_of(through(value(truth), "BOOLEAN")) is truth
    plain = content_of(through(value(truth)))
    assert type(plain) is int
    assert plain == int(truth)


@pytest.mark.parametrize("content", [2, -1, "yes", 0.5, None])
def test_what_is_no_truth_value_stays_what_it_is(content: Any) -> None:
    back = content_of(through(value(content), "BOOLEAN"))
    assert (type(back), back) == (type(content), content)


def test_a_value_without_a_kind_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_sql(Value())
    assert caught.value.fields


def test_parameters_are_positional_or_named() -> None:
    positional = Statement(query="q", parameters=[value(1), value("a")])
    assert parameters(positional) == [1, "a"]
    named = Statement(query="q", named_parameters={"n": value(None)})
    assert parameters(named) == {"n": None}


@given(st.lists(st.lists(contents, min_size=1, max_size=5), max_size=5))
def test_the_size_of_rows_is_never_far_below_what_they_take_on_the_wire(rows: list[Any]) -> None:
    result = ResultSet()
    kept = [[to_sql(value(content)) for content in row] for row in rows]
    size = append_rows(result, kept, frozenset())
    assert result.ByteSize() <= 2 * size + 12 * len(rows)


@pytest.mark.parametrize("content", ["", None, 0, b"", "🦜" * 1000])
def test_many_small_or_wide_values_count_as_what_they_are(content: Any) -> None:
    result = ResultSet()
    size = append_rows(result, [[content] * 100] * 100, frozenset())
    assert size >= result.ByteSize() * 0.9


def test_a_size_is_checked_at_its_limit() -> None:
    check_size(100, 100, "less")
    with pytest.raises(ResultTooLarge) as caught:
        check_size(101, 100, "less")
    assert caught.value.metadata["limit_bytes"] == "100"
