"""The declared types of a query's columns, as SQLite itself derives them.

Python's sqlite3 does not pass `sqlite3_column_decltype` on. SQLite derives the same for the
columns of a view, so the query becomes a temporary view for a moment, with NULL in the place of
its parameters, which a view may not have. Done once per text and shape of the schema.
"""

import re
import sqlite3
from collections import OrderedDict
from functools import lru_cache
from typing import Final

from messagehub.v1.statement_pb2 import Column
from storage.sqlite.guard import RESERVED_PREFIX

TEXTS_REMEMBERED: Final = 1024
TEXT_CHARACTERS_REMEMBERED: Final = 4096

# Strings, quoted names and comments are kept; parameters outside of them are replaced. The forms
# of a parameter are those of sqlite.org/lang_expr.html#varparam.
_PARAMETERS: Final = re.compile(
    r"""('(?>[^']|'')*+(?:'|\Z)|"(?>[^"]|"")*+(?:"|\Z)|`(?>[^`]|``)*+(?:`|\Z)|\[[^\]]*+(?:\]|\Z)"""
    r"""|--[^\n]*|/\*.*?(?:\*/|\Z))"""
    r"""|\?\d*|[:@$][\w$\x80-\U0010ffff]+(?:::[\w$\x80-\U0010ffff]+)*(?:\([^)]*\))?""",
    re.DOTALL,
)
_VIEW: Final = f"{RESERVED_PREFIX}declared"
_BOOLEAN: Final = frozenset({"BOOLEAN", "BOOL"})


def parameter_names(query: str) -> frozenset[str]:
    """The names of a query's parameters, without their prefixes, as values are bound to them."""
    if len(query) > TEXT_CHARACTERS_REMEMBERED:
        return _names(query)
    return _remembered_names(query)


def _names(query: str) -> frozenset[str]:
    found = _PARAMETERS.finditer(query)
    return frozenset(each.group()[1:] for each in found if each.group(1) is None)


_remembered_names = lru_cache(maxsize=TEXTS_REMEMBERED)(_names)


class Declarations:
    """Remembers the columns of the queries of one connection; used in its thread."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw
        self._known: OrderedDict[tuple[int, str], list[str]] = OrderedDict()

    def types(self, query: str, shape: int) -> list[str]:
        """Gives the declared types of a query's columns; none where SQLite knows none.

        To be asked before the query runs: making the view ends what runs on the connection.
        `shape` changes whenever the schema does.
        """
        key = (shape, query)
        types = self._known.get(key)
        if types is not None:
            self._known.move_to_end(key)
            return types
        types = self._derive(query)
        if len(query) <= TEXT_CHARACTERS_REMEMBERED:
            self._known[key] = types
        if len(self._known) > TEXTS_REMEMBERED:
            self._known.popitem(last=False)
        return types

    def _derive(self, query: str) -> list[str]:
        bare = _PARAMETERS.sub(lambda found: found.group(1) or "NULL", query)
        try:
            # Only a statement that reads the file notices what another connection changed in it.
            self._raw.execute("SELECT 1 FROM main.sqlite_master LIMIT 0").fetchall()
            self._raw.execute(f"CREATE TEMP VIEW {_VIEW} AS {bare}")
        except (sqlite3.Error, sqlite3.Warning, UnicodeError):
            return []  # not a query that a view can hold, such as a PRAGMA: no types are known
        try:
            return [row[2] for row in self._raw.execute(f"PRAGMA temp.table_info({_VIEW})")]
        except (sqlite3.Error, UnicodeError):
            return []
        finally:
            self._raw.execute(f"DROP VIEW temp.{_VIEW}")


def columns(cursor: sqlite3.Cursor, types: list[str]) -> list[Column]:
    """The columns of a running query, with the types that were derived for it."""
    names = [description[0] for description in cursor.description or ()]
    if len(types) != len(names):
        types = [""] * len(names)
    return [
        Column(name=name, declared_type=declared)
        for name, declared in zip(names, types, strict=True)
    ]


def booleans(columns: list[Column]) -> frozenset[int]:
    """The places of the columns that are declared to hold truth values."""
    return frozenset(
        place for place, column in enumerate(columns) if column.declared_type.upper() in _BOOLEAN
    )
