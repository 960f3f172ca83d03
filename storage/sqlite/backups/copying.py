"""Copying a pinned snapshot into a file, in steps, while writers go on.

`sqlite3.Connection.backup` reads through the transaction that is open on the source, so every step
sees the same snapshot (sqlite.org/c3ref/backup_finish.html); VACUUM INTO cannot run in one.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from messagehub.storage.v1.backup_service_pb2 import BackedUpDatabase
from storage.core.backups.progress import Progress
from storage.sqlite import failures, journal
from storage.sqlite.backups import contents
from storage.sqlite.schema import history

# A step lasts about a millisecond; then others get their turn.
PAGES_AT_ONCE: Final = 128


def size_bytes(raw: sqlite3.Connection) -> int:
    """The size of the snapshot that is pinned on a connection."""
    pages = raw.execute("PRAGMA page_count").fetchone()[0]
    return int(pages) * int(raw.execute("PRAGMA page_size").fetchone()[0])


def copy(source: sqlite3.Connection, file: Path, progress: Progress) -> BackedUpDatabase:
    """Copies the snapshot that is pinned on `source` and tells what it held.

    The file is not flushed to disk: it is on its way to somewhere else. The counts and digests are
    read from the source, so that a copy that differs is found.
    """
    page_bytes = source.execute("PRAGMA page_size").fetchone()[0]
    told = 0

    def step(_status: int, remaining: int, total: int) -> None:
        nonlocal told
        done = (total - remaining) * page_bytes
        progress.add(done - told)
        told = done

    try:
        with closing(sqlite3.connect(file, isolation_level=None)) as target:
            target.execute("PRAGMA synchronous = OFF")
            source.backup(target, pages=PAGES_AT_ONCE, progress=step)
            # One file is all there is: no log beside it.
            target.execute("PRAGMA journal_mode = DELETE")
        position = journal.position(source)
        copied = BackedUpDatabase(
            epoch=position.epoch,
            sequence=position.sequence,
            schema_version=history.current(source),
            tables=contents.tables(source, progress),
        )
    except sqlite3.Error as failure:
        raise failures.translate(failure) from failure
    progress.add(told)
    return copied
