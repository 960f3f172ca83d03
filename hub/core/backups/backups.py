"""All that a hub does with backups: make, find, prove, restore, throw away."""

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from hub.core.backups.backup import (
    Activity,
    BackedUp,
    Backup,
    BackupState,
    Manifest,
    Stored,
    merged,
)
from hub.core.backups.creation import Creation
from hub.core.backups.jobs import Jobs
from hub.core.backups.ports import BackupServers, FileStart
from hub.core.backups.restoration import Restoration, Restorer
from hub.core.transactions.together import all_or_first_failure
from messagehub.errors import BackupNeeded, BackupNotFound, HubError


class Wanted(NamedTuple):
    """A backup that somebody wants; `backup_id` names it once and for all."""

    backup_id: str
    source_service: str
    correlation_id: str
    databases: tuple[str, ...]
    verify: bool = True
    schedule: str = ""


class Backups:
    """Any hub gives the same answers: what there is, the storage servers know."""

    def __init__(
        self,
        servers: BackupServers,
        creation: Creation,
        restorer: Restorer,
        jobs: Jobs,
        *,
        now_us: Callable[[], int],
        reached: Callable[[str], None],
    ) -> None:
        self._servers = servers
        self._creation = creation
        self._restorer = restorer
        self._jobs = jobs
        self._now_us = now_us
        self._reached = reached

    async def create(self, wanted: Wanted) -> Backup:
        """Begins a backup in the background; one of this name that is there, or begun, is given."""
        if (known := await self.look_up(wanted.backup_id)) is not None and (
            known.state is not BackupState.FAILED or known.addresses
        ):
            return known
        manifest = Manifest(
            backup_id=wanted.backup_id,
            source_service=wanted.source_service,
            correlation_id=wanted.correlation_id,
            create_time_us=self._now_us(),
            databases=tuple(BackedUp(name) for name in wanted.databases),
            schedule=wanted.schedule,
        )
        self._jobs.start(manifest, self._creation.run(manifest, verify=wanted.verify))
        return Backup(manifest, BackupState.RUNNING)

    async def look_up(self, backup_id: str) -> Backup | None:
        """Gives a backup; None if there is none."""
        here = self._jobs.get(backup_id)
        try:
            parts_by_address = await self._servers.find(backup_id)
        except HubError:
            if here is None:
                raise
            return here  # no storage server answers, which may be why it failed
        found = {address: part for address, parts in parts_by_address.items() for part in parts}
        if not found:
            return self._jobs.get(backup_id)
        return self._seen(merged(found))

    async def get(self, backup_id: str) -> Backup:
        """Gives a backup; raises `BackupNotFound`."""
        if (found := await self.look_up(backup_id)) is None:
            raise BackupNotFound(
                f"there is no backup {backup_id}: it was never made, did not come to its end "
                "because a server was stopped, or was deleted"
            )
        return found

    async def all(self) -> list[Backup]:
        """Gives every backup, the newest first."""
        parts: dict[str, dict[str, Stored]] = {}
        for address, stored in (await self._servers.find()).items():
            for part in stored:
                parts.setdefault(part.manifest.backup_id, {})[address] = part
        found = {name: self._seen(merged(every)) for name, every in parts.items()}
        for backup in self._jobs.all():
            found.setdefault(backup.backup_id, backup)
        return sorted(found.values(), key=lambda one: one.manifest.create_time_us, reverse=True)

    async def verify(self, backup: Backup) -> Backup:
        """Proves a backup, wherever its parts are."""
        if not backup.addresses:
            backup.check_restorable()
        await all_or_first_failure(
            self._servers.verify(address, backup.backup_id) for address in backup.addresses
        )
        return await self.get(backup.backup_id)

    async def restore(
        self, backup: Backup, databases: Sequence[str], restore_id: str, *, allow_torn: bool
    ) -> Restoration:
        """Replaces databases by their state in a backup; see `Restorer`."""
        return await self._restorer.run(
            backup, databases, restore_id, allow_torn=allow_torn, reached=self._reached
        )

    async def delete(self, backup: Backup, *, even_last_verified: bool) -> None:
        """Deletes a backup, or cancels it; raises `BackupNeeded` for the last verified one."""
        if not even_last_verified and (needed := needed_for(backup, await self.all())):
            raise BackupNeeded(
                f"{backup.backup_id} is the last verified backup of {', '.join(needed)}: make "
                "another one first, or say that it may go nevertheless (even_last_verified)"
            )
        if self._jobs.cancel(backup.backup_id):
            await self._jobs.wait(backup.backup_id)
            return
        found = await self._servers.find(backup.backup_id)
        for address in sorted(address for address, parts in found.items() if parts):
            await self._servers.delete(address, backup.backup_id)
        self._jobs.forget(backup.backup_id)

    def read(self, backup: Backup, database: str) -> AsyncGenerator[FileStart | bytes, None]:
        """Streams one database of a backup; raises `BackupNotFound`."""
        if database not in backup.places:
            raise BackupNotFound(
                f"the backup {backup.backup_id} has no {database}; it has "
                f"{', '.join(backup.databases)}"
            )
        return self._servers.read(backup.places[database], backup.backup_id, database)

    async def close(self) -> None:
        """The hub stops: what is on its way ends, and leaves nothing."""
        await self._jobs.close()

    def _seen(self, backup: Backup) -> Backup:
        """What is whole, but still worked on here, is not at its end."""
        here = self._jobs.get(backup.backup_id)
        if here is None or here.state is not BackupState.RUNNING or not backup.is_whole:
            return backup
        activity = backup.activity or Activity("verify", 0, 1)
        return replace(backup, state=BackupState.COMPLETED, activity=activity)


def needed_for(backup: Backup, every: Collection[Backup]) -> tuple[str, ...]:
    """The databases of which a backup is the last verified one."""
    if backup.state is not BackupState.VERIFIED:
        return ()
    others = {
        database
        for one in every
        if one.state is BackupState.VERIFIED and one.backup_id != backup.backup_id
        for database in one.databases
    }
    return tuple(database for database in backup.databases if database not in others)
