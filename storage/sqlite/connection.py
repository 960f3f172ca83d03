"""The one door to aiosqlite: a connection, its thread, and its settings.

`run` takes a whole unit of work to the connection's thread in one hop. A caller that is cancelled
while it waits does not stop the work in the thread; those who must not be split from its outcome
are not cancelled (the write lane), the others mark their operation cancelled, which the progress
handler sees.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import aiosqlite

from messagehub.errors import ShuttingDown
from storage.sqlite.guard import Guard

Result = TypeVar("Result")

CACHED_STATEMENTS: Final = 128
CHECKPOINT_PAGES: Final = 1000
JOURNAL_SIZE_BYTES_MAX: Final = 64 * 1024 * 1024
LIKE_PATTERN_BYTES_MAX: Final = 1000
# Virtual machine instructions between two looks at the clock: about a millisecond of work, so that
# a look (which needs Python's global lock) costs little and 100 ms are kept with room to spare.
PROGRESS_INSTRUCTIONS: Final = 50_000

# Settings of every connection, with their reasons.
_COMMON: Final = (
    # Not enforced unless asked for (sqlite.org/foreignkeys.html §2).
    "PRAGMA foreign_keys = ON",
    # Views and triggers may not call functions with side effects (sqlite.org/security.html).
    "PRAGMA trusted_schema = OFF",
    # Finds damaged pages when they are read, not later (sqlite.org/security.html).
    "PRAGMA cell_size_check = ON",
    # I/O errors surface as error codes, not as a signal (sqlite.org/mmap.html).
    "PRAGMA mmap_size = 0",
    # The file has one owner; waiting for a foreign lock would only hide that something is wrong.
    "PRAGMA busy_timeout = 1000",
)
_WRITER: Final = (
    # Readers go on while a commit is written (sqlite.org/wal.html).
    "PRAGMA journal_mode = WAL",
    # fsync at every commit; NORMAL may lose the last ones on power loss (sqlite.org/pragma.html).
    "PRAGMA synchronous = FULL",
    # The writer is the only connection that checkpoints. That also keeps clear of the WAL-reset
    # defect of SQLite before 3.51.3, which needs two (sqlite.org/wal.html#walresetbug).
    f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",
    # A write-ahead log that once grew is cut back at the next reset.
    f"PRAGMA journal_size_limit = {JOURNAL_SIZE_BYTES_MAX}",
)
_READER: Final = ("PRAGMA wal_autocheckpoint = 0",)
_PARTICIPANT: Final = (
    "PRAGMA synchronous = FULL",
    # Only the other writer checkpoints; see there.
    "PRAGMA wal_autocheckpoint = 0",
    # The functions that know only the recorded time must be usable in defaults and triggers;
    # Python cannot mark its functions as harmless. What a schema may call, the guard decides.
    "PRAGMA trusted_schema = ON",
)


class Connection:
    """One connection to one file, in its own thread."""

    def __init__(self, inner: aiosqlite.Connection, guard: Guard) -> None:
        self._inner = inner
        self._closed = False
        self.guard = guard

    @classmethod
    async def writer(cls, file: Path) -> "Connection":
        """Opens the writing connection; creates the file if it is not there."""
        return await cls._open(f"file:{quote(str(file))}?mode=rwc", (*_COMMON, *_WRITER))

    @classmethod
    async def reader(cls, file: Path) -> "Connection":
        """Opens a connection that cannot write."""
        return await cls._open(f"file:{quote(str(file))}?mode=ro", (*_COMMON, *_READER))

    @classmethod
    async def participant(cls, file: Path) -> "Connection":
        """Opens a connection for parts of transactions, used while the writer is idle."""
        return await cls._open(f"file:{quote(str(file))}?mode=rw", (*_COMMON, *_PARTICIPANT))

    @classmethod
    async def _open(cls, uri: str, settings: tuple[str, ...]) -> "Connection":
        inner = await aiosqlite.connect(
            uri, uri=True, isolation_level=None, cached_statements=CACHED_STATEMENTS
        )
        connection = cls(inner, Guard())
        try:
            await connection.run(lambda raw: connection._set_up(raw, settings))
        except BaseException:
            await inner.close()
            raise
        return connection

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Runs `work` in the connection's thread and gives what it returns or raises.

        Raises `ShuttingDown` once the connection is closed. aiosqlite offers one hop per statement
        in public; its own one-hop helpers use `_execute`.
        """
        if self._closed:
            raise ShuttingDown("the database was closed meanwhile", retry_after=1.0)
        raw = self._inner._conn  # noqa: SLF001 - see above
        result: Result = await self._inner._execute(work, raw)  # type: ignore[no-untyped-call]  # noqa: SLF001 - see above
        return result

    async def close(self) -> None:
        """Ends the thread after what is queued for it."""
        self._closed = True
        await self._inner.close()

    def _set_up(self, raw: sqlite3.Connection, settings: tuple[str, ...]) -> None:
        self.guard.install(raw)
        for setting in settings:
            raw.execute(setting)
        raw.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        raw.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LIKE_PATTERN_BYTES_MAX)
