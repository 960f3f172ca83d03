"""`messagehub.v1.BackupService`: backups that are proven, and restored."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import grpc

from hub.api.backup_messages import backup_message, page_of, restored_message
from hub.api.checks import request_id_or_new
from hub.core.backups.backup import Backup
from hub.core.backups.backups import Backups, Wanted
from hub.core.backups.ports import FileStart
from hub.core.routing.routes import Routes
from messagehub.errors import BackupNotFound, InvalidRequest
from messagehub.v1 import backup_service_pb2 as messages
from messagehub.v1 import backup_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

FULL_NAME: Final = messages.DESCRIPTOR.services_by_name["BackupService"].full_name


class BackupService(backup_service_pb2_grpc.BackupServiceServicer):
    """Whoever may read all databases of a backup sees it; to restore or delete, write them."""

    def __init__(self, *, routes: Routes, backups: Backups) -> None:
        self._routes = routes
        self._backups = backups

    async def CreateBackup(
        self, request: messages.CreateBackupRequest, context: Context
    ) -> messages.CreateBackupResponse:
        """Begins a backup."""
        service = request.source_service
        readable = self._routes.readable(service)
        for database in request.databases:
            self._routes.resolve(service, database)
        backup = await self._backups.create(
            Wanted(
                backup_id=request_id_or_new(request.request_id),
                source_service=service,
                correlation_id=request.correlation_id,
                databases=tuple(sorted(set(request.databases))) or readable,
                verify=not request.skip_verification,
            )
        )
        return messages.CreateBackupResponse(
            correlation_id=request.correlation_id, backup=backup_message(backup)
        )

    async def GetBackup(
        self, request: messages.GetBackupRequest, context: Context
    ) -> messages.GetBackupResponse:
        """Tells how a backup stands."""
        backup = await self._seen(request.source_service, request.backup_id)
        return messages.GetBackupResponse(
            correlation_id=request.correlation_id, backup=backup_message(backup)
        )

    async def ListBackups(
        self, request: messages.ListBackupsRequest, context: Context
    ) -> messages.ListBackupsResponse:
        """Lists backups, newest first."""
        readable = self._routes.readable(request.source_service)
        seen = [one for one in await self._backups.all() if set(one.databases) <= set(readable)]
        page, token = page_of(seen, request)
        return messages.ListBackupsResponse(
            correlation_id=request.correlation_id,
            backups=map(backup_message, page),
            next_page_token=token,
        )

    async def VerifyBackup(
        self, request: messages.VerifyBackupRequest, context: Context
    ) -> messages.VerifyBackupResponse:
        """Proves a backup."""
        backup = await self._seen(request.source_service, request.backup_id)
        verified = await self._backups.verify(backup)
        return messages.VerifyBackupResponse(
            correlation_id=request.correlation_id, backup=backup_message(verified)
        )

    async def RestoreBackup(
        self, request: messages.RestoreBackupRequest, context: Context
    ) -> messages.RestoreBackupResponse:
        """Replaces databases by their state in a backup."""
        backup = await self._seen(request.source_service, request.backup_id)
        databases = tuple(sorted(set(request.databases))) or backup.databases
        for database in databases:
            self._routes.resolve_writable(request.source_service, database)
        done = await self._backups.restore(
            backup,
            databases,
            request_id_or_new(request.request_id),
            allow_torn=request.allow_torn_transactions,
        )
        return messages.RestoreBackupResponse(
            correlation_id=request.correlation_id,
            backup=backup_message(backup),
            databases=map(restored_message, done.restored),
            torn_transactions=done.torn,
        )

    async def DeleteBackup(
        self, request: messages.DeleteBackupRequest, context: Context
    ) -> messages.DeleteBackupResponse:
        """Deletes a backup, or cancels it."""
        service = request.source_service
        backup = await self._seen(service, request.backup_id)
        for database in backup.databases:
            self._routes.resolve_writable(service, database)
        await self._backups.delete(backup, even_last_verified=request.even_last_verified)
        return messages.DeleteBackupResponse(correlation_id=request.correlation_id)

    async def ExportBackup(
        self, request: messages.ExportBackupRequest, context: Context
    ) -> AsyncGenerator[messages.ExportBackupResponse, None]:
        """Streams one database of a backup."""
        backup = await self._seen(request.source_service, request.backup_id)
        pieces = self._backups.read(backup, request.database)
        async with aclosing(pieces):
            async for piece in pieces:
                if isinstance(piece, FileStart):
                    yield messages.ExportBackupResponse(
                        correlation_id=request.correlation_id,
                        size_bytes=piece.size_bytes,
                        checksum=piece.checksum,
                    )
                else:
                    yield messages.ExportBackupResponse(chunk=piece)

    async def _seen(self, source_service: str, backup_id: str) -> Backup:
        readable = set(self._routes.readable(source_service))
        if not backup_id:
            raise InvalidRequest(
                "backup_id is required: list the backups to see them",
                fields={"backup_id": "is required"},
            )
        backup = await self._backups.get(backup_id)
        if not set(backup.databases) <= readable:
            raise BackupNotFound(
                f"the service {source_service} may not read all databases of the backup "
                f"{backup_id}, or there is none of this name"
            )
        return backup
