"""The shape of one file: its tables, views, indexes and triggers, without the engine's own."""

import sqlite3
from hashlib import sha256
from typing import Final

from messagehub.v1.schema_service_pb2 import Table, TableColumn
from storage.sqlite.guard import RESERVED_PREFIX

_OURS: Final = f"lower(substr(tbl_name, 1, {len(RESERVED_PREFIX)})) = '{RESERVED_PREFIX}'"
_OBJECTS: Final = (
    "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL AND"
    f" name NOT LIKE 'sqlite~_%' ESCAPE '~' AND NOT {_OURS} ORDER BY type, name"
)
_COLUMNS: Final = 'SELECT name, type, "notnull", pk FROM pragma_table_xinfo(?) WHERE hidden <> 1'
_TABLES: Final = ("table", "view")


def fingerprint(raw: sqlite3.Connection) -> str:
    """Tells shapes apart: sha256, hexadecimal."""
    digest = sha256()
    for row in raw.execute(_OBJECTS).fetchall():
        for part in row:
            encoded = part.encode()
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def tables(raw: sqlite3.Connection) -> list[Table]:
    """The tables and views, with their columns and indexes."""
    objects = raw.execute(_OBJECTS).fetchall()
    return [
        Table(
            name=name,
            definition=definition,
            columns=_columns(raw, name),
            indexes=[text for kind, _, of, text in objects if kind == "index" and of == name],
        )
        for found, name, _, definition in objects
        if found in _TABLES
    ]


def column_names(raw: sqlite3.Connection) -> dict[str, set[str]]:
    """The columns of each table."""
    return {
        name: {column.name for column in _columns(raw, name)}
        for kind, name, _, _ in raw.execute(_OBJECTS).fetchall()
        if kind == "table"
    }


def _columns(raw: sqlite3.Connection, table: str) -> list[TableColumn]:
    try:
        found = raw.execute(_COLUMNS, (table,)).fetchall()
    except sqlite3.OperationalError:
        return []  # a view of something that is not there any more
    return [
        TableColumn(
            name=name, declared_type=declared, not_null=bool(not_null), primary_key_position=place
        )
        for name, declared, not_null, place in found
    ]
