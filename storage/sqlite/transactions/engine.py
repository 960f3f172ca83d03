"""The SQLite side of transactions; see `storage.core.transactions.engine_part`.

The connection for parts that write is opened with the first of them and stays as long as the
database is open. Snapshots borrow reading connections from the engine.
"""

import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from messagehub.errors import DatabaseUnavailable
from messagehub.storage.v1.participant_service_pb2 import TransactionHeader, TransactionRecord
from messagehub.storage.v1.schema_pb2 import SchemaOperation, SchemaReport
from storage.core.operation import Operation
from storage.core.transactions.engine_part import Advance, Advanced, Recovered
from storage.sqlite import failures, journal
from storage.sqlite.changes import Changes
from storage.sqlite.connection import Connection
from storage.sqlite.reader import Reader
from storage.sqlite.schema.schema_work import SchemaWork
from storage.sqlite.schema_texts import SchemaTexts
from storage.sqlite.statements import Runner, StatementLimits
from storage.sqlite.transactions import records
from storage.sqlite.transactions.part_work import PartWork, Reached
from storage.sqlite.transactions.pinned import PinnedSnapshot
from storage.sqlite.transactions.prepared_file import PreparedFile
from storage.sqlite.transactions.recorded_chance import RecordedChance
from storage.sqlite.transactions.statements_of_part import PartStatements
from storage.sqlite.writer import Writer

Result = TypeVar("Result")
Borrowed = tuple[Connection, Reader]

# A log that grew by transactions alone is written back by the other writer at this size.
SEED_BYTES: Final = 16
CHECKPOINT_BYTES: Final = 4 * 1024 * 1024


class SqliteTransactions:
    """The parts of one open file.

    `read` runs work on the connection that reads the journal, `checkpoint` on that of the writer;
    `borrow` and `give_back` lend reading connections; `check` raises `EngineLost` if the files were
    taken away.
    """

    def __init__(
        self,
        file: Path,
        writer: Writer,
        *,
        database: str,
        limits: StatementLimits,
        schema: SchemaTexts,
        clock: Callable[[], float],
        wall_clock_us: Callable[[], int],
        read: Callable[[Callable[[sqlite3.Connection], object]], Awaitable[object]],
        checkpoint: Callable[[], Awaitable[None]],
        borrow: Callable[[], Awaitable[Borrowed]],
        give_back: Callable[[Borrowed], None],
        check: Callable[[], None],
        part_bytes_max: int,
        reached: Reached,
        schema_seconds_max: float,
    ) -> None:
        self._check = check
        self._part_bytes_max = part_bytes_max
        self._file = file
        self._log = file.with_name(f"{file.name}-wal")
        self._writer = writer
        self._database = database
        self._limits = limits
        self._schema = schema
        self._clock = clock
        self._wall_clock_us = wall_clock_us
        self._read = read
        self._checkpoint = checkpoint
        self._borrow = borrow
        self._give_back = give_back
        self._reached = reached
        self._schema_seconds_max = schema_seconds_max
        self._prepared = PreparedFile(file)
        self._connection: Connection | None = None
        self._chance: RecordedChance | None = None
        self._work: PartWork | None = None

    @property
    def is_open(self) -> bool:
        """True while a part that may write is there."""
        return self._work is not None and self._work.is_open

    async def recover(self) -> Recovered | None:
        """See the port."""
        if self._work is None and self._prepared.read() is None:
            return None
        return await self._run(lambda work: work.recover())

    async def advance(self, advance: Advance) -> Advanced:
        """See the port."""
        advanced = await self._run(lambda work: self._vouched(work.advance(advance)))
        if advanced.applied is not None:
            await self._write_back()
        return advanced

    async def commit(self, *, forced: bool) -> Advanced:
        """See the port."""
        advanced = await self._run(lambda work: self._vouched(work.commit(forced=forced)))
        await self._write_back()
        return advanced

    async def roll_back(self) -> None:
        """See the port."""
        if self._work is not None:
            await self._run(lambda work: work.roll_back())

    async def forget(self) -> None:
        """See the port."""
        await self._run(lambda work: work.forget())

    async def look_up(self, transaction_id: str, request_id: str = "") -> TransactionRecord | None:
        """See the port."""
        found = await self._read(lambda raw: _look_up(raw, transaction_id, request_id))
        return found if isinstance(found, TransactionRecord) else None

    async def ended(self, limit: int) -> list[TransactionRecord]:
        """See the port."""
        found = await self._read(lambda raw: records.newest(raw, limit))
        return found if isinstance(found, list) else []

    async def rehearse(
        self, operations: Sequence[SchemaOperation], control: Operation
    ) -> list[SchemaReport]:
        """See the port."""
        header = TransactionHeader(
            source_service=control.source_service,
            correlation_id=control.correlation_id,
            create_time_us=self._wall_clock_us(),
            seed=os.urandom(SEED_BYTES),
        )
        return await self._run(lambda work: work.rehearse(operations, header, control))

    async def pin(self) -> PinnedSnapshot:
        """See the port."""
        borrowed = await self._borrow()

        async def give_back() -> None:
            self._give_back(borrowed)

        connection, reader = borrowed
        snapshot = PinnedSnapshot(connection, reader, give_back, self._database)
        try:
            await snapshot.pin()
        except BaseException:
            self._give_back(borrowed)
            raise
        return snapshot

    async def close(self) -> None:
        """Ends the connection; what is prepared stays on disk."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
        if self._chance is not None:
            self._chance.close()
        self._prepared.close()

    async def _run(self, work: Callable[[PartWork], Result]) -> Result:
        if self._connection is None:
            await self._connect()
        connection, part = self._connection, self._work
        if connection is None or part is None:
            raise DatabaseUnavailable("the database was closed meanwhile", retry_after=1.0)
        try:
            return await connection.run(lambda _: work(part))
        except sqlite3.Error as failure:
            raise failures.verify(failure) from failure

    async def _connect(self) -> None:
        try:
            connection = await Connection.participant(self._file)
        except sqlite3.Error as failure:
            raise failures.translate(failure) from failure
        self._connection = connection
        self._work = await connection.run(lambda raw: self._make_work(raw, connection))

    def _make_work(self, raw: sqlite3.Connection, connection: Connection) -> PartWork:
        self._chance = RecordedChance(raw, self._limits.value_bytes_max)
        runner = Runner(raw, connection.guard, self._limits, self._clock, self._schema)
        connection.look = runner.watch.look
        changes = Changes(runner)
        schema = SchemaWork(
            runner,
            changes,
            database=self._database,
            clock=self._clock,
            seconds_max=self._schema_seconds_max,
        )
        statements = PartStatements(
            runner, changes, self._chance, schema, self._database, self._part_bytes_max
        )
        return PartWork(
            statements,
            raw,
            self._writer,
            self._prepared,
            database=self._database,
            wall_clock_us=self._wall_clock_us,
            reached=self._reached,
        )

    def _vouched(self, advanced: Advanced) -> Advanced:
        """Looks, before anything durable is told, whether the files are still those on the disk."""
        if advanced.applied is not None or self._prepared.holds:
            self._check()
        return advanced

    async def _write_back(self) -> None:
        if self._log.exists() and self._log.stat().st_size > CHECKPOINT_BYTES:
            await self._checkpoint()


def _look_up(
    raw: sqlite3.Connection, transaction_id: str, request_id: str
) -> TransactionRecord | None:
    key = journal.id_bytes(request_id)
    if key is None:
        return records.find(raw, transaction_id)
    known = journal.find(raw, key)
    if known is None or not known.record.HasField("transaction"):
        return None
    return known.record.transaction
