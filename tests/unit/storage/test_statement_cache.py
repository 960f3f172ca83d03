"""The statements that a connection keeps compiled."""

import sqlite3

from storage.sqlite.statement_cache import (
    CACHED_BYTES_MAX,
    CACHED_STATEMENTS,
    SHORT_CHARACTERS,
    StatementCache,
)


def long(name: str, size: int) -> str:
    return f"SELECT '{name}'".ljust(size)


def test_long_statements_are_pushed_out_at_the_bound() -> None:
    size = CACHED_BYTES_MAX // 4
    first = long("a", size)
    others = [long(name, size) for name in "bcd"]
    raw = sqlite3.connect(":memory:", isolation_level=None, cached_statements=CACHED_STATEMENTS)
    cache = StatementCache(raw)
    sent: list[str] = []
    raw.set_trace_callback(sent.append)
    for text in (first, *others):
        cache.make_room(text)
    assert sent == [], "four fit"
    cache.make_room(long("e", size))
    assert len(sent) == CACHED_STATEMENTS
    cache.make_room(long("f", size))
    assert len(sent) == CACHED_STATEMENTS, "the count begins again"
    raw.close()


def test_short_statements_are_bounded_by_their_number() -> None:
    raw = sqlite3.connect(":memory:", isolation_level=None)
    cache = StatementCache(raw)
    sent: list[str] = []
    raw.set_trace_callback(sent.append)
    for number in range(2 * CACHED_BYTES_MAX // SHORT_CHARACTERS):
        cache.make_room(long(str(number), SHORT_CHARACTERS))
    assert sent == []
    raw.close()


def test_a_statement_over_the_bound_runs_all_the_same() -> None:
    raw = sqlite3.connect(":memory:", isolation_level=None)
    cache = StatementCache(raw)
    for _ in range(3):
        text = long("x", 2 * CACHED_BYTES_MAX)
        cache.make_room(text)
        assert raw.execute(text).fetchone() == ("x",)
    raw.close()
