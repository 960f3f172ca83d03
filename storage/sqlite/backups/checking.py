"""Whether a restored file is what was backed up."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from messagehub.errors import HubError
from messagehub.storage.v1.backup_service_pb2 import BackedUpDatabase
from storage.core.backups.progress import Progress
from storage.sqlite import journal
from storage.sqlite.backups import contents
from storage.sqlite.guard import RESERVED_PREFIX
from storage.sqlite.transactions import records

FINDINGS_MAX: Final = 10
_GAPS: Final = (
    f"SELECT count(*), coalesce(min(sequence), 0), coalesce(max(sequence), 0)"
    f" FROM {RESERVED_PREFIX}journal"
)
_LATER: Final = f"SELECT coalesce(max(sequence), 0) FROM {RESERVED_PREFIX}transaction"


def problems(file: Path, expected: BackedUpDatabase, progress: Progress) -> list[str]:
    """Tells in what a file differs; see `DatabaseFiles.problems`."""
    try:
        with closing(_open(file)) as raw:
            raw.execute("BEGIN")
            return [
                *_integrity(raw),
                *journal_problems(raw, expected),
                *_contents(raw, expected, progress),
            ]
    except (sqlite3.Error, HubError) as failure:
        return [f"cannot be read: {failure}"]


def missing(file: Path, transaction_ids: Sequence[str]) -> list[str]:
    """Names the transactions that a file has no record of."""
    with closing(_open(file)) as raw:
        return [one for one in transaction_ids if records.find(raw, one) is None]


def journal_problems(raw: sqlite3.Connection, expected: BackedUpDatabase) -> Iterator[str]:
    """Tells where the journal is not as it must be."""
    position = journal.position(raw)
    if position.epoch != expected.epoch:
        yield f"its journal has the epoch {position.epoch}, not {expected.epoch}"
    lines, oldest, newest = raw.execute(_GAPS).fetchone()
    if newest != expected.sequence:
        yield f"its journal ends at {newest}, not at {expected.sequence}"
    if lines and lines != newest - oldest + 1:
        yield f"its journal has {newest - oldest + 1 - lines} gaps between {oldest} and {newest}"
    if (later := raw.execute(_LATER).fetchone()[0]) > newest:
        yield f"a transaction is recorded at {later}, after the end of the journal"


def _integrity(raw: sqlite3.Connection) -> Iterator[str]:
    for (found,) in raw.execute(f"PRAGMA integrity_check({FINDINGS_MAX})"):
        if found != "ok":
            yield f"integrity check: {found}"


def _contents(
    raw: sqlite3.Connection, expected: BackedUpDatabase, progress: Progress
) -> Iterator[str]:
    found = {table.name: table for table in contents.tables(raw, progress)}
    for table in expected.tables:
        here = found.pop(table.name, None)
        if here is None:
            yield f"the table {table.name} is missing"
        elif here.rows != table.rows:
            yield f"the table {table.name} has {here.rows} rows, not {table.rows}"
        elif here.checksum != table.checksum:
            yield f"the table {table.name} has other values"
    for name in found:
        yield f"the table {name} was not there"


def _open(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, isolation_level=None)
