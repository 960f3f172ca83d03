"""Whether the invariants of a live database hold, as far as one snapshot shows them."""

import sqlite3
from collections.abc import Iterator
from typing import Final

from messagehub.errors import SchemaHistoryConflict
from storage.core.transactions.engine_part import Inspected
from storage.sqlite import failures
from storage.sqlite.guard import RESERVED_PREFIX
from storage.sqlite.schema import history

_BOUNDS: Final = (
    "SELECT count(*), coalesce(min(sequence), 0), coalesce(max(sequence), 0)"
    f" FROM {RESERVED_PREFIX}journal"
)
# Every record of a transaction that is newer than the oldest line has its line, and none is newer
# than the newest.
_STRAY: Final = (
    f"SELECT count(*) FROM {RESERVED_PREFIX}transaction AS ended WHERE ended.sequence >= ?"
    f" AND NOT EXISTS (SELECT 1 FROM {RESERVED_PREFIX}journal AS line"
    " WHERE line.sequence = ended.sequence)"
)


def inspect(raw: sqlite3.Connection, database: str) -> list[Inspected]:
    """Gives every invariant; within the transaction that is open on the connection."""
    try:
        return list(_inspected(raw, database))
    except sqlite3.Error as failure:
        raise failures.translate(failure) from failure


def _inspected(raw: sqlite3.Connection, database: str) -> Iterator[Inspected]:
    lines, oldest, newest = raw.execute(_BOUNDS).fetchone()
    gaps = newest - oldest + 1 - lines if lines else 0
    yield Inspected(
        "the journal is contiguous",
        f"{gaps} lines are missing between {oldest} and {newest}" if gaps else "",
    )
    stray = raw.execute(_STRAY, (oldest,)).fetchone()[0]
    yield Inspected(
        "every recorded transaction has its line in the journal",
        f"{stray} have none" if stray else "",
    )
    yield Inspected("the history of the schema is what was run", _edited(raw, database))


def _edited(raw: sqlite3.Connection, database: str) -> str:
    try:
        for change in history.changes(raw):
            change.check(database)
    except SchemaHistoryConflict as conflict:
        return conflict.message
    return ""
