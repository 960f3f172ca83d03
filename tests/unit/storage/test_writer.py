"""The writer on a real file, with failures put in its way where the disk would put them."""

import sqlite3
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from messagehub.errors import DatabaseCorrupt, DatabaseUnavailable
from storage.core.engine import EngineLost
from storage.core.operation import Applied
from tests.conformance.operations import CREATE, insert, operation, reasons
from tests.unit.storage.sqlite_parts import Clock, FailingConnection, writer

if TYPE_CHECKING:
    from storage.sqlite.writer import Writer

COMMIT, BEGIN, LOOKUP, APPEND = "COMMIT", "BEGIN", "SELECT sequence, fing", "INSERT INTO _message"
FSYNC = sqlite3.SQLITE_IOERR_FSYNC
WRITE = sqlite3.SQLITE_IOERR_WRITE
FULL = sqlite3.SQLITE_FULL
BUSY = sqlite3.SQLITE_BUSY

SPOIL = "INSERT OR ROLLBACK INTO items VALUES (0, 0)"


class Bench:
    """A writer with a table, and the connection to spoil."""

    def __init__(self, directory: Path, **more: Any) -> None:
        self.clock = Clock()
        self.writer: Writer
        self.raw: FailingConnection
        self.writer, self.raw = writer(directory / "items.db", self.clock, **more)
        self.apply(operation(CREATE))
        self.raw.executed.clear()

    def apply(self, *group: Any) -> Applied:
        return self.writer.apply(group)

    def items(self) -> list[int]:
        found = self.raw.execute("SELECT id FROM items ORDER BY id").fetchall()
        return [row[0] for row in found]

    def entries(self) -> list[int]:
        found = self.raw.execute("SELECT sequence FROM _messagehub_journal ORDER BY sequence")
        return [row[0] for row in found]

    def check(self) -> None:
        """Every item has its entry, and nothing is left open."""
        assert not self.raw.in_transaction
        assert self.entries() == list(range(1, self.writer.sequence + 1))
        assert len(self.items()) == self.writer.sequence - 1


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_group_is_one_commit(bench: Bench) -> None:
    bench.apply(*(insert(n) for n in range(100)))
    assert bench.raw.executed.count("COMMIT") == 1
    assert bench.raw.executed.count("BEGIN IMMEDIATE") == 1
    bench.check()


def test_a_failed_fsync_loses_the_engine_and_nothing_is_run_again(bench: Bench) -> None:
    bench.raw.failing.append((COMMIT, FSYNC))
    with pytest.raises(EngineLost) as caught:
        bench.apply(insert(1), insert(2), insert(3))
    assert isinstance(caught.value.error, DatabaseUnavailable)
    assert bench.raw.executed.count("COMMIT") == 1
    assert bench.raw.executed.count("BEGIN IMMEDIATE") == 1, "a second try could seem to succeed"


def test_a_failed_fsync_of_a_single_operation_loses_the_engine(bench: Bench) -> None:
    bench.raw.failing.append((COMMIT, FSYNC))
    with pytest.raises(EngineLost):
        bench.apply(insert(1))
    assert bench.raw.executed.count("BEGIN IMMEDIATE") == 1


@pytest.mark.parametrize("place", [1, 100, 254])
def test_one_that_ends_the_transaction_costs_its_group_a_few_commits(
    bench: Bench, place: int
) -> None:
    group = [insert(n) for n in range(255)]
    applied = bench.apply(*group[:place], operation(SPOIL), *group[place:])
    assert reasons(applied.outcomes).count("") == 255
    assert reasons(applied.outcomes)[place] == "CONSTRAINT_VIOLATION"
    assert bench.raw.executed.count("COMMIT") == 3, "before it, of it, after it"
    assert bench.items() == list(range(255))
    assert bench.entries() == list(range(1, 258))


def test_one_that_fails_at_the_commit_costs_its_group_a_few_commits(bench: Bench) -> None:
    bench.apply(
        operation("CREATE TABLE parts (item REFERENCES items DEFERRABLE INITIALLY DEFERRED)")
    )
    bench.raw.executed.clear()
    group = [insert(n) for n in range(255)]
    orphan = operation("INSERT INTO parts VALUES (404)")
    applied = bench.apply(*group[:77], orphan, *group[77:])
    assert reasons(applied.outcomes).count("") == 255
    assert reasons(applied.outcomes)[77] == "CONSTRAINT_VIOLATION"
    assert bench.raw.executed.count("COMMIT") <= 2 * 8 + 2, "it is found by halves"
    assert bench.items() == list(range(255))


def test_many_that_end_the_transaction_end_in_no_recursion(bench: Bench) -> None:
    bench.apply(insert(0))
    applied = bench.apply(*(operation(SPOIL) for _ in range(1500)))
    assert reasons(applied.outcomes) == ["CONSTRAINT_VIOLATION"] * 1500
    assert bench.entries() == list(range(1, 1503))


def test_a_lost_group_is_ended_when_its_time_is_over(tmp_path: Path) -> None:
    bench = Bench(tmp_path, group_seconds_max=1.0)
    late = insert(7)
    original = bench.raw._look

    def look(statement: str) -> None:
        bench.clock.now += 0.6 if statement == COMMIT else 0.0
        original(statement)

    bench.raw._look = look  # type: ignore[method-assign]
    applied = bench.apply(insert(0), operation(SPOIL), insert(1), late)
    assert reasons(applied.outcomes) == ["", "CONSTRAINT_VIOLATION"], "the rest has not begun"
    assert bench.items() == [0]
    assert reasons(bench.apply(insert(1), late).outcomes) == ["", ""]


@pytest.mark.parametrize("code", [FULL, WRITE], ids=["full", "write"])
def test_a_commit_that_fails_for_all_is_tried_for_each(bench: Bench, code: int) -> None:
    bench.raw.failing.append((COMMIT, code))
    applied = bench.apply(insert(1), insert(2), insert(3))
    assert reasons(applied.outcomes) == ["", "", ""]
    assert [event.sequence for event in applied.events] == [2, 3, 4]
    assert bench.items() == [1, 2, 3]
    bench.check()


@pytest.mark.parametrize(
    ("code", "reason"), [(FULL, "STORAGE_FULL"), (WRITE, "DATABASE_UNAVAILABLE")]
)
def test_a_commit_that_fails_again_is_refused_and_not_recorded(
    bench: Bench, code: int, reason: str
) -> None:
    bench.raw.failing += [(COMMIT, code), (COMMIT, code)]
    applied = bench.apply(insert(1), insert(2), insert(3))
    assert reasons(applied.outcomes) == [reason, "", ""]
    assert [event.sequence for event in applied.events] == [2, 3]
    assert bench.items() == [2, 3]
    bench.check()


def test_a_transaction_that_cannot_begin_refuses_everything(bench: Bench) -> None:
    bench.raw.failing.append((BEGIN, BUSY))
    with pytest.raises(DatabaseUnavailable):
        bench.apply(insert(1), insert(2))
    assert bench.items() == []
    bench.apply(insert(1))
    bench.check()


def test_what_was_done_one_by_one_is_told_when_the_next_cannot_begin(bench: Bench) -> None:
    """Else a committed write would be answered with an error, and its event never be told."""
    begun = 0
    original = bench.raw._look

    def look(statement: str) -> None:
        nonlocal begun
        begun += statement.startswith(BEGIN)
        if begun == 3 and not bench.raw.failing and statement.startswith(BEGIN):
            bench.raw.failing.append((BEGIN, BUSY))
        original(statement)

    bench.raw._look = look  # type: ignore[method-assign]
    bench.raw.failing.append((COMMIT, FULL))
    applied = bench.apply(insert(1), insert(2), insert(3))
    assert reasons(applied.outcomes) == [""], "one was done alone, two were not begun"
    assert [event.sequence for event in applied.events] == [2]
    assert applied.sequence == 2
    rest = bench.apply(insert(2), insert(3))
    assert reasons(rest.outcomes) == ["", ""]
    bench.check()


def test_a_lookup_that_fails_fails_only_its_operation(bench: Bench) -> None:
    bench.raw.failing.append((LOOKUP, sqlite3.SQLITE_IOERR_READ))
    request_id = str(uuid.uuid4())
    applied = bench.apply(insert(1), insert(2, request_id=request_id), insert(3))
    assert reasons(applied.outcomes) == ["", "DATABASE_UNAVAILABLE", ""]
    assert bench.items() == [1, 3], "what may have been done before is not done again"
    bench.check()


def test_an_entry_that_cannot_be_read_fails_only_its_operation(bench: Bench) -> None:
    request_id = str(uuid.uuid4())
    bench.apply(insert(1, request_id=request_id))
    bench.raw.execute("UPDATE _messagehub_journal SET record = x'ffff' WHERE sequence = 2")
    applied = bench.apply(insert(2), insert(1, request_id=request_id), insert(3))
    assert reasons(applied.outcomes) == ["", "DATABASE_CORRUPT", ""]
    bench.check()


def test_a_request_id_that_is_no_uuid_fails_only_its_operation(bench: Bench) -> None:
    applied = bench.apply(insert(1), insert(2, request_id="nonsense"), insert(3))
    assert reasons(applied.outcomes) == ["", "INVALID_REQUEST", ""]
    bench.check()


def test_a_transaction_that_was_lost_on_the_way_is_noticed(bench: Bench) -> None:
    """SQLite rolls back by itself after some failures; going on would commit without a journal."""
    request_id = str(uuid.uuid4())
    original = bench.raw._look
    armed = True

    def look(statement: str) -> None:
        nonlocal armed
        if armed and statement.startswith(LOOKUP):
            armed = False
            sqlite3.Connection.execute(bench.raw, "ROLLBACK")
            bench.raw.failing.append((LOOKUP, sqlite3.SQLITE_IOERR_READ))
        original(statement)

    bench.raw._look = look  # type: ignore[method-assign]
    applied = bench.apply(insert(1), insert(2, request_id=request_id), insert(3))
    assert reasons(applied.outcomes) == ["", "", ""]
    bench.check()


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE _messagehub_journal",
        "ALTER TABLE _messagehub_journal ADD COLUMN x",
        "INSERT INTO _messagehub_journal VALUES (2, NULL, x'', 0, x'')",
        "CREATE TRIGGER no BEFORE INSERT ON _messagehub_journal BEGIN SELECT raise(ABORT, ''); END",
    ],
)
def test_a_journal_that_somebody_changes_meanwhile_stops_the_writes_precisely(
    bench: Bench, damage: str
) -> None:
    bench.raw.execute(damage)
    for _ in range(2):
        outcomes = bench.apply(insert(1), insert(2)).outcomes
        assert [type(outcome.error) for outcome in outcomes] == [DatabaseCorrupt, DatabaseCorrupt]
        assert all("own tables" in str(outcome.error) for outcome in outcomes)
        assert not bench.raw.in_transaction
        assert bench.items() == [], "nothing is done that cannot be recorded"


def test_a_defect_leaves_no_transaction_open(bench: Bench) -> None:
    broken = insert(2)
    broken.statement = 5  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        bench.apply(insert(1), broken)
    assert not bench.raw.in_transaction
    assert bench.items() == []


def test_the_time_of_a_group_ends_it_between_operations(tmp_path: Path) -> None:
    bench = Bench(tmp_path, group_seconds_max=1.0)
    ticking = iter(range(1000, 2000))

    class Ticking(Clock):
        def __call__(self) -> float:
            return next(ticking) / 4

    bench.writer._clock = Ticking()
    applied = bench.apply(*(insert(n) for n in range(50)))
    assert 1 <= len(applied.outcomes) <= 4
    bench.check()


def test_the_last_inserted_row_is_that_of_the_statement(bench: Bench) -> None:
    bench.apply(operation("CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, item)"))
    bench.apply(
        operation(
            "CREATE TRIGGER logging AFTER INSERT ON items "
            "BEGIN INSERT INTO log (id, item) VALUES (new.id + 5000, new.id); END"
        )
    )
    asked = [
        ("INSERT INTO items VALUES (7, 0)", 7, 1),
        ("INSERT INTO items VALUES (7, 0) ON CONFLICT DO NOTHING", 0, 0),
        ("INSERT INTO items SELECT 1, 2 WHERE 0", 0, 0),
        ("UPDATE items SET n = 1", 0, 1),
        ("INSERT INTO items VALUES (7, 0) ON CONFLICT DO UPDATE SET n = 9", 0, 1),
        ("WITH c AS (SELECT 8 AS n) INSERT INTO items SELECT n, n FROM c", 8, 1),
        ("REPLACE INTO items VALUES (8, 1)", 8, 1),
        ("INSERT INTO items VALUES (9, 0), (10, 0) RETURNING id", 10, 2),
        ("DELETE FROM items", 0, 4),
        ("CREATE TABLE copied AS SELECT * FROM log", 0, 0),
        ("DROP TABLE copied", 0, 0),
    ]
    applied = bench.apply(*(operation(query) for query, _, _ in asked))
    assert reasons(applied.outcomes) == [""] * len(asked)
    found = [
        (query, outcome.result.last_insert_id, outcome.result.rows_affected)
        for (query, _, _), outcome in zip(asked, applied.outcomes, strict=True)
        if outcome.result
    ]
    assert found[:-2] == asked[:-2]
    assert found[-1] == asked[-1]
