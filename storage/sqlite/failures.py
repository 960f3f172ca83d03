"""SQLite's errors as ours, by result code, never by text (sqlite.org/rescode.html)."""

import sqlite3
from typing import Final

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
from storage.sqlite.guard import Guard

PRIMARY_MASK: Final = 0xFF
DETAIL_CHARACTERS_MAX: Final = 400

_CONSTRAINTS: Final = {
    sqlite3.SQLITE_CONSTRAINT_CHECK: "check",
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: "foreign_key",
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: "not_null",
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: "primary_key",
    sqlite3.SQLITE_CONSTRAINT_ROWID: "primary_key",
    sqlite3.SQLITE_CONSTRAINT_TRIGGER: "trigger",
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: "unique",
}
_FSYNC_FAILED: Final = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})
_UNAVAILABLE: Final = {
    sqlite3.SQLITE_BUSY: "another process is using the database file",
    sqlite3.SQLITE_LOCKED: "another process is using the database file",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    sqlite3.SQLITE_IOERR: "the disk reported an I/O error",
    sqlite3.SQLITE_PERM: "the database file may not be used",
    sqlite3.SQLITE_PROTOCOL: "the database file is locked in a way that SQLite cannot resolve",
    sqlite3.SQLITE_READONLY: "the database file is read-only",
}
_TOO_LARGE: Final = {
    sqlite3.SQLITE_TOOBIG: "a value is over the size limit (value_bytes_max), or a function would "
    "take long for it (function_value_bytes_max): use smaller ones",
    # Its own, and no sign that the database cannot be used: it does not open a circuit.
    sqlite3.SQLITE_NOMEM: "the statement needs more memory than there is for it (heap_bytes_max): "
    "use fewer or smaller values at once, or call again when the server is less busy",
}
# Failures that are the statement's own and will be the same next time; the journal keeps them.
_PERMANENT: Final = (ConstraintViolation, InvalidStatement, StatementForbidden)


# What a call of Python's sqlite3 fails with: SQLITE_NOMEM comes as Python's own error.
FAILURES: Final = (sqlite3.Error, MemoryError)


def is_permanent(error: HubError) -> bool:
    """True if the same operation would fail again, so that its failure is its outcome."""
    return isinstance(error, _PERMANENT)


def code_of(failure: BaseException) -> int:
    """The extended result code, 0 where Python raised without one."""
    if isinstance(failure, MemoryError):
        return sqlite3.SQLITE_NOMEM
    return getattr(failure, "sqlite_errorcode", 0)


def is_interrupt(failure: BaseException) -> bool:
    """True if a statement was ended by its progress handler."""
    return code_of(failure) & PRIMARY_MASK == sqlite3.SQLITE_INTERRUPT


def is_read_only(failure: BaseException) -> bool:
    """True if a reader met a statement that writes."""
    return code_of(failure) & PRIMARY_MASK == sqlite3.SQLITE_READONLY


def is_of_statement(failure: BaseException) -> bool:
    """True if it is about what a statement says or the tables that it meets, not about the disk."""
    return isinstance(translate(failure), InvalidStatement | ConstraintViolation)


def verify(failure: sqlite3.Error | MemoryError) -> HubError:
    """Gives the failure of a commit as ours; `EngineLost` if nobody can tell what is on disk."""
    error = translate(failure)
    if code_of(failure) in _FSYNC_FAILED and isinstance(error, DatabaseUnavailable):
        raise EngineLost(error) from failure
    return error


def translate(failure: BaseException, guard: Guard | None = None) -> HubError:
    """Gives our error for one of SQLite's; `guard` tells whether it was our own refusal."""
    if guard is not None and guard.denied:
        return StatementForbidden(
            f"{guard.denied} may not be used: a statement reaches only its own database, and the "
            "hub controls transactions and settings",
            fields={"statement.query": f"uses {guard.denied}"},
        )
    extended = code_of(failure)
    primary = extended & PRIMARY_MASK
    detail = str(failure)[:DETAIL_CHARACTERS_MAX]
    if extended in _FSYNC_FAILED:
        return DatabaseUnavailable(
            "fsync failed, so nobody knows what is on disk: the database is fenced; check the "
            "disk, then restart the storage server, which recovers from what the disk really holds"
        )
    if primary == sqlite3.SQLITE_CONSTRAINT:
        kind = _CONSTRAINTS.get(extended, "other")
        return ConstraintViolation(
            detail, fields={"statement": detail}, metadata={"constraint": kind}
        )
    if primary == sqlite3.SQLITE_FULL:
        return StorageFull(
            "the disk is full, or the database is at its size limit (database_bytes_max): make "
            "room, then call again; nothing was changed"
        )
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DatabaseCorrupt(
            f"the database file is damaged ({detail}): stop the storage server, keep the file for "
            "analysis, and restore the database from a backup"
        )
    if primary in _TOO_LARGE:
        return ResultTooLarge(_TOO_LARGE[primary])
    if primary in _UNAVAILABLE:
        return DatabaseUnavailable(f"{_UNAVAILABLE[primary]} ({detail})", retry_after=1.0)
    return InvalidStatement(detail, fields={"statement": detail})
