"""Functions that take long on long values: found in any text, and replaced without a difference."""

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.sqlite import costly
from storage.sqlite.linear import LinearFunctions

VALUE_BYTES_MAX = 100_000


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("SELECT instr(a, b) FROM t", {"instr"}),
        ("SELECT INSTR (a, b), rTrim(c)", {"instr", "rtrim"}),
        ('SELECT "replace"/* ( */ -- (\n (a, b, c)', {"replace"}),
        ("SELECT [trim]\ufeff(a), `ltrim`\t(b)", {"trim", "ltrim"}),
        ("SELECT a LIKE b, c NOT GLOB d", {"like", "glob"}),
        ("SELECT json_patch(a, b), jsonb_patch(a, b)", {"json_patch", "jsonb_patch"}),
        ("REPLACE INTO t VALUES (1)", set()),
        ("INSERT OR REPLACE INTO t (format, trim) VALUES (1, 2)", set()),
        ("SELECT format, liked, instr FROM t", set()),
        ("SELECT printf('%05d|%-10s|%.2f%%', a, b, c)", set()),
        ("SELECT printf('it''s %d', a)", set()),
        ("SELECT printf('%.1000c', a)", {"printf"}),
        ("SELECT printf('%*d', a, b)", {"printf"}),
        ("SELECT printf('%.*c', a, b)", {"printf"}),
        ("SELECT printf(a, b)", {"printf"}),
        ("SELECT format('%d' || a, b)", {"format"}),
    ],
)
def test_what_a_text_may_call(text: str, names: set[str]) -> None:
    assert costly.named(text) == names


def test_a_long_text_is_read_too() -> None:
    assert costly.named("SELECT 1" + " " * 10_000 + ", instr(a, b)") == {"instr"}


@pytest.mark.parametrize(
    ("names", "short"), [({"instr"}, 8000), ({"instr", "trim"}, 1000), ({"like", "printf"}, 0)]
)
def test_how_long_values_may_be(names: set[str], short: int) -> None:
    assert costly.short_bytes(names, 8000) == short


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    """SQLite as it is, and with linear functions for which every value is long."""
    native, linear = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
    LinearFunctions(
        linear, short_bytes=0, value_bytes_max=VALUE_BYTES_MAX, pattern_bytes=1000
    ).install()
    yield native, linear
    native.close()
    linear.close()


TEXTS = st.text("ab%*xÄä ", max_size=12)
VALUES = st.one_of(
    TEXTS,
    TEXTS.map(str.encode),
    st.integers(-200, 200),
    st.none(),
    st.sampled_from([1.5, 1e300, -0.0]),
)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT instr(?1, ?2)",
        "SELECT replace(?1, ?2, ?3)",
        "SELECT trim(?1), ltrim(?1), rtrim(?1)",
        "SELECT trim(?1, ?2), ltrim(?1, ?2), rtrim(?1, ?2)",
        "SELECT ?1 LIKE ?2",
        "SELECT ?1 GLOB ?2",
    ],
)
@given(VALUES, VALUES, VALUES)
@example("aXbxb", "%x%b", "")
@example("abab", "a%b%ab", "")
@example("ab", "ab%b", "")
def test_the_linear_functions_give_what_sqlite_gives(
    pair: tuple[sqlite3.Connection, sqlite3.Connection],
    query: str,
    first: object,
    second: object,
    third: object,
) -> None:
    given_values = (first, second, third)[: max(1, query.count("?3") * 3, query.count("?2") and 2)]
    found = [connection.execute(query, given_values).fetchone() for connection in pair]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "call",
    [
        "replace(?1, 'a', 'bb')",
        "?1 LIKE '%_b'",
        "?1 GLOB '*[b]'",
        "?1 GLOB '*?'",
        "?1 LIKE '" + "%b" * 501 + "'",
        "json_patch(?1, '{}')",
        "strftime(?1)",
        "printf('%.100001c', 'x')",
        "printf('%*d', 100001, 1)",
        "printf('%.*c', '100001', 'x')",
        "printf('%.60000c%.60000c', 'x', 'y')",
        "format('%100001d', 1)",
    ],
)
def test_what_has_no_linear_way_is_refused_as_too_large(
    pair: tuple[sqlite3.Connection, sqlite3.Connection], call: str
) -> None:
    with pytest.raises(sqlite3.DataError) as failure:
        pair[1].execute(f"SELECT {call} WHERE ?1 <> ''", ("a" * 60_000,))
    assert costly.is_too_big(failure.value)


def test_more_different_characters_than_can_be_looked_up_are_refused(
    pair: tuple[sqlite3.Connection, sqlite3.Connection],
) -> None:
    many = "".join(map(chr, range(1000, 1257)))
    with pytest.raises(sqlite3.DataError):
        pair[1].execute("SELECT trim('x', ?)", (many,))
    assert pair[1].execute("SELECT trim(?, ?)", (f"{many}x", many[:256])).fetchone()


def test_a_schema_may_call_them() -> None:
    raw = sqlite3.connect(":memory:", isolation_level=None)
    raw.execute("PRAGMA trusted_schema = OFF")
    raw.execute("CREATE TABLE t (a, b AS (instr(a, 'x')) STORED, CHECK (a LIKE '%x'))")
    raw.execute("CREATE INDEX i ON t (trim(a))")
    raw.execute("CREATE VIEW v AS SELECT replace(a, 'x', 'y') AS c FROM t WHERE trim(a) = 'ax'")
    linear = LinearFunctions(raw, short_bytes=0, value_bytes_max=1000, pattern_bytes=1000)
    raw.execute("INSERT INTO t VALUES ('x')")
    linear.install()
    raw.execute("INSERT INTO t VALUES ('ax')")
    assert raw.execute("SELECT b FROM t").fetchall() == [(1,), (2,)]
    assert raw.execute("SELECT c FROM v").fetchall() == [("ay",)]
    assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()
