"""Making backups through the public contract, to their end."""

import asyncio
from collections.abc import Sequence
from typing import Any

from messagehub.v1 import backup_service_pb2 as messages
from tests.support.eventually import LOOK_EVERY_SECONDS, SECONDS_MAX

SERVICE = "character"
RUNNING = messages.BackupState.BACKUP_STATE_RUNNING
COMPLETED = messages.BackupState.BACKUP_STATE_COMPLETED
VERIFIED = messages.BackupState.BACKUP_STATE_VERIFIED
FAILED = messages.BackupState.BACKUP_STATE_FAILED


async def made(stub: Any, databases: Sequence[str] = (), **more: Any) -> messages.Backup:
    """Makes a backup and waits until nothing is done with it any more."""
    begun = await stub.CreateBackup(
        messages.CreateBackupRequest(source_service=SERVICE, databases=databases, **more),
        timeout=SECONDS_MAX,
    )
    return await ended(stub, begun.backup.backup_id)


async def ended(stub: Any, backup_id: str) -> messages.Backup:
    """Waits until nothing is done with a backup any more."""
    request = messages.GetBackupRequest(source_service=SERVICE, backup_id=backup_id)
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            backup: messages.Backup = (await stub.GetBackup(request, timeout=SECONDS_MAX)).backup
            if backup.state != RUNNING and not backup.activity:
                return backup
            await asyncio.sleep(LOOK_EVERY_SECONDS)


async def restored(stub: Any, backup_id: str, *databases: str, **more: Any) -> Any:
    """Restores databases of a backup."""
    return await stub.RestoreBackup(
        messages.RestoreBackupRequest(
            source_service=SERVICE, backup_id=backup_id, databases=databases, **more
        ),
        timeout=SECONDS_MAX,
    )
