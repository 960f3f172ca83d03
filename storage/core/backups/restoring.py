"""One restore on its way: databases are staged and checked beside the live ones, then replaced."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from messagehub.errors import BackupCorrupt, InvalidRequest
from messagehub.storage.v1.backup_service_pb2 import BackedUpDatabase, RestoredDatabase
from storage.core.backups import unpacked
from storage.core.backups.blocking import in_thread
from storage.core.backups.database_files import DatabaseFiles
from storage.core.backups.progress import Progress
from storage.core.backups.shelf import Shelf
from storage.core.database import Database


class Restoring:
    """Stages in `place`, which is on the disk of the live databases."""

    def __init__(
        self,
        shelf: Shelf,
        files: DatabaseFiles,
        place: Path,
        *,
        backup_id: str,
        restore_id: str,
        progress: Progress,
        reached: Callable[[str], None],
    ) -> None:
        self.progress = progress
        self._shelf = shelf
        self._files = files
        self._place = place
        self._backup_id = backup_id
        self._restore_id = restore_id
        self._reached = reached
        self._staged: dict[str, BackedUpDatabase] = {}
        self._epochs: dict[str, str] = {}

    async def stage(self, databases: Sequence[BackedUpDatabase]) -> None:
        """Unpacks and checks databases; raises `BackupCorrupt`, which names what is wrong."""
        for database in databases:
            self.progress.expect(2 * database.size_bytes)
        for database in databases:
            await in_thread(lambda database=database: self._stage(database), self.progress)  # type: ignore[misc]
            self._reached("restore.staged")

    async def missing(self, database: str, transaction_ids: Sequence[str]) -> list[str]:
        """Names the transactions that a staged database knows nothing of."""
        if database not in self._staged:
            raise InvalidRequest(f"{database} is not staged")
        file = self._file(database)
        return await asyncio.to_thread(self._files.missing, file, transaction_ids)

    @asynccontextmanager
    async def closed(
        self, databases: Sequence[Database], wait_seconds: float
    ) -> AsyncIterator[None]:
        """Closes the live databases within the block; whoever wants them waits.

        Raises `TransactionConflict` if a transaction stays prepared for so long.
        """
        async with AsyncExitStack() as still:
            for database in sorted(databases, key=lambda one: one.name):
                await still.enter_async_context(database.standstill(wait_seconds))
            self._reached("restore.closed")
            yield

    async def replace(self) -> list[RestoredDatabase]:
        """Puts the staged databases in the places of the live ones, which are closed."""
        names = sorted(self._staged)
        dropped = await in_thread(
            lambda: self._files.replace(self._place, names), Progress("restore")
        )
        self._reached("restore.replaced")
        return [self._restored(name, dropped) for name in names]

    def _stage(self, database: BackedUpDatabase) -> None:
        file = self._file(database.database)
        found = unpacked.problems(
            self._shelf, self._files, self._backup_id, database, file, self.progress
        )
        if found:
            raise BackupCorrupt(
                f"nothing was replaced, because the backup {self._backup_id} is damaged: "
                + "; ".join(found)
            )
        self._epochs[database.database] = self._files.renew(file, self._restore_id)
        self._staged[database.database] = database

    def _restored(self, name: str, dropped: Mapping[str, str]) -> RestoredDatabase:
        return RestoredDatabase(
            database=name,
            epoch=self._epochs[name],
            sequence=self._staged[name].sequence,
            dropped_transaction_id=dropped.get(name, ""),
        )

    def _file(self, database: str) -> Path:
        return self._place / f"{database}.db"
