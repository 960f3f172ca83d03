"""Making a backup: one cut, a copy at each storage server, one manifest, and the proof."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from hub.core.backups.backup import BackedUp, Manifest
from hub.core.backups.ports import BackupEvents, BackupServers, Snapshots, Taking
from hub.core.transactions.together import all_or_first_failure, each
from messagehub.errors import BackupCorrupt, HubError, RequestIdReused

_log = logging.getLogger(__name__)


class Creation:
    """Makes backups; `now_us` gives microseconds since 1970 UTC, `version` is the hub's own."""

    def __init__(
        self,
        servers: BackupServers,
        snapshots: Snapshots,
        events: BackupEvents,
        *,
        now_us: Callable[[], int],
        version: str,
    ) -> None:
        self._servers = servers
        self._snapshots = snapshots
        self._events = events
        self._now_us = now_us
        self._version = version

    async def run(self, manifest: Manifest, *, verify: bool) -> None:
        """Makes a backup of the databases that the manifest names; raises why it failed.

        Somebody else who makes the same one is left to it.
        """
        databases = [one.database for one in manifest.databases]
        try:
            whole, addresses = await self._make(manifest, databases)
            if verify:
                await self._prove(whole, addresses)
        except RequestIdReused:
            _log.info("another hub makes the backup", extra={"backup_id": manifest.backup_id})
        except HubError as error:
            _log.warning(
                "a backup failed",
                extra={"backup_id": manifest.backup_id, "detail": error.message},
            )
            self._events.failed(manifest, databases, error)
            raise
        else:
            self._events.completed(whole, databases)

    async def _make(
        self, manifest: Manifest, databases: Sequence[str]
    ) -> tuple[Manifest, list[str]]:
        began_us = self._now_us()
        async with AsyncExitStack() as parts:
            cut = await parts.enter_async_context(
                self._snapshots.pinned(databases, correlation_id=manifest.correlation_id)
            )
            manifest = replace(manifest, create_time_us=cut.time_us, tool_version=self._version)
            takings: dict[str, Taking] = {}
            # One after the other, in one order: of two hubs that make the same backup, the one
            # that comes first at the first storage server has it at all of them.
            for address, here in sorted(self._servers.places(databases).items()):
                takings[address] = await parts.enter_async_context(
                    self._servers.take(address, manifest, here, cut.transaction_id)
                )
                await takings[address].begun()
            copied = await all_or_first_failure(one.copied() for one in takings.values())
            manifest = replace(
                manifest,
                databases=_in_order(copied),
                duration_us=self._now_us() - began_us,
            )
            await self._complete(manifest, takings)
            return manifest, list(takings)

    async def _complete(self, manifest: Manifest, takings: Mapping[str, Taking]) -> None:
        done: list[str] = []
        try:
            for address, taking in takings.items():
                await taking.complete(manifest)
                done.append(address)
        except BaseException:
            # A part of a backup is none.
            await each(self._servers.delete(address, manifest.backup_id) for address in done)
            raise

    async def _prove(self, manifest: Manifest, addresses: Sequence[str]) -> None:
        proofs = await all_or_first_failure(
            self._servers.verify(address, manifest.backup_id) for address in addresses
        )
        if problems := [problem for proof in proofs for problem in proof.problems]:
            raise BackupCorrupt(
                f"the backup {manifest.backup_id} does not verify: {'; '.join(problems)}"
            )


def _in_order(copied: Sequence[Sequence[BackedUp]]) -> tuple[BackedUp, ...]:
    return tuple(sorted((one for part in copied for one in part), key=lambda one: one.database))
