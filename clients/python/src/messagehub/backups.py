"""Backups: made at one cut of all their databases, proven by restoring them, put back.

    backup = await hub.create_backup(["character_db", "campaign_db"])
    ...
    await hub.restore_backup(backup.id)

A restored database begins a new life of its journal: cursors from before are refused.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import grpc

from messagehub.backup_records import Backup, Restore, record_of, restored
from messagehub.caller import Caller
from messagehub.channel import decode
from messagehub.errors import BackupCorrupt
from messagehub.pages import Pages
from messagehub.request_ids import new_request_id
from messagehub.v1 import backup_service_pb2 as messages
from messagehub.v1.backup_service_pb2_grpc import BackupServiceStub

__all__ = ["Backups"]

# How long a backup, its proof or a restore may take.
WORK_SECONDS: Final = 6 * 3600.0
LOOK_SECONDS: Final = 0.2


class Backups:
    """The part of the client that makes and restores backups."""

    async def create_backup(
        self: Caller,
        databases: Sequence[str] = (),
        *,
        request_id: str = "",
        correlation_id: str = "",
        verify: bool = True,
        told: Callable[[Backup], None] | None = None,
        timeout: float = WORK_SECONDS,
    ) -> Backup:
        """Backs databases up at one cut, proves that, and gives the backup, which names itself.

        Without `databases` all that the service may read. `told` is told how far it is. Raises why
        the backup failed. The same `request_id` makes one backup; a caller that is cancelled does
        not cancel it, `delete_backup` does.
        """
        request = messages.CreateBackupRequest(
            source_service=self.service,
            correlation_id=correlation_id,
            request_id=request_id or new_request_id(),
            databases=databases,
            skip_verification=not verify,
        )
        stub = BackupServiceStub(self.channel)
        response = await self.call(lambda seconds: stub.CreateBackup(request, timeout=seconds))
        backup = record_of(response.backup)
        async with asyncio.timeout(timeout):
            while not backup.ended:
                if told is not None:
                    told(backup)
                await asyncio.sleep(LOOK_SECONDS)
                backup = await _read(self, backup.id)
        if backup.error is not None:
            raise backup.error
        return backup

    async def backup(self: Caller, backup_id: str, *, timeout: float | None = None) -> Backup:
        """Tells how a backup stands; raises `BackupNotFound`."""
        return await _read(self, backup_id, timeout)

    def backups(self: Caller, *, timeout: float | None = None) -> Pages[Backup]:
        """Gives the backups whose databases the service may read, the newest first."""
        request = messages.ListBackupsRequest(source_service=self.service)
        stub = BackupServiceStub(self.channel)

        async def read(token: str) -> tuple[Iterable[Backup], str]:
            request.page_token = token
            page = await self.call(
                lambda seconds: stub.ListBackups(request, timeout=seconds), timeout=timeout
            )
            return map(record_of, page.backups), page.next_page_token

        return Pages(read)

    async def verify_backup(
        self: Caller, backup_id: str, *, timeout: float = WORK_SECONDS
    ) -> Backup:
        """Restores a backup into a scratch place and checks it; `problems` is what is wrong."""
        request = messages.VerifyBackupRequest(source_service=self.service, backup_id=backup_id)
        stub = BackupServiceStub(self.channel)
        response = await self.call(
            lambda seconds: stub.VerifyBackup(request, timeout=seconds), timeout=timeout
        )
        return record_of(response.backup)

    async def restore_backup(
        self: Caller,
        backup_id: str,
        databases: Sequence[str] = (),
        *,
        request_id: str = "",
        allow_torn_transactions: bool = False,
        timeout: float = WORK_SECONDS,
    ) -> Restore:
        """Replaces databases by their state in a backup; without `databases` all that it has.

        Raises `TransactionsTorn` where databases that are left out would keep what the others
        forget, unless that is allowed.
        """
        request = messages.RestoreBackupRequest(
            source_service=self.service,
            request_id=request_id or new_request_id(),
            backup_id=backup_id,
            databases=databases,
            allow_torn_transactions=allow_torn_transactions,
        )
        stub = BackupServiceStub(self.channel)
        response = await self.call(
            lambda seconds: stub.RestoreBackup(request, timeout=seconds), timeout=timeout
        )
        return Restore(
            response.backup.backup_id,
            restored(response.databases),
            tuple(response.torn_transactions),
        )

    async def export_backup(
        self: Caller,
        backup_id: str,
        database: str,
        file: Path,
        *,
        told: Callable[[int, int], None] | None = None,
        timeout: float = WORK_SECONDS,
    ) -> None:
        """Writes one database of a backup into a new file, and checks it.

        `told` gets the bytes that are there, and all there will be.
        """
        request = messages.ExportBackupRequest(
            source_service=self.service, backup_id=backup_id, database=database
        )
        stub = BackupServiceStub(self.channel)
        digest, received, header = hashlib.sha256(), 0, messages.ExportBackupResponse()
        with file.open("xb") as target:
            try:
                async for piece in stub.ExportBackup(request, timeout=timeout):
                    if piece.checksum:
                        header = piece
                    digest.update(piece.chunk)
                    received += target.write(piece.chunk)
                    if told is not None:
                        told(received, header.size_bytes)
            except grpc.aio.AioRpcError as failure:
                file.unlink()
                raise decode(failure, "") from failure
        if digest.hexdigest() != header.checksum:
            file.unlink()
            raise BackupCorrupt(f"{database} did not arrive as it was: export it again")

    async def delete_backup(
        self: Caller,
        backup_id: str,
        *,
        even_last_verified: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Deletes a backup, or cancels it while it is being made.

        Raises `BackupNeeded` if it is the last verified one of a database, unless it may be.
        """
        request = messages.DeleteBackupRequest(
            source_service=self.service,
            backup_id=backup_id,
            even_last_verified=even_last_verified,
        )
        stub = BackupServiceStub(self.channel)
        await self.call(
            lambda seconds: stub.DeleteBackup(request, timeout=seconds), timeout=timeout
        )


async def _read(caller: Caller, backup_id: str, timeout: float | None = None) -> Backup:
    request = messages.GetBackupRequest(source_service=caller.service, backup_id=backup_id)
    stub = BackupServiceStub(caller.channel)
    response = await caller.call(
        lambda seconds: stub.GetBackup(request, timeout=seconds), timeout=timeout
    )
    return record_of(response.backup)
