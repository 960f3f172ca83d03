"""The one door to aiosqlite: a connection, its thread, and its settings.

`run` takes a whole unit of work to the connection's thread in one hop. A caller that is cancelled
while it waits does not stop the work in the thread; those who must not be split from its outcome
are not cancelled (the write lane), the others mark their operation cancelled, which the progress
handler sees.
"""

import asyncio
import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import aiosqlite

from messagehub.errors import ShuttingDown
from storage.sqlite.guard import Guard
from storage.sqlite.statement_cache import CACHED_STATEMENTS

Result = TypeVar("Result")

CHECKPOINT_PAGES: Final = 1000
JOURNAL_SIZE_BYTES_MAX: Final = 64 * 1024 * 1024
LIKE_PATTERN_BYTES_MAX: Final = 1000
# Virtual machine instructions between two looks at the clock: about a millisecond of work, so that
# a look (which needs Python's global lock) costs little and 100 ms are kept with room to spare.
PROGRESS_INSTRUCTIONS: Final = 50_000

# The longest time between two looks at a connection from the loop.
WATCH_SECONDS: Final = 0.04
# What one statement may be compiled to. The default is 250 million instructions of 24 bytes; the
# largest text that is let in, a megabyte of rows of one digit, takes about a million.
INSTRUCTIONS_MAX: Final = 4_000_000

# Settings of every connection, with their reasons.
_COMMON: Final = (
    # Not enforced unless asked for (sqlite.org/foreignkeys.html §2).
    "PRAGMA foreign_keys = ON",
    # Triggers may use FTS5 tables, and defaults the functions that Python defined, none of which
    # SQLite takes for harmless. What a schema may reach and call, the guard decides for each
    # statement that meets it (sqlite.org/security.html).
    "PRAGMA trusted_schema = ON",
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
)


class Connection:
    """One connection to one file, in its own thread."""

    def __init__(
        self, inner: aiosqlite.Connection, guard: Guard, settings: tuple[str, ...]
    ) -> None:
        self._inner = inner
        self._settings = settings
        self.closed = False
        self.guard = guard
        self.look: Callable[[], None] | None = None

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
        connection = cls(inner, Guard(), settings)
        try:
            await connection.run(connection._set_up)
        except BaseException:
            await inner.close()
            raise
        return connection

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Runs `work` in the connection's thread and gives what it returns or raises.

        While it lasts, `look` is called again and again on the loop. Raises `ShuttingDown` once
        the connection is closed. aiosqlite offers one hop per statement
        in public; its own one-hop helpers use `_execute`.
        """
        if self.closed:
            raise ShuttingDown("the database was closed meanwhile", retry_after=1.0)
        inner = self._inner
        loop = asyncio.get_running_loop()

        timer: asyncio.TimerHandle | None = None

        def look_later() -> None:
            nonlocal timer
            timer = loop.call_later(WATCH_SECONDS, look)

        def look() -> None:
            if self.look is not None:
                self.look()
            look_later()

        look_later()
        try:
            result: Result = await inner._execute(lambda: work(inner._conn))  # type: ignore[no-untyped-call]  # noqa: SLF001 - see above
        finally:
            if timer is not None:
                timer.cancel()
        return result

    def renew(self, make: Callable[[sqlite3.Connection], Result]) -> Result:
        """Opens the connection anew, in its thread, and gives what `make` makes of it.

        If that fails, the old one stays. aiosqlite has no public way to do it in the same thread.
        """
        raw: sqlite3.Connection = self._inner._connector()  # noqa: SLF001 - see above
        try:
            self._set_up(raw)
            made = make(raw)
        except BaseException:
            raw.close()
            raise
        self._inner._conn.close()  # noqa: SLF001 - see above
        self._inner._connection = raw  # noqa: SLF001 - see above
        return made

    async def close(self) -> None:
        """Ends the thread after what is queued for it."""
        self.closed = True
        await self._inner.close()

    async def yield_to_others(self, niceness: int) -> None:
        """Lets the other threads of the process go first where cores are short.

        Linux has a priority for each thread; elsewhere nothing happens.
        """
        if sys.platform == "linux":
            await self.run(
                lambda _: os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
            )

    def _set_up(self, raw: sqlite3.Connection) -> None:
        self.guard.install(raw)
        for setting in self._settings:
            raw.execute(setting)
        raw.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        raw.setlimit(sqlite3.SQLITE_LIMIT_VDBE_OP, INSTRUCTIONS_MAX)
        raw.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LIKE_PATTERN_BYTES_MAX)
