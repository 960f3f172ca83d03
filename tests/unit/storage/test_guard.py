"""What a caller's SQL may do, decided while it is compiled."""

import sqlite3

import pytest

from storage.sqlite.guard import Guard, caller_text
from tests.unit.storage.sqlite_parts import connect

SET_UP = (
    "CREATE TABLE items (id INTEGER PRIMARY KEY, n INTEGER)",
    "CREATE TABLE _messagehub_journal (sequence INTEGER PRIMARY KEY, record BLOB)",
    "CREATE INDEX by_n ON items (n)",
    "CREATE VIEW seen AS SELECT n FROM items",
    "CREATE VIEW peeping AS SELECT * FROM _messagehub_journal",
    "CREATE TRIGGER spying AFTER UPDATE ON items BEGIN DELETE FROM _messagehub_journal; END",
    "INSERT INTO items VALUES (1, 2)",
    "INSERT INTO _messagehub_journal VALUES (1, x'00')",
)


@pytest.fixture
def guarded() -> tuple[sqlite3.Connection, Guard]:
    raw, guard = connect()
    for statement in SET_UP:
        raw.execute(statement)
    return raw, guard


ALLOWED = (
    "SELECT * FROM items",
    "SELECT count(*), upper('a'), json('{}'), date('now') FROM items, seen",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM pragma_table_info('items')",
    "SELECT * FROM json_each('[1]')",
    "INSERT INTO items VALUES (5, 5) ON CONFLICT DO NOTHING RETURNING id",
    "REPLACE INTO items VALUES (1, 1)",
    "DELETE FROM items",
    "CREATE TABLE more (a, b REFERENCES items)",
    "CREATE TABLE copy AS SELECT * FROM items",
    "CREATE UNIQUE INDEX more_by_n ON items (n)",
    "CREATE VIEW other AS SELECT * FROM items",
    "CREATE TRIGGER told AFTER DELETE ON items BEGIN UPDATE items SET n = 0; END",
    "CREATE VIRTUAL TABLE words USING fts5 (word)",
    "CREATE VIRTUAL TABLE places USING rtree (id, low, high)",
    "ALTER TABLE items RENAME TO things",
    "ALTER TABLE items RENAME COLUMN n TO m",
    "ALTER TABLE items ADD COLUMN extra",
    "DROP VIEW seen",
    "DROP INDEX by_n",
    "DROP TABLE items",
    "REINDEX",
    "ANALYZE",
    "PRAGMA table_info(items)",
    "PRAGMA foreign_key_check",
    "PRAGMA integrity_check",
    "PRAGMA user_version",
    "PRAGMA foreign_keys",
    "EXPLAIN QUERY PLAN SELECT * FROM items",
)

DENIED = (
    "BEGIN",
    "BEGIN EXCLUSIVE",
    "COMMIT",
    "END",
    "ROLLBACK",
    "SAVEPOINT s",
    "RELEASE s",
    "ROLLBACK TO s",
    "ATTACH 'x.db' AS x",
    "DETACH x",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA user_version = 3",
    "PRAGMA journal_mode",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA synchronous = OFF",
    "PRAGMA writable_schema = ON",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA busy_timeout = 1",
    "PRAGMA temp_store_directory = '.'",
    "PRAGMA optimize",
    "SELECT * FROM _messagehub_journal",
    "SELECT * FROM _MessageHub_Journal",
    "SELECT * FROM main._messagehub_journal",
    "SELECT (SELECT max(sequence) FROM _messagehub_journal)",
    "SELECT * FROM peeping",
    "UPDATE items SET n = 3",  # its trigger reaches into the journal
    "INSERT INTO _messagehub_journal VALUES (9, 9)",
    "DROP TABLE _messagehub_journal",
    "CREATE TABLE _messagehub_x (a)",
    "CREATE VIEW _messagehub_x AS SELECT 1",
    "CREATE INDEX x ON _messagehub_journal (record)",
    "CREATE INDEX _messagehub_x ON items (n)",
    "CREATE TRIGGER x AFTER INSERT ON _messagehub_journal BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE _messagehub_x USING fts5 (word)",
    "CREATE VIRTUAL TABLE x USING dbstat",
    "ALTER TABLE _messagehub_journal RENAME TO x",
    "ALTER TABLE _messagehub_journal ADD COLUMN x",
    "SELECT * FROM dbstat",
    "SELECT * FROM sqlite_dbpage",
    "SELECT * FROM sqlite_stmt",
    "SELECT load_extension('x')",
    "SELECT fts3_tokenizer('x')",
    "CREATE TEMP TABLE x (a)",
    "CREATE TEMP VIEW x AS SELECT 1",
    "CREATE TEMP TRIGGER x AFTER INSERT ON items BEGIN SELECT 1; END",
    "CREATE TABLE temp.x (a)",
)


@pytest.mark.parametrize("query", ALLOWED)
def test_what_reaches_only_its_own_database_is_allowed(
    guarded: tuple[sqlite3.Connection, Guard], query: str
) -> None:
    raw, guard = guarded
    with guard.closed():
        raw.execute(caller_text(query)).fetchall()
    assert not guard.denied


@pytest.mark.parametrize("query", DENIED)
def test_what_reaches_further_is_denied(
    guarded: tuple[sqlite3.Connection, Guard], query: str
) -> None:
    raw, guard = guarded
    before = "\n".join(raw.iterdump())
    with guard.closed(), pytest.raises(sqlite3.Error):
        raw.execute(caller_text(query)).fetchall()
    assert not raw.in_transaction
    assert "\n".join(raw.iterdump()) == before


def test_our_own_statements_are_free(guarded: tuple[sqlite3.Connection, Guard]) -> None:
    raw, guard = guarded
    raw.execute("BEGIN IMMEDIATE")
    raw.execute("INSERT INTO _messagehub_journal VALUES (2, x'00')")
    with guard.closed():
        raw.execute(caller_text("INSERT INTO items VALUES (3, 3)"))
    raw.execute("COMMIT")
    assert raw.execute("SELECT count(*) FROM _messagehub_journal").fetchone() == (2,)


@pytest.mark.parametrize("query", ["COMMIT", "BEGIN IMMEDIATE", "ROLLBACK"])
def test_a_compiled_statement_of_ours_is_not_a_callers(
    guarded: tuple[sqlite3.Connection, Guard], query: str
) -> None:
    """The statement cache must not hand our compiled statement to a caller with the same text."""
    raw, guard = guarded
    for own in ("BEGIN IMMEDIATE", "COMMIT", "BEGIN IMMEDIATE", "ROLLBACK"):
        raw.execute(own)
    for text in (query, f"{query} ", f"{query}\n", f" {query}"):
        with guard.closed(), pytest.raises(sqlite3.Error):
            raw.execute(caller_text(text))
        assert not raw.in_transaction


@pytest.mark.parametrize(
    ("query", "shaped", "altered"),
    [
        ("SELECT 1", False, False),
        ("INSERT INTO items VALUES (5, 5)", False, False),
        ("CREATE TABLE x (a)", True, False),
        ("DROP VIEW seen", True, False),
        ("ALTER TABLE items ADD COLUMN x", True, True),
    ],
)
def test_it_is_told_when_the_schema_changes(
    guarded: tuple[sqlite3.Connection, Guard], query: str, shaped: bool, altered: bool
) -> None:
    raw, guard = guarded
    with guard.closed():
        raw.execute(caller_text(query))
    assert (guard.shaped, guard.altered) == (shaped, altered)


def test_what_was_denied_is_forgotten_with_the_next_statement(
    guarded: tuple[sqlite3.Connection, Guard],
) -> None:
    raw, guard = guarded
    with guard.closed(), pytest.raises(sqlite3.Error):
        raw.execute(caller_text("COMMIT"))
    assert guard.denied == "transaction control"
    with guard.closed():
        raw.execute(caller_text("SELECT 1"))
    assert not guard.denied


@pytest.mark.parametrize(
    "query",
    [
        "PRAGMA FOREIGN_KEYS",
        "PRAGMA Table_Info(items)",
        "pragma USER_version",
        "CREATE VIRTUAL TABLE found USING FTS5 (content)",
    ],
)
def test_names_are_the_same_in_capitals(query: str) -> None:
    raw, guard = connect()
    raw.execute("CREATE TABLE items (n)")
    with guard.closed():
        raw.execute(query)
    assert not guard.denied


@pytest.mark.parametrize("query", ["PRAGMA User_Version = 7", "PRAGMA WAL_CHECKPOINT"])
def test_capitals_open_nothing(query: str) -> None:
    raw, guard = connect()
    with guard.closed(), pytest.raises(sqlite3.DatabaseError):
        raw.execute(query)
    assert guard.denied == "this PRAGMA"
