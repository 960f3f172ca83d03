"""What a database holds, as row counts and digests that do not depend on how the file is laid out.

The values of many rows are put together by SQLite itself, in the order of the keys, and digested
as one text: both let other threads go on meanwhile. Reals are written so that they come back
exactly (`quote`), texts and blobs as their bytes (`hex`), which a NUL does not end.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from typing import Final

from messagehub.storage.v1.backup_service_pb2 import BackedUpTable
from storage.core.backups.progress import Progress

ROWS_AT_ONCE: Final = 128
# Names for the key of a row; a column of the same name hides one.
_KEYS: Final = ("rowid", "_rowid_", "oid")
_TABLES: Final = (
    "SELECT name, sql LIKE '%WITHOUT%ROWID%' FROM sqlite_master WHERE type = 'table'"
    " AND name NOT LIKE 'sqlite~_%' ESCAPE '~' AND rootpage > 0 ORDER BY name"
)
_SCHEMA: Final = (
    "SELECT coalesce(sql, '') FROM sqlite_master WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~'"
    " ORDER BY type, name"
)
SCHEMA_NAME: Final = "sqlite_schema"


def tables(raw: sqlite3.Connection, progress: Progress) -> list[BackedUpTable]:
    """Gives every table, by name, and the schema itself; within one transaction of the caller."""
    schema = [text for (text,) in raw.execute(_SCHEMA).fetchall()]
    digest = hashlib.sha256("\n".join(schema).encode())
    found = [BackedUpTable(name=SCHEMA_NAME, rows=len(schema), checksum=digest.hexdigest())]
    for name, maybe_keyed in raw.execute(_TABLES).fetchall():
        found.append(_table(raw, name, progress, keyed=not maybe_keyed))
    return found


def _table(raw: sqlite3.Connection, name: str, progress: Progress, *, keyed: bool) -> BackedUpTable:
    columns = [row[0] for row in raw.execute("SELECT name FROM pragma_table_info(?)", (name,))]
    hidden = {column.lower() for column in columns}
    key = next((key for key in _KEYS if key not in hidden), None)
    row = " || ',' || ".join(_value(column) for column in columns)
    digest, rows = hashlib.sha256(), 0
    parts = _by_key(raw, name, row, key) if keyed and key else _one_by_one(raw, name, row)
    for count, text in parts:
        rows += count
        digest.update(text.encode())
        digest.update(b"\n")
        progress.check()
    return BackedUpTable(name=name, rows=rows, checksum=digest.hexdigest())


def _by_key(raw: sqlite3.Connection, table: str, row: str, key: str) -> Iterator[tuple[int, str]]:
    query = (
        "SELECT count(*), max(k), coalesce(group_concat(r, char(10)), '') FROM"
        f" (SELECT {key} AS k, {row} AS r FROM {_name(table)} NOT INDEXED"
        f" WHERE {key} > ? ORDER BY {key} LIMIT ?)"
    )
    after, at_once, first = -(2**63), ROWS_AT_ONCE, True
    while True:
        try:
            condition = query.replace("> ?", ">= ?", 1) if first else query
            count, last, text = raw.execute(condition, (after, at_once)).fetchone()
        except (sqlite3.DataError, MemoryError):
            if at_once == 1:
                raise
            at_once = max(1, at_once // 8)  # large values: fewer rows in one text
            continue
        if not count:
            return
        # The digest must not depend on how many rows came at once.
        yield count, text
        after, first = last, False


def _one_by_one(raw: sqlite3.Connection, table: str, row: str) -> Iterator[tuple[int, str]]:
    for (text,) in raw.execute(f"SELECT {row} FROM {_name(table)} NOT INDEXED"):
        yield 1, text


def _value(column: str) -> str:
    name = _name(column)
    return (
        f"CASE typeof({name}) WHEN 'text' THEN 't' || hex({name})"
        f" WHEN 'blob' THEN 'b' || hex({name}) ELSE quote({name}) END"
    )


def _name(identifier: str) -> str:
    doubled = identifier.replace('"', '""')
    return f'"{doubled}"'
