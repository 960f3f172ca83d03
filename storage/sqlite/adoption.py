"""Taking a file over: it is checked, gets the database's own tables, and takes its place.

The journal goes over whole, in the same epoch, so that recorded outcomes, events, cursors and
named subscriptions stay what they are. Until the rename nothing of the database is touched, so a
process that dies on the way leaves it as it was.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from messagehub.errors import DatabaseUnavailable, InvalidRequest
from storage.sqlite import failures, journal
from storage.sqlite.guard import RESERVED_PREFIX

_TABLES: Final = (
    "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite~_%'"
    f" ESCAPE '~' AND substr(name, 1, {len(RESERVED_PREFIX)}) <> '{RESERVED_PREFIX}' ORDER BY name"
)
# The engine's own tables, then their indexes; those that SQLite makes by itself have no text.
_OWN: Final = (
    "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND"
    f" lower(substr(tbl_name, 1, {len(RESERVED_PREFIX)})) = '{RESERVED_PREFIX}'"
    " ORDER BY type DESC, name"
)


def tables(raw: sqlite3.Connection) -> list[str]:
    """The tables and views that are not the engine's own."""
    return [row[0] for row in raw.execute(_TABLES).fetchall()]


def check(file: Path) -> None:
    """Raises `InvalidRequest` for a file that is no sound SQLite database with tables of its own.

    One that was a hub's already is refused too.
    """
    try:
        with closing(_open(file)) as raw:
            found = raw.execute("PRAGMA integrity_check(1)").fetchone()[0]
            reserved = journal.own_tables(raw) or journal.is_referenced(raw)
            held = tables(raw)
            raw.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as failure:
        raise InvalidRequest(
            f"the file is no SQLite database that can be read: {failure}",
            fields={"chunk": "is no SQLite database"},
        ) from failure
    if found != "ok":
        raise InvalidRequest(
            f"the file does not pass SQLite's integrity check: {found}",
            fields={"chunk": "is a damaged SQLite database"},
        )
    if reserved:
        raise InvalidRequest(
            f"the file holds, or references, tables whose names begin with {RESERVED_PREFIX}: it "
            "was a hub's database already; restore it from a backup instead, or drop those tables",
            fields={"chunk": "holds the hub's own tables"},
        )
    if not held:
        raise InvalidRequest(
            "the file holds no tables, so there is nothing to adopt: is it the right one?",
            fields={"chunk": "holds no tables"},
        )


def carry(database: sqlite3.Connection, file: Path, bytes_max: int) -> None:
    """Copies the engine's own tables of an open database into a file; on disk when this returns.

    Raises `StorageFull` if the file would be over `bytes_max` with them.
    """
    try:
        with closing(_open(file)) as raw:
            page_bytes = raw.execute("PRAGMA page_size").fetchone()[0]
            raw.execute(f"PRAGMA max_page_count = {max(1, bytes_max // page_bytes)}")
            raw.execute("PRAGMA synchronous = FULL")
            raw.execute("BEGIN IMMEDIATE")
            for kind, name, text in database.execute(_OWN).fetchall():
                raw.execute(text)
                if kind == "table":
                    _copy(database, raw, name)
            raw.execute("COMMIT")
    except sqlite3.Error as failure:
        raise failures.translate(failure) from failure


def take_place(file: Path, of: Path) -> None:
    """Renames a file to a database's, whose connections are closed; on disk when this returns.

    Raises `DatabaseUnavailable` if the database's log was not written back: beside another file it
    would spoil that one, and without it the database is not whole.
    """
    log = of.with_name(f"{of.name}-wal")
    if log.exists() and log.stat().st_size:
        raise DatabaseUnavailable(
            "the write-ahead log could not be written back into the database file, so the file was "
            "not replaced; check the disk, then adopt again",
            retry_after=1.0,
        )
    for leftover in ("-wal", "-shm"):
        of.with_name(of.name + leftover).unlink(missing_ok=True)
    file.replace(of)
    directory = os.open(of.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _open(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, isolation_level=None)


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> None:
    rows = source.execute(f'SELECT * FROM "{table}"')
    places = ", ".join("?" * len(rows.description))
    target.executemany(f'INSERT INTO "{table}" VALUES ({places})', rows)
