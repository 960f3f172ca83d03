"""All backups of a storage server, and what is done with them at the moment."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from messagehub import __version__
from messagehub.errors import BackupNotFound, QueueFull
from messagehub.storage.v1.backup_service_pb2 import (
    BackedUpDatabase,
    BackupActivity,
    BackupManifest,
    BackupVerification,
    RestoredDatabase,
    StoredBackup,
)
from storage.core.backups import packing, records, unpacked
from storage.core.backups.blocking import in_thread, told
from storage.core.backups.database_files import DatabaseFiles
from storage.core.backups.progress import Progress
from storage.core.backups.restoring import Restoring
from storage.core.backups.shelf import Shelf
from storage.core.backups.taking import Taking
from storage.core.databases import Databases
from storage.core.scratch import COPYING, RESTORING, remove_leftovers, scratch

RETRY_SECONDS: Final = 5.0


class Backups:
    """Everything runs on the loop. `directory` is where the live databases are.

    `at_once_max` pieces of work may be on their way. `wall_clock_us` gives microseconds since 1970
    UTC; `reached` is called with the names of the steps.
    """

    def __init__(
        self,
        databases: Databases,
        shelf: Shelf,
        files: DatabaseFiles,
        directory: Path,
        *,
        at_once_max: int,
        wall_clock_us: Callable[[], int],
        reached: Callable[[str], None],
    ) -> None:
        self._databases = databases
        self._shelf = shelf
        self._files = files
        self._directory = directory
        self._at_once_max = at_once_max
        self._wall_clock_us = wall_clock_us
        self._reached = reached
        self._drafts: dict[str, Taking] = {}
        self._active: dict[str, Progress] = {}

    async def find(self, backup_id: str = "") -> list[StoredBackup]:
        """Gives the backups, the newest first, or one of them; also those that are being taken."""
        with told():
            found = await asyncio.to_thread(self._read, backup_id)
        on_their_way = [
            StoredBackup(manifest=taking.manifest)
            for name, taking in self._drafts.items()
            if backup_id in ("", name) and all(name != one.manifest.backup_id for one in found)
        ]
        for stored in (every := [*on_their_way, *found]):
            progress = self._active.get(stored.manifest.backup_id)
            if progress is not None:
                stored.activity.CopyFrom(activity(progress))
        return sorted(every, key=lambda one: one.manifest.create_time_us, reverse=True)

    @asynccontextmanager
    async def taking(self, manifest: BackupManifest) -> AsyncIterator[Taking]:
        """Begins a backup; what is not completed within the block leaves nothing."""
        backup_id = manifest.backup_id
        with self._work(backup_id, Progress("create")) as progress:
            with told():
                draft = await asyncio.to_thread(self._shelf.begin, backup_id)
            try:
                # The copies are on the disk of the data, for which room was planned.
                with scratch(self._directory, COPYING) as place:
                    taking = Taking(draft, place, manifest, progress, self._reached)
                    self._drafts[backup_id] = taking
                    yield taking
            finally:
                self._drafts.pop(backup_id, None)
                await asyncio.to_thread(draft.discard)

    @contextmanager
    def verifying(self, backup_id: str) -> Iterator[Progress]:
        """Around `verify`."""
        with self._work(backup_id, Progress("verify")) as progress:
            yield progress

    async def verify(self, backup_id: str, progress: Progress) -> StoredBackup:
        """Restores a backup into a scratch place, checks it, and writes the result beside it."""
        with told():
            stored = await asyncio.to_thread(records.read, self._shelf, backup_id)
        if stored.damage and backup_id not in await asyncio.to_thread(self._shelf.names):
            raise BackupNotFound(f"there is no backup {backup_id}: list them to see what there is")
        found = [stored.damage] if stored.damage else []
        if not found:
            found = await self._problems(backup_id, stored.manifest, progress)
        self._reached("verify.checked")
        stored.verification.CopyFrom(
            BackupVerification(
                time_us=self._wall_clock_us(), problems=found, tool_version=__version__
            )
        )
        await in_thread(
            lambda: records.write_verification(self._shelf, backup_id, stored.verification),
            progress,
        )
        self._reached("verify.recorded")
        return stored

    @asynccontextmanager
    async def restoring(self, backup_id: str, restore_id: str) -> AsyncIterator[Restoring]:
        """Begins a restore; what is not replaced within the block stays as it was."""
        remove_leftovers(self._directory, RESTORING, COPYING)
        with (
            self._work(backup_id, Progress("restore")) as progress,
            scratch(self._directory, RESTORING) as place,
        ):
            yield Restoring(
                self._shelf,
                self._files,
                place,
                backup_id=backup_id,
                restore_id=restore_id,
                progress=progress,
                reached=self._reached,
            )

    async def chosen(self, backup_id: str, databases: Sequence[str]) -> list[BackedUpDatabase]:
        """Gives databases of a backup that are here; raises `BackupNotFound`, `BackupCorrupt`."""
        found = await self.find(backup_id)
        manifest = records.intact(found[0] if found else None, backup_id)
        here = {one.database: one for one in unpacked.here(manifest)}
        if absent := [name for name in databases if name not in here]:
            raise BackupNotFound(
                f"the backup {backup_id} has no {', '.join(absent)} here; it has "
                f"{', '.join(here) or 'nothing'}"
            )
        return [here[name] for name in databases]

    async def restored(self, restore_id: str, databases: Sequence[str]) -> list[RestoredDatabase]:
        """Tells what a restore of this name has done already; nothing, or all of it."""
        done: list[RestoredDatabase] = []
        for name in databases:
            database = self._databases.get(name)
            if await database.restored_by() == restore_id:
                position = await database.position()
                done.append(
                    RestoredDatabase(
                        database=name, epoch=position.epoch, sequence=position.sequence
                    )
                )
        return done

    async def delete(self, backup_id: str) -> None:
        """Deletes a backup, or cancels it while it is being taken."""
        if (taking := self._drafts.get(backup_id)) is not None:
            taking.progress.cancel()
            return
        with told():
            await asyncio.to_thread(self._shelf.delete, backup_id)

    def pieces(self, backup_id: str, database: BackedUpDatabase) -> Iterator[bytes]:
        """Gives one database of a backup in pieces, for a thread; raises `packing.Damaged`."""
        with self._shelf.open(backup_id, database.file) as source:
            yield from packing.unpack(source, records.packed(database))

    def cancel_all(self) -> None:
        """The server stops: what is on its way ends, and leaves nothing."""
        for progress in self._active.values():
            progress.cancel()

    async def _problems(
        self, backup_id: str, manifest: BackupManifest, progress: Progress
    ) -> list[str]:
        remove_leftovers(self._directory, RESTORING, COPYING)
        found: list[str] = []
        with scratch(self._directory, COPYING) as place:
            for database in unpacked.here(manifest):
                progress.expect(2 * database.size_bytes)
            for database in unpacked.here(manifest):
                file = place / f"{database.database}.db"
                found += await in_thread(
                    lambda database=database, file=file: unpacked.problems(  # type: ignore[misc]
                        self._shelf, self._files, backup_id, database, file, progress
                    ),
                    progress,
                )
                self._reached("verify.one_checked")
                file.unlink(missing_ok=True)
        return found

    def _read(self, backup_id: str) -> list[StoredBackup]:
        names = self._shelf.names()
        wanted = [name for name in names if backup_id in ("", name)]
        return [records.read(self._shelf, name) for name in wanted]

    @contextmanager
    def _work(self, backup_id: str, progress: Progress) -> Iterator[Progress]:
        if backup_id in self._active:
            raise QueueFull(
                f"the backup {backup_id} is in use ({self._active[backup_id].kind}): wait for that",
                retry_after=RETRY_SECONDS,
            )
        if len(self._active) >= self._at_once_max:
            raise QueueFull(
                f"{self._at_once_max} backups are taken, verified or restored at the moment "
                "(backups_at_once_max): wait for one of them",
                retry_after=RETRY_SECONDS,
            )
        self._active[backup_id] = progress
        try:
            yield progress
        finally:
            del self._active[backup_id]


def activity(progress: Progress) -> BackupActivity:
    """How far a piece of work is, for the wire."""
    return BackupActivity(
        kind=progress.kind,
        done_bytes=progress.done_bytes,
        total_bytes=max(progress.total_bytes, progress.done_bytes),
    )
