"""One backup on its way: snapshots are copied and compressed, then it becomes whole at once."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from messagehub.errors import InvalidRequest
from messagehub.storage.v1.backup_service_pb2 import (
    BackedUpDatabase,
    BackupManifest,
    StoredBackup,
)
from storage.core.backups import records
from storage.core.backups.blocking import in_thread
from storage.core.backups.packing import pack
from storage.core.backups.progress import Progress
from storage.core.backups.shelf import Draft
from storage.core.database import Database

FILE_SUFFIX = ".db.zst"


class Source(NamedTuple):
    """A database, and the read-only transaction that pinned its snapshot."""

    database: Database
    transaction_id: str


class Taking:
    """Copies into a draft, by way of a scratch place on the same disk.

    A byte of a database counts three times: it is copied, read again, and compressed.
    """

    def __init__(
        self,
        draft: Draft,
        place: Path,
        manifest: BackupManifest,
        progress: Progress,
        reached: Callable[[str], None],
    ) -> None:
        self.manifest = manifest
        self.progress = progress
        self._draft = draft
        self._place = place
        self._reached = reached
        self._copied: list[BackedUpDatabase] = []

    async def copy(self, sources: Sequence[Source]) -> list[BackedUpDatabase]:
        """Copies every snapshot, and lets each go as soon as it is copied."""
        async with AsyncExitStack() as lent:
            snapshots = []
            for database, transaction_id in sources:
                participant = await database.participant()
                one = lent.enter_async_context(participant.snapshots.lend(transaction_id))
                snapshots.append((database, await one))
            for _, snapshot in snapshots:
                self.progress.expect(3 * await snapshot.size_bytes())
            for database, snapshot in snapshots:
                copied = await snapshot.copy(self._file(database.name), self.progress)
                copied.database = database.name
                copied.file = f"{database.name}{FILE_SUFFIX}"
                self._copied.append(copied)
                self._reached("backup.copied")
        for copied in self._copied:
            await in_thread(lambda copied=copied: self._pack(copied), self.progress)  # type: ignore[misc]
            self._reached("backup.packed")
        return self._copied

    async def complete(self, manifest: BackupManifest) -> StoredBackup:
        """Makes the backup whole; it is on disk when this returns."""
        here = {copied.database: copied for copied in self._copied}
        if any(here.get(one.database, one) != one for one in manifest.databases):
            raise InvalidRequest("the manifest says something else than what was copied here")
        manifest.here.extend(here)
        await in_thread(lambda: self._complete(manifest), self.progress)
        self._reached("backup.completed")
        return StoredBackup(manifest=manifest, whole=True)

    async def discard(self) -> None:
        """Leaves nothing of it, unless it is whole."""
        await asyncio.to_thread(self._draft.discard)

    def _pack(self, copied: BackedUpDatabase) -> None:
        file = self._file(copied.database)
        with self._draft.create(copied.file) as target:
            packed = pack(file, target, self.progress)
        file.unlink()
        copied.size_bytes, copied.checksum, copied.compressed_bytes, copied.compressed_checksum = (
            packed
        )

    def _complete(self, manifest: BackupManifest) -> None:
        self.progress.check()
        records.write_manifest(self._draft, manifest)
        self._reached("backup.before_complete")
        self._draft.complete()

    def _file(self, database: str) -> Path:
        return self._place / f"{database}.db"
