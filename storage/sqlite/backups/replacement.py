"""Putting restored files in the places of databases: all of them, or none, through any crash.

The files wait in one directory. Once the marker `decided` is on disk there, they belong where they
go: whoever opens one of the databases, in this process or a later one, first completes that. The
decision is taken while all of the databases are locked, so nobody writes between it and the rename.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from messagehub.storage.v1.participant_service_pb2 import PreparedRecord
from storage.core.scratch import DECIDED, RESTORING
from storage.sqlite import journal
from storage.sqlite.guard import RESERVED_PREFIX
from storage.sqlite.ownership import Ownership
from storage.sqlite.transactions.prepared_file import PreparedFile

RESTORED_BY: Final = "restored_by"
EPOCH_BYTES: Final = 8
_SET: Final = f"INSERT OR REPLACE INTO {RESERVED_PREFIX}meta VALUES (?, ?)"
_GET: Final = f"SELECT value FROM {RESERVED_PREFIX}meta WHERE key = '{RESTORED_BY}'"


def renew(file: Path, restore_id: str) -> str:
    """Begins a new life of the journal; see `DatabaseFiles.renew`."""
    epoch = os.urandom(EPOCH_BYTES).hex()
    address = f"file:{quote(str(file))}?mode=rw"
    with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as raw:
        journal.position(raw)  # the tables are ours
        raw.execute("PRAGMA synchronous = FULL")
        raw.execute("BEGIN IMMEDIATE")
        raw.execute(_SET, ("epoch", epoch))
        raw.execute(_SET, (RESTORED_BY, restore_id))
        raw.execute("COMMIT")
    _flush(file)
    return epoch


def restored_by(raw: sqlite3.Connection) -> str:
    """Which restore made a database; empty = none did."""
    row = raw.execute(_GET).fetchone()
    return str(row[0]) if row else ""


def replace(
    directory: Path,
    place: Path,
    databases: Sequence[str],
    *,
    suffix: str,
    reached: Callable[[str], None],
) -> Mapping[str, str]:
    """Replaces databases of a directory; see `DatabaseFiles.replace`."""
    files = {name: directory / f"{name}{suffix}" for name in sorted(databases)}
    with ExitStack() as owned:
        for file in files.values():
            ownership = Ownership(file)
            owned.callback(ownership.give_up)
            ownership.take()
        dropped = {name: _prepared(file) for name, file in files.items()}
        _flush(place)
        (place / DECIDED).touch()
        _flush(place / DECIDED)
        _flush(place)
        reached("restore.decided")
        for number, file in enumerate(files.values()):
            finish(file)
            if not number:
                reached("restore.one_replaced")
    return {name: transaction for name, transaction in dropped.items() if transaction}


def finish(file: Path) -> None:
    """Completes what was decided for one database, whose lock the caller has."""
    for place in file.parent.glob(f"{RESTORING}*"):
        staged = place / file.name
        if (place / DECIDED).exists():
            if staged.exists():
                _take_place(staged, file)
            if not any(each.name != DECIDED for each in place.iterdir()):
                shutil.rmtree(place, ignore_errors=True)


def _take_place(staged: Path, file: Path) -> None:
    """What belongs to the old file alone goes first; the new one must never meet it."""
    for leftover in ("-wal", "-shm", "-journal", "-prepared"):
        file.with_name(file.name + leftover).unlink(missing_ok=True)
    staged.replace(file)
    _flush(file.parent)


def _prepared(file: Path) -> str:
    """The transaction that is prepared in a database; empty = none."""
    beside = PreparedFile(file)
    try:
        content = beside.read()
    finally:
        beside.close()
    return PreparedRecord.FromString(content).header.transaction_id if content else ""


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
