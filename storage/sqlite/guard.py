"""What a caller's SQL may do, decided by SQLite's authorizer while it compiles a statement.

The decision rests on what the statement does, not on its text (sqlite.org/c3ref/set_authorizer).
Our own statements run with the guard open. The statement cache of Python's sqlite3 is keyed by
text, so a caller's "COMMIT" could otherwise meet our compiled one: every text of a caller gets a
line feed appended (`caller_text`), and none of ours ends with one.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

RESERVED_PREFIX: Final = "_messagehub_"

# PRAGMAs that only read; those of the second set only without an argument, which would set them.
_READING_PRAGMAS: Final = frozenset(
    {
        "collation_list",
        "compile_options",
        "foreign_key_check",
        "foreign_key_list",
        "function_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "module_list",
        "pragma_list",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
_PLAIN_PRAGMAS: Final = frozenset(
    {
        "application_id",
        "data_version",
        "encoding",
        "foreign_keys",
        "freelist_count",
        "page_count",
        "page_size",
        "schema_version",
        "user_version",
    }
)
_MODULES: Final = frozenset({"fts3", "fts4", "fts5", "fts5vocab", "rtree", "rtree_i32", "geopoly"})
_FUNCTIONS_DENIED: Final = frozenset({"load_extension", "fts3_tokenizer"})
_TABLES_DENIED: Final = frozenset({"sqlite_dbpage", "sqlite_stmt", "dbstat"})

_FREE: Final = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_RECURSIVE,
        sqlite3.SQLITE_ANALYZE,
    }
)
# The arguments that name an object which must not be one of ours; see the C documentation for
# which argument is what.
_NAMING: Final = frozenset(
    {
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_DROP_INDEX,
        sqlite3.SQLITE_DROP_VIEW,
        sqlite3.SQLITE_DROP_TRIGGER,
        sqlite3.SQLITE_REINDEX,
    }
)
# The connection is shared, so a temporary object of one caller would be seen by the next. ALTER
# looks through the temporary schema by itself.
_TEMPORARY_ALLOWED: Final = frozenset(
    (action, "sqlite_temp_master") for action in (sqlite3.SQLITE_READ, sqlite3.SQLITE_UPDATE)
)
_WITH_TABLE: Final = frozenset(
    {
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_DROP_INDEX,
        sqlite3.SQLITE_DROP_TRIGGER,
    }
)
_SHAPING: Final = frozenset(
    {
        sqlite3.SQLITE_ALTER_TABLE,
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_CREATE_VTABLE,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_DROP_VIEW,
        sqlite3.SQLITE_DROP_VTABLE,
    }
)
_VIRTUAL: Final = frozenset({sqlite3.SQLITE_CREATE_VTABLE, sqlite3.SQLITE_DROP_VTABLE})

_WHAT: Final = {
    sqlite3.SQLITE_TRANSACTION: "transaction control",
    sqlite3.SQLITE_SAVEPOINT: "savepoints",
    sqlite3.SQLITE_ATTACH: "ATTACH and VACUUM",
    sqlite3.SQLITE_DETACH: "DETACH",
    sqlite3.SQLITE_PRAGMA: "this PRAGMA",
    sqlite3.SQLITE_FUNCTION: "this function",
    sqlite3.SQLITE_CREATE_VTABLE: "this virtual table module",
}


def caller_text(query: str) -> str:
    """The text under which a caller's statement is compiled."""
    return query + "\n"


def _reserved(name: str | None) -> bool:
    return name is not None and name.lower().startswith(RESERVED_PREFIX)


class Guard:
    """The authorizer of one connection."""

    def __init__(self) -> None:
        self._open = True
        self.denied = ""
        self.altered = False
        self.shaped = False

    def install(self, connection: sqlite3.Connection) -> None:
        """Puts the guard on a connection, before any statement is compiled on it."""
        connection.set_authorizer(self._authorize)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """While a caller's statement is compiled and runs.

        Afterwards `denied` names what was refused, `shaped` says that tables or views changed, and
        `altered` that one was renamed or given other columns.
        """
        self._open = False
        self.denied = ""
        self.altered = False
        self.shaped = False
        try:
            yield
        finally:
            self._open = True

    def _authorize(
        self,
        action: int,
        first: str | None,
        second: str | None,
        database: str | None,
        _inner: str | None,
    ) -> int:
        if self._open:
            return sqlite3.SQLITE_OK
        temporary = database == "temp" and (action, first) not in _TEMPORARY_ALLOWED
        if not temporary and self._allows(action, first, second):
            return sqlite3.SQLITE_OK
        what = _WHAT.get(action, "temporary objects")
        if temporary:
            what = "temporary objects"
        elif action in _NAMING or action == sqlite3.SQLITE_ALTER_TABLE:
            own = first if _reserved(first) or first in _TABLES_DENIED else second
            what = f"the hub's own table {own}"
        self.denied = self.denied or what
        return sqlite3.SQLITE_DENY

    def _allows(self, action: int, first: str | None, second: str | None) -> bool:
        if action in _FREE:
            return True
        self.shaped = self.shaped or action in _SHAPING
        if action in _NAMING:
            if action in _WITH_TABLE and _reserved(second):
                return False
            return not _reserved(first) and first not in _TABLES_DENIED
        if action == sqlite3.SQLITE_ALTER_TABLE:
            self.altered = True
            return not _reserved(second)
        if action == sqlite3.SQLITE_FUNCTION:
            return second not in _FUNCTIONS_DENIED
        if action == sqlite3.SQLITE_PRAGMA:
            name = (first or "").lower()  # as it was written
            return name in _READING_PRAGMAS or (name in _PLAIN_PRAGMAS and second is None)
        module = (second or "").lower()
        return action in _VIRTUAL and module in _MODULES and not _reserved(first)
