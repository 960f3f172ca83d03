"""A snapshot that several statements read, on a reading connection of its own."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from messagehub.errors import InternalError, InvalidStatement
from messagehub.storage.v1.backup_service_pb2 import BackedUpDatabase
from messagehub.storage.v1.participant_service_pb2 import ParticipantOperation, ParticipantResult
from storage.core.backups.progress import Progress
from storage.core.operation import Operation, Outcome
from storage.core.transactions.engine_part import Inspected
from storage.sqlite import failures
from storage.sqlite.backups import copying, inspection
from storage.sqlite.connection import Connection
from storage.sqlite.guard import RESERVED_PREFIX
from storage.sqlite.reader import Reader

_NEWEST = f"SELECT coalesce(max(sequence), 0) FROM {RESERVED_PREFIX}journal"


class PinnedSnapshot:
    """See `storage.core.transactions.engine_part.Snapshot`."""

    def __init__(
        self,
        connection: Connection,
        reader: Reader,
        give_back: Callable[[], Awaitable[None]],
        database: str,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._give_back = give_back
        self._database = database
        self._copying: Progress | None = None
        self.sequence = 0

    async def pin(self) -> None:
        """Pins the state of this moment."""
        self.sequence = await self._connection.run(_begin)

    async def run(
        self, operations: Sequence[ParticipantOperation], control: Operation
    ) -> list[ParticipantResult]:
        """Runs reading statements."""
        return await self._connection.run(lambda _: self._run(operations, control))

    async def size_bytes(self) -> int:
        """The size of the database in this state."""
        return await self._connection.run(copying.size_bytes)

    async def copy(self, file: Path, progress: Progress) -> BackedUpDatabase:
        """Copies this state into a file; a caller that goes away stops it."""
        self._copying = progress
        try:
            return await self._connection.run(lambda raw: copying.copy(raw, file, progress))
        except asyncio.CancelledError:
            progress.cancel()
            # What still runs in the thread ends before anything else does there.
            await self._connection.run(lambda _: None)
            raise
        finally:
            self._copying = None

    async def inspect(self) -> list[Inspected]:
        """Tells whether the invariants of the database hold in this state."""
        return await self._connection.run(lambda raw: inspection.inspect(raw, self._database))

    def stop(self) -> None:
        """A copy that is being made ends at its next step."""
        if self._copying is not None:
            self._copying.cancel()

    async def close(self) -> None:
        """Lets the snapshot and its connection go."""
        await self._connection.run(lambda raw: raw.execute("ROLLBACK"))
        await self._give_back()

    def _run(
        self, operations: Sequence[ParticipantOperation], control: Operation
    ) -> list[ParticipantResult]:
        results: list[ParticipantResult] = []
        for operation in operations:
            control.statement = operation.statement
            control.schema_version = operation.schema_version
            outcomes: list[Outcome | None] = []
            waiting = [control]
            self._reader.drain(
                lambda waiting=waiting: waiting.pop() if waiting else None,  # type: ignore[misc]
                lambda _, outcome, outcomes=outcomes: outcomes.append(outcome),  # type: ignore[misc]
            )
            results.append(self._result(operation, outcomes[0]))
        return results

    def _result(
        self, operation: ParticipantOperation, outcome: Outcome | None
    ) -> ParticipantResult:
        place = {"operation": str(operation.index)}
        if outcome is None:
            raise InvalidStatement(
                "a read-only transaction runs reading statements only",
                fields={"statement.query": "writes"},
                metadata=place,
            )
        if outcome.error is not None:
            outcome.error.metadata |= place
            raise outcome.error
        if outcome.result is None:
            raise InternalError("a read gave nothing")
        return ParticipantResult(
            index=operation.index,
            database=self._database,
            sequence=self.sequence,
            result=outcome.result,
        )


def _begin(raw: sqlite3.Connection) -> int:
    try:
        raw.execute("BEGIN")
        sequence: int = raw.execute(_NEWEST).fetchone()[0]
    except sqlite3.Error as failure:
        raise failures.translate(failure) from failure
    return sequence
