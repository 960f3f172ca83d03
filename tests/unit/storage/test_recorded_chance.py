"""Time and chance follow from the record, and all else is SQLite's own."""

import sqlite3
from collections.abc import Iterator

import pytest

from storage.sqlite.transactions.recorded_chance import RecordedChance

CLOCK_US = 1_700_000_000_123_456  # 2023-11-14 22:13:20.123456 UTC


@pytest.fixture
def raw() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    yield connection
    connection.close()


@pytest.fixture
def chance(raw: sqlite3.Connection) -> Iterator[RecordedChance]:
    made = RecordedChance(raw, 1_000_000)
    made.begin(CLOCK_US, b"seed")
    made.statement(0)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("expression", "given"),
    [
        ("CURRENT_TIMESTAMP", "2023-11-14 22:13:20"),
        ("CURRENT_DATE", "2023-11-14"),
        ("CURRENT_TIME", "22:13:20"),
        ("datetime()", "2023-11-14 22:13:20"),
        ("datetime('NOW')", "2023-11-14 22:13:20"),
        ("datetime('now', '+1 month', 'start of month')", "2023-12-01 00:00:00"),
        ("date('now', '-1 day')", "2023-11-13"),
        ("time('now')", "22:13:20"),
        ("strftime('%s')", "1700000000"),
        ("strftime('%f', 'now')", "20.123"),
        ("unixepoch('now')", 1_700_000_000),
        ("julianday('now') > julianday('2023-11-14')", 1),
    ],
)
def test_now_is_the_recorded_time(
    raw: sqlite3.Connection, chance: RecordedChance, expression: str, given: object
) -> None:
    assert raw.execute(f"SELECT {expression}").fetchone()[0] == given


@pytest.mark.parametrize(
    "expression",
    [
        "datetime('2000-01-01', '+1 day')",
        "date(0, 'unixepoch')",
        "strftime('%Y-%j %w', '2024-02-29')",
        "julianday(2451545)",
        "datetime('nonsense')",
        "datetime(NULL)",
        "date('2000-01-01', 'nonsense')",
        "time(12345.678, 'auto')",
    ],
)
def test_a_given_time_is_computed_by_sqlite(
    raw: sqlite3.Connection, chance: RecordedChance, expression: str
) -> None:
    plain = sqlite3.connect(":memory:")
    wanted = plain.execute(f"SELECT {expression}").fetchone()
    plain.close()
    assert raw.execute(f"SELECT {expression}").fetchone() == wanted


def test_chance_follows_from_seed_and_statement(
    raw: sqlite3.Connection, chance: RecordedChance
) -> None:
    query = "SELECT random(), random(), hex(randomblob(8)), length(randomblob(-3))"
    drawn = []
    for seed, number in ((b"seed", 0), (b"seed", 0), (b"seed", 1), (b"other", 0)):
        chance.begin(CLOCK_US, seed)
        chance.statement(number)
        drawn.append(raw.execute(query).fetchone())
    assert drawn[0] == drawn[1]
    assert len({*drawn}) == 3
    assert drawn[0][0] != drawn[0][1]
    assert drawn[0][3] == 1


def test_a_blob_beyond_the_limit_is_refused(
    raw: sqlite3.Connection, chance: RecordedChance
) -> None:
    with pytest.raises(sqlite3.OperationalError):
        raw.execute("SELECT randomblob(1000001)")


def test_changes_are_counted_from_the_beginning(
    raw: sqlite3.Connection, chance: RecordedChance
) -> None:
    raw.execute("CREATE TABLE t (n)")
    raw.execute("INSERT INTO t VALUES (1), (2)")
    chance.begin(CLOCK_US, b"seed")
    raw.execute("INSERT INTO t VALUES (3)")
    assert raw.execute("SELECT total_changes()").fetchone() == (1,)
