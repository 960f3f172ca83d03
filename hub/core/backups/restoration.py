"""Restoring: all chosen databases are staged, the live ones closed, looked at, and replaced.

A transaction over several databases is torn apart if one of them forgets it and another does not.
While the databases that are replaced are closed, no such transaction can be decided, so what the
others have of them then is all that there will be.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

from hub.core.backups.backup import Backup
from hub.core.backups.ports import BackupServers, Restored, Restoring
from hub.core.transactions.together import all_or_first_failure
from messagehub.errors import BackupNotFound, HubError, TransactionsTorn

# What a transaction may have been prepared before the cut and still be decided after it.
MARGIN_US: Final = 3600 * 1_000_000
NAMED_MAX: Final = 20


class Restoration(NamedTuple):
    """What a restore did."""

    restored: tuple[Restored, ...]
    torn: tuple[str, ...]


class Restorer:
    """Restores; `wait_seconds` is how long a transaction may stay prepared before it gives up."""

    def __init__(
        self, servers: BackupServers, *, databases: Sequence[str], wait_seconds: float
    ) -> None:
        self._servers = servers
        self._databases = databases
        self._wait_seconds = wait_seconds

    async def run(
        self,
        backup: Backup,
        databases: Sequence[str],
        restore_id: str,
        *,
        allow_torn: bool,
        reached: Callable[[str], None],
    ) -> Restoration:
        """Replaces databases by their state in a backup.

        Asked again under the same `restore_id` it does what is not done yet. Raises
        `TransactionsTorn`, `TransactionConflict`, `BackupCorrupt`; then nothing was replaced,
        unless the databases are at several storage servers: then the message names them.
        """
        backup.check_restorable()
        if absent := sorted(set(databases) - set(backup.databases)):
            raise BackupNotFound(
                f"the backup {backup.backup_id} has no {', '.join(absent)}; it has "
                f"{', '.join(backup.databases)}"
            )
        async with AsyncExitStack() as parts:
            restorings: dict[str, Restoring] = {}
            for address, here in sorted(self._servers.places(databases).items()):
                restorings[address] = await parts.enter_async_context(
                    self._servers.restore(address, backup.backup_id, restore_id, here)
                )
            staged = await all_or_first_failure(one.staged() for one in restorings.values())
            done = [restored for part in staged for restored in part]
            left = {
                address: restorings[address]
                for address, part in zip(restorings, staged, strict=True)
                if not part
            }
            reached("restore.all_staged")
            for restoring in left.values():
                await restoring.close(self._wait_seconds)
            torn = await self._torn(backup, databases, left, allow_torn=allow_torn)
            await self._replace(left, done)
        return Restoration(tuple(sorted(done)), torn)

    async def _replace(self, left: Mapping[str, Restoring], done: list[Restored]) -> None:
        for restoring in left.values():
            try:
                done += await restoring.replace()
            except HubError as failure:
                if done:
                    names = ", ".join(restored.database for restored in done)
                    failure.message += (
                        f"; {names} are replaced already: call again with the same request_id"
                    )
                raise

    async def _torn(
        self,
        backup: Backup,
        databases: Sequence[str],
        left: Mapping[str, Restoring],
        *,
        allow_torn: bool,
    ) -> tuple[str, ...]:
        """Names the transactions that would be torn; raises `TransactionsTorn` for them."""
        others = [name for name in self._databases if name not in databases]
        since_us = backup.manifest.create_time_us - MARGIN_US
        found = await all_or_first_failure(
            self._servers.shared(other, databases, since_us=since_us) for other in others
        )
        shared = {one.transaction_id: one.databases for part in found for one in part}
        torn: set[str] = set()
        places = self._servers.places(databases)
        for address, restoring in left.items():
            for database in places[address]:
                ids = [name for name, all_of_it in shared.items() if database in all_of_it]
                torn |= set(await restoring.missing(database, ids)) if ids else set()
        names = tuple(sorted(torn))
        if names and not allow_torn:
            raise TransactionsTorn(
                f"{len(names)} transactions of {', '.join(databases)} with other databases came "
                "after the backup: the others would keep what these forget. Restore all of their "
                "databases, or accept it (allow_torn_transactions); the first are "
                + ", ".join(names[:NAMED_MAX]),
                metadata={
                    "count": str(len(names)),
                    "transactions": ",".join(names[:NAMED_MAX]),
                },
            )
        return names
