"""SQLite's result codes as our errors."""

import sqlite3

import pytest

from messagehub.errors import (
    ConstraintViolation,
    DatabaseCorrupt,
    DatabaseUnavailable,
    HubError,
    InvalidStatement,
    ResultTooLarge,
    StatementForbidden,
    StorageFull,
)
from storage.core.engine import EngineLost
from storage.sqlite import failures
from storage.sqlite.guard import Guard
from tests.unit.storage.sqlite_parts import made


@pytest.mark.parametrize(
    ("name", "expected", "permanent"),
    [
        ("SQLITE_CONSTRAINT_UNIQUE", ConstraintViolation, True),
        ("SQLITE_CONSTRAINT_COMMITHOOK", ConstraintViolation, True),
        ("SQLITE_ERROR", InvalidStatement, True),
        ("SQLITE_MISMATCH", InvalidStatement, True),
        ("SQLITE_FULL", StorageFull, False),
        ("SQLITE_TOOBIG", ResultTooLarge, False),
        ("SQLITE_CORRUPT", DatabaseCorrupt, False),
        ("SQLITE_CORRUPT_INDEX", DatabaseCorrupt, False),
        ("SQLITE_NOTADB", DatabaseCorrupt, False),
        ("SQLITE_BUSY", DatabaseUnavailable, False),
        ("SQLITE_BUSY_SNAPSHOT", DatabaseUnavailable, False),
        ("SQLITE_LOCKED", DatabaseUnavailable, False),
        ("SQLITE_IOERR", DatabaseUnavailable, False),
        ("SQLITE_IOERR_READ", DatabaseUnavailable, False),
        ("SQLITE_IOERR_WRITE", DatabaseUnavailable, False),
        ("SQLITE_IOERR_FSYNC", DatabaseUnavailable, False),
        ("SQLITE_CANTOPEN", DatabaseUnavailable, False),
        ("SQLITE_READONLY", DatabaseUnavailable, False),
        ("SQLITE_READONLY_DBMOVED", DatabaseUnavailable, False),
        ("SQLITE_NOMEM", ResultTooLarge, False),
        ("SQLITE_PERM", DatabaseUnavailable, False),
    ],
)
def test_every_code_is_told_as_what_it_is(
    name: str, expected: type[HubError], permanent: bool
) -> None:
    error = failures.translate(made(getattr(sqlite3, name)))
    assert type(error) is expected
    assert failures.is_permanent(error) is permanent
    assert error.message


@pytest.mark.parametrize("name", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC"])
def test_a_failed_fsync_loses_the_engine(name: str) -> None:
    with pytest.raises(EngineLost) as caught:
        failures.verify(made(getattr(sqlite3, name)))
    assert "fenced" in caught.value.error.message
    assert "restart" in caught.value.error.message


def test_another_failure_of_a_commit_does_not() -> None:
    assert isinstance(failures.verify(made(sqlite3.SQLITE_IOERR_WRITE)), DatabaseUnavailable)
    assert isinstance(failures.verify(made(sqlite3.SQLITE_FULL)), StorageFull)


def test_an_error_without_a_code_is_about_the_statement() -> None:
    assert isinstance(failures.translate(sqlite3.OperationalError("no")), InvalidStatement)
    assert failures.code_of(ValueError()) == 0


def test_what_the_guard_denied_is_said_as_such() -> None:
    guard = Guard()
    guard.denied = "transaction control"
    error = failures.translate(made(sqlite3.SQLITE_AUTH), guard)
    assert isinstance(error, StatementForbidden)
    assert "transaction control" in error.message


KINDS = [
    ("INSERT INTO items VALUES (1, 1, 1)", "primary_key"),
    ("INSERT INTO items VALUES (2, 1, 1)", "unique"),
    ("INSERT INTO items VALUES (3, NULL, 1)", "not_null"),
    ("INSERT INTO items VALUES (3, 3, -1)", "check"),
    ("INSERT INTO parts VALUES (404)", "foreign_key"),
    ("DELETE FROM items", "foreign_key"),
    ("INSERT INTO items VALUES (13, 13, 1)", "trigger"),
]


@pytest.mark.parametrize(("query", "kind"), KINDS)
def test_a_constraint_is_told_by_its_kind(query: str, kind: str) -> None:
    raw = sqlite3.connect(":memory:", isolation_level=None)
    raw.execute("PRAGMA foreign_keys = ON")
    raw.execute(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, n INTEGER NOT NULL UNIQUE, m CHECK (m > 0))"
    )
    raw.execute("CREATE TABLE parts (item REFERENCES items (id))")
    raw.execute(
        "CREATE TRIGGER t BEFORE INSERT ON items WHEN new.id = 13 "
        "BEGIN SELECT raise(ABORT, 'never'); END"
    )
    raw.execute("INSERT INTO items VALUES (1, 1, 1)")
    raw.execute("INSERT INTO parts VALUES (1)")
    with pytest.raises(sqlite3.IntegrityError) as caught:
        raw.execute(query)
    error = failures.translate(caught.value)
    assert isinstance(error, ConstraintViolation)
    assert error.metadata["constraint"] == kind
    assert failures.is_permanent(error)
    raw.close()


def test_long_texts_of_errors_are_cut() -> None:
    failure = sqlite3.OperationalError("x" * 10_000)
    assert len(failures.translate(failure).message) <= failures.DETAIL_CHARACTERS_MAX
