"""The inbox on disk: one SQLite file in the hub's data directory, and its one owner.

It is named so that no database can have its name, because hub and storage server may share a data
directory. One connection writes, in group commits (`synchronous=FULL`: what was told is on disk);
another only reads, so that a long list holds up no submission.
"""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import aiosqlite

from hub.adapters.inbox import table
from hub.adapters.inbox.group_commit import GroupCommit, translate
from hub.adapters.inbox.lock import InboxLock, InboxUnusable
from hub.core.delivery.entries import (
    Ending,
    Entry,
    Queue,
    Selection,
    Submission,
    Sweep,
    Swept,
    Waiting,
    Written,
)
from messagehub.errors import HubError

FILE_NAME: Final = "hub-inbox.db"
FULL: Final = 2

# I/O errors surface as error codes, not as a signal (sqlite.org/mmap.html).
_COMMON: Final = ("PRAGMA mmap_size = 0", "PRAGMA busy_timeout = 1000")
_WRITER: Final = (
    *_COMMON,
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    # Cut back after a burst.
    "PRAGMA journal_size_limit = 67108864",
)
# Only the writer checkpoints; two could meet the WAL-reset defect of SQLite before 3.51.3
# (sqlite.org/wal.html#walresetbug).
_READER: Final = (*_COMMON, "PRAGMA wal_autocheckpoint = 0")

Result = TypeVar("Result")


class InboxStore:
    """See `hub.core.delivery.entries.Store`; usable between `open` and `close`.

    `group_max` bounds the changes that share one fsync. `lost` is told, once, why nothing can be
    kept any more before the process restarts.
    """

    def __init__(
        self, directory: Path, *, group_max: int, lost: Callable[[HubError], None]
    ) -> None:
        self._file = directory / FILE_NAME
        self._lock = InboxLock(self._file)
        self._group_max = group_max
        self._lost = lost
        self._connections: list[aiosqlite.Connection] = []

    async def open(self) -> None:
        """Takes possession of the data directory and opens the file, a new one if there is none.

        Raises `OSError` if another hub has it, or if the file cannot be used.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._lock.take()
        try:
            writing = await self._connect("rwc", _WRITER)
            await _run(writing, _prepare)
            self._reading = await self._connect("ro", _READER)
        except sqlite3.Error as failure:
            await self._disconnect()
            raise InboxUnusable(
                f"{self._file} cannot be used ({failure}): see that the disk is sound; if the file "
                "is damaged, keep it for analysis and move it away, with it goes what it holds"
            ) from failure
        except BaseException:
            await self._disconnect()
            raise
        self._commits = GroupCommit(
            lambda work: _run(writing, work), group_max=self._group_max, lost=self._lost
        )

    async def close(self) -> None:
        """Commits what is under way and gives the data directory up."""
        await self._commits.close()
        await self._disconnect()

    async def accept(self, submission: Submission, *, now_us: int, room: bool) -> Written | None:
        """See the port."""
        return await self._commits.change(
            lambda raw: table.accept(raw, submission, now_us=now_us, room=room)
        )

    async def cancel(self, owner: str, request_id: str, *, now_us: int) -> Written | None:
        """See the port."""
        return await self._commits.change(
            lambda raw: table.cancel(raw, owner, request_id, now_us=now_us)
        )

    async def claim(
        self, queue: Queue, *, operations_max: int, bytes_max: int, now_us: int
    ) -> Sequence[Entry]:
        """See the port."""
        return await self._commits.change(
            lambda raw: table.claim(
                raw, queue, operations_max=operations_max, bytes_max=bytes_max, now_us=now_us
            )
        )

    async def postpone(
        self, untried: Sequence[Entry], tried: Sequence[Entry], *, setback: bool, now_us: int
    ) -> None:
        """See the port."""
        await self._commits.change(
            lambda raw: table.postpone(raw, untried, tried, setback=setback, now_us=now_us)
        )

    async def finish(
        self, ended: Sequence[tuple[Entry, Ending]], *, now_us: int
    ) -> Sequence[Entry]:
        """See the port."""
        return await self._commits.change(
            lambda raw: [
                announced
                for entry, ending in ended
                for announced in table.finish(raw, entry, ending, now_us=now_us)
            ]
        )

    async def sweep(self, sweep: Sweep, *, now_us: int) -> Swept:
        """See the port."""
        return await self._commits.change(lambda raw: table.sweep(raw, sweep, now_us=now_us))

    async def find(self, owner: str, request_id: str) -> Entry | None:
        """See the port."""
        return await self._read(lambda raw: table.find(raw, owner, request_id))

    async def page(
        self, selection: Selection, *, operations_max: int, bytes_max: int
    ) -> tuple[Sequence[Entry], bool]:
        """See the port."""
        return await self._read(
            lambda raw: table.page(
                raw, selection, operations_max=operations_max, bytes_max=bytes_max
            )
        )

    async def waiting(self) -> Sequence[Waiting]:
        """See the port."""
        return await self._read(table.waiting)

    async def oldest_us(self, queues: Collection[Queue]) -> int | None:
        """See the port."""
        return await self._read(lambda raw: table.oldest_us(raw, queues))

    async def _read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            return await _run(self._reading, work)
        except sqlite3.Error as failure:
            raise translate(failure) from failure

    async def _connect(self, mode: str, settings: Sequence[str]) -> aiosqlite.Connection:
        connection = await aiosqlite.connect(
            f"file:{quote(str(self._file))}?mode={mode}", uri=True, isolation_level=None
        )
        self._connections.append(connection)
        await _run(connection, lambda raw: _set(raw, settings))
        return connection

    async def _disconnect(self) -> None:
        # The writer goes last, and checkpoints.
        for connection in reversed(self._connections):
            await connection.close()
        self._connections.clear()
        self._lock.give_up()


def _set(raw: sqlite3.Connection, settings: Sequence[str]) -> None:
    for setting in settings:
        raw.execute(setting).fetchall()


def _prepare(raw: sqlite3.Connection) -> None:
    mode = raw.execute("PRAGMA journal_mode").fetchone()[0]
    synchronous = raw.execute("PRAGMA synchronous").fetchone()[0]
    if (mode, synchronous) != ("wal", FULL):
        raise InboxUnusable(
            f"SQLite did not take the settings that make a commit durable (journal_mode {mode}, "
            f"synchronous {synchronous}): is the file system without shared memory?"
        )
    found = table.set_up(raw)
    if found != table.FORMAT:
        raise InboxUnusable(
            f"the inbox has the format {found}, this version of the hub reads {table.FORMAT}: let "
            "the version that wrote it deliver what is in it"
        )


async def _run(
    connection: aiosqlite.Connection, work: Callable[[sqlite3.Connection], Result]
) -> Result:
    """Takes a whole unit of work to the connection's thread in one hop.

    aiosqlite offers one hop per statement in public; its own one-hop helpers use `_execute`.
    """
    raw = connection._conn  # noqa: SLF001 - see above
    result: Result = await connection._execute(work, raw)  # type: ignore[no-untyped-call]  # noqa: SLF001 - see above
    return result
