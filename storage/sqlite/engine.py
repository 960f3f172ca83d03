"""The SQLite engine: the port of the core over one file.

Connections: one that writes and checkpoints, one per read lane, one for the journal, and a few for
streamed queries; all but the first are read-only. They are closed before the writer, which then
checkpoints as the last one out.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from messagehub.errors import DatabaseCorrupt, DatabaseNotEmpty, DatabaseUnavailable
from messagehub.serving import failpoints
from messagehub.storage.v1.storage_service_pb2 import DescribeSchemaResponse
from messagehub.v1.event_pb2 import Event
from messagehub.v1.statement_pb2 import ResultSet, Statement
from storage.core.engine import Access, Recorded, Trimmed
from storage.core.operation import Applied, Operation, Outcome, Position
from storage.core.subscriptions import LagLimits, Standing
from storage.sqlite import adoption, failures, journal, statements, subscriptions
from storage.sqlite.backups import replacement
from storage.sqlite.connection import Connection
from storage.sqlite.ownership import Ownership
from storage.sqlite.presence import Presence
from storage.sqlite.reader import Pages, Reader
from storage.sqlite.schema import history
from storage.sqlite.schema.description import described
from storage.sqlite.schema_texts import SchemaTexts
from storage.sqlite.statements import Runner, StatementLimits
from storage.sqlite.subscriptions import Subscriptions
from storage.sqlite.transactions import records
from storage.sqlite.transactions.engine import SqliteTransactions
from storage.sqlite.writer import Writer

Result = TypeVar("Result")

NANOSECONDS_PER_MICROSECOND: Final = 1000
EPOCH_BYTES: Final = 8
FULL: Final = 2
# The first version without the WAL-reset defect; the single writer keeps clear of it before.
WAL_RESET_FIXED: Final = (3, 51, 3)
SUFFIX: Final = ".db"
# The loop and the writers go before reads, and reads before streams, which last longest.
LANE_NICENESS: Final = 5
STREAM_NICENESS: Final = 15
# The beginning of a file, and the largest page, which its header writes as 1
# (sqlite.org/fileformat.html).
MAGIC: Final = b"SQLite format 3\x00"
HEADER_BYTES: Final = 100
PAGE_BYTES_MAX: Final = 65_536


def description() -> str:
    """The engine and its version, as `status` shows it."""
    safe = sqlite3.sqlite_version_info >= WAL_RESET_FIXED
    note = "" if safe else " (single writer: clear of the WAL-reset defect before 3.51.3)"
    return f"sqlite {sqlite3.sqlite_version}{note}"


@dataclass(slots=True, frozen=True)
class SqliteSettings:
    """Where files are, and their bounds; see `StorageConfig` for units and defaults."""

    directory: Path
    limits: StatementLimits
    group_seconds_max: float
    query_seconds_max: float
    database_bytes_max: int
    journal_bytes_max: int
    part_bytes_max: int
    subscriptions_max: int
    subscription_lag: LagLimits
    schema_seconds_max: float


def _wall_clock_us() -> int:
    return time.time_ns() // NANOSECONDS_PER_MICROSECOND


class SqliteEngine:
    """One file; see `storage.core.engine.Engine` for what it promises."""

    def __init__(self, database: str, settings: SqliteSettings) -> None:
        self._database = database
        self._settings = settings
        self._file = settings.directory / f"{database}{SUFFIX}"
        self._ownership = Ownership(self._file)
        self._connections: list[Connection] = []
        self._lanes: dict[int, tuple[Connection, Reader]] = {}
        self._spare: list[tuple[Connection, Reader]] = []
        self._opened = False
        self._schema = SchemaTexts()
        self._clock: Callable[[], float] = asyncio.get_running_loop().time

    async def open(self) -> Position:
        """See the port. SQLite itself recovers the file from its write-ahead log."""
        try:
            self._settings.directory.mkdir(parents=True, exist_ok=True)
            self._ownership.take()
            replacement.finish(self._file)
            _check_whole(self._file)
        except OSError as failure:
            raise DatabaseUnavailable(
                f"the data directory cannot be used: {failure.strerror}", retry_after=1.0
            ) from failure
        await self._connect()
        position = await self._run_on_writer(journal.position)
        return replace(position, schema_version=self._writer.version)

    async def _connect(self) -> None:
        try:
            self._writing = await Connection.writer(self._file)
            self._connections.append(self._writing)
            self._writer = await self._writing.run(self._make_writer)
            self._journal = await Connection.reader(self._file)
        except sqlite3.Error as failure:
            raise failures.translate(failure) from failure
        self._connections.append(self._journal)
        self._presence = await asyncio.to_thread(Presence, self._file, self._ownership.identity)
        self._transactions = self._make_transactions()
        self._opened = True

    def _make_writer(self, raw: sqlite3.Connection) -> Writer:
        mode = raw.execute("PRAGMA journal_mode").fetchone()[0]
        synchronous = raw.execute("PRAGMA synchronous").fetchone()[0]
        if (mode, synchronous) != ("wal", FULL):
            raise DatabaseUnavailable(
                f"SQLite did not take the settings that make a commit durable (journal_mode "
                f"{mode}, synchronous {synchronous}): is the file system without shared memory?"
            )
        journal.set_up(raw, os.urandom(EPOCH_BYTES).hex())
        subscriptions.set_up(raw)
        records.set_up(raw)
        self._schema.load(raw)
        history.set_up(raw)
        return Writer(
            self._make_writing_runner(raw),
            self._clock,
            _wall_clock_us,
            database=self._database,
            group_seconds_max=self._settings.group_seconds_max,
            subscriptions_max=self._settings.subscriptions_max,
        )

    def _make_writing_runner(self, raw: sqlite3.Connection) -> Runner:
        page_bytes = raw.execute("PRAGMA page_size").fetchone()[0]
        pages_max = max(1, self._settings.database_bytes_max // page_bytes)  # 0 would be no limit
        raw.execute(f"PRAGMA max_page_count = {pages_max}")
        return self._make_runner(self._writing, raw)

    @property
    def transactions(self) -> SqliteTransactions:
        """See the port."""
        return self._transactions

    def _make_transactions(self) -> SqliteTransactions:
        async def checkpoint() -> None:
            # Read to its end: a statement that is still under way would hold up the next commit.
            await self._run_on_writer(
                lambda raw: raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            )

        async def borrow() -> tuple[Connection, Reader]:
            return self._spare.pop() if self._spare else await self._open_reader(STREAM_NICENESS)

        return SqliteTransactions(
            self._file,
            self._writer,
            database=self._database,
            limits=self._settings.limits,
            schema=self._schema,
            clock=self._clock,
            wall_clock_us=_wall_clock_us,
            read=self._run_on_journal,
            checkpoint=checkpoint,
            borrow=borrow,
            give_back=self._spare.append,
            check=self._presence.check,
            part_bytes_max=self._settings.part_bytes_max,
            reached=failpoints.reached,
            schema_seconds_max=self._settings.schema_seconds_max,
        )

    async def close(self) -> None:
        """See the port."""
        await self._disconnect()
        self._ownership.give_up()

    async def _disconnect(self) -> None:
        """Ends every connection; the writer goes last, and checkpoints."""
        if self._opened:
            await self._transactions.close()
        for connection in reversed(self._connections):
            await connection.close()
        self._connections.clear()
        self._lanes.clear()
        self._spare.clear()

    def access(self, statement: Statement) -> Access:
        """See the port."""
        return statements.access(statement)

    async def apply(self, group: Sequence[Operation]) -> Applied:
        """See the port."""
        return await self._writing.run(lambda _: self._apply(group))

    def _apply(self, group: Sequence[Operation]) -> Applied:
        if self._writer.spent:
            try:
                self._writer.use(self._writing.renew(self._make_writing_runner))
            except sqlite3.Error as failure:
                raise failures.translate(failure) from failure
        applied = self._writer.apply(group)
        self._presence.check()
        return applied

    async def drain(
        self,
        lane: int,
        take: Callable[[], Operation | None],
        deliver: Callable[[Operation, Outcome | None], None],
    ) -> None:
        """See the port."""
        if lane not in self._lanes:
            self._lanes[lane] = await self._open_reader(LANE_NICENESS)
        connection, reader = self._lanes[lane]
        await connection.run(lambda _: reader.drain(take, deliver))

    async def pages(self, operation: Operation, page_rows: int) -> AsyncGenerator[ResultSet, None]:
        """See the port."""
        borrowed = self._spare.pop() if self._spare else await self._open_reader(STREAM_NICENESS)
        connection, reader = borrowed
        pages: Pages | None = None
        try:
            pages = await connection.run(
                lambda _: reader.pages(operation, page_rows, self._settings.query_seconds_max)
            )
            next_page = pages.next
            while not pages.exhausted:
                yield await connection.run(lambda _: next_page())
        finally:
            # What still runs in the thread ends at its next look at the clock.
            operation.cancelled = True
            if not connection.closed:
                await connection.run(lambda _: pages.close() if pages else reader.finish())
                self._spare.append(borrowed)

    async def journal(self, after_sequence: int, limit: int) -> list[Event]:
        """See the port."""
        epoch, database = self._writer.epoch, self._database
        bytes_max = self._settings.journal_bytes_max
        return await self._run_on_journal(
            lambda raw: journal.after(raw, after_sequence, limit, bytes_max, epoch, database)
        )

    async def recorded(self, request_id: str) -> Recorded | None:
        """See the port."""
        return await self._run_on_journal(lambda raw: journal.recorded(raw, request_id))

    async def schema(self) -> DescribeSchemaResponse:
        """See the port."""
        return await self._run_on_journal(described)

    async def trim(self, *, older_than_us: int, keep_rows: int, at_most: int) -> Trimmed:
        """See the port. It comes by regularly, so it also looks at the files."""
        await asyncio.to_thread(self._presence.check)
        limits = self._settings.subscription_lag
        try:
            return await self._writing.run(
                lambda raw: _trim(
                    raw,
                    older_than_us,
                    keep_rows,
                    at_most,
                    lambda end, newest: self._writer.subscriptions.hold_back(end, newest, limits),
                )
            )
        except sqlite3.Error as failure:
            raise failures.verify(failure) from failure

    async def subscriptions(self, source_service: str, name: str) -> list[Standing]:
        """See the port."""
        database, epoch = self._database, self._writer.epoch
        return await self._run_on_journal(
            lambda raw: Subscriptions(
                raw, database=database, epoch=epoch, wall_clock_us=_wall_clock_us
            ).standing(source_service, name)
        )

    async def restored_by(self) -> str:
        """See the port."""
        return await self._run_on_journal(replacement.restored_by)

    async def adopt(self, file: Path) -> list[str]:
        """See the port. The file takes the database's place, with its journal."""
        if tables := await self._run_on_journal(adoption.tables):
            raise DatabaseNotEmpty(
                f"{self._database} holds {len(tables)} tables already ({', '.join(tables[:5])}): "
                "adopt into an empty database",
                fields={"database": "is not empty"},
            )
        await asyncio.to_thread(adoption.check, file)
        bytes_max = self._settings.database_bytes_max
        await self._run_on_journal(lambda raw: adoption.carry(raw, file, bytes_max))
        await self._disconnect()
        await asyncio.to_thread(adoption.take_place, file, self._file)
        await self._connect()
        return await self._run_on_journal(adoption.tables)

    async def _open_reader(self, niceness: int) -> tuple[Connection, Reader]:
        try:
            connection = await Connection.reader(self._file)
        except sqlite3.Error as failure:
            raise failures.translate(failure) from failure
        self._connections.append(connection)
        await connection.yield_to_others(niceness)

        def make(raw: sqlite3.Connection) -> Runner:
            return self._make_runner(connection, raw)

        reader = await connection.run(
            lambda raw: Reader(
                make(raw),
                lambda: connection.renew(make),
                lambda: self._writer.sequence,
                lambda: self._writer.shape,
                lambda: self._writer.version,
                database=self._database,
            )
        )
        return connection, reader

    def _make_runner(self, connection: Connection, raw: sqlite3.Connection) -> Runner:
        runner = Runner(raw, connection.guard, self._settings.limits, self._clock, self._schema)
        connection.look = runner.watch.look
        return runner

    async def _run_on_writer(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        return await _translated(self._writing, work)

    async def _run_on_journal(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        return await _translated(self._journal, work)


def _trim(
    raw: sqlite3.Connection,
    older_than_us: int,
    keep_rows: int,
    at_most: int,
    hold_back: Callable[[int, int], tuple[int, list[Standing]]],
) -> Trimmed:
    """Forgets old lines of the journal, and the records of transactions of the same age."""
    records.trim(raw, older_than_us, at_most)
    return journal.trim(raw, older_than_us, keep_rows, at_most, hold_back)


async def _translated(
    connection: Connection, work: Callable[[sqlite3.Connection], Result]
) -> Result:
    try:
        return await connection.run(work)
    except sqlite3.Error as failure:
        raise failures.translate(failure) from failure


def _check_whole(file: Path) -> None:
    """Refuses a file that ends within a page, whose rest SQLite would silently take for zeros.

    While a log is beside it, the file may be anything: SQLite recovers it from there.
    """
    logs = (file.with_name(file.name + suffix) for suffix in ("-wal", "-journal"))
    if not file.is_file() or any(log.exists() and log.stat().st_size for log in logs):
        return
    with file.open("rb") as opened:
        header = opened.read(HEADER_BYTES)
    page_bytes = int.from_bytes(header[16:18], "big")
    page_bytes = PAGE_BYTES_MAX if page_bytes == 1 else page_bytes
    if header.startswith(MAGIC) and page_bytes and file.stat().st_size % page_bytes:
        raise DatabaseCorrupt(
            "the database file ends within a page, so it was cut: stop the storage server, keep "
            "the file for analysis, and restore the database from a backup"
        )
