"""`messagehub.storage.v1.BackupService`: backups as a hub has them taken, proven and put back."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from messagehub.errors import BackupCorrupt, InvalidRequest
from messagehub.serving import logs
from messagehub.storage.v1 import backup_service_pb2 as wire
from messagehub.storage.v1 import backup_service_pb2_grpc
from messagehub.storage.v1.participant_service_pb2 import ParticipantState
from storage.core.backups.backups import Backups, activity
from storage.core.backups.packing import Damaged
from storage.core.backups.progress import Progress
from storage.core.backups.restoring import Restoring
from storage.core.backups.taking import Source
from storage.core.databases import Databases
from storage.core.transactions.limits import MILLISECONDS

Context = grpc.aio.ServicerContext[Any, Any]
Sent = TypeVar("Sent", bound=Message)

# How often it is told how far a piece of work is.
PROGRESS_SECONDS: Final = 0.2
# How many transactions of a database are looked through.
TRANSACTIONS_MAX: Final = 10_000
# How long databases stay closed for a hub that looks into what is to replace them.
CLOSED_SECONDS_MAX: Final = 30.0


class BackupService(backup_service_pb2_grpc.BackupServiceServicer):
    """Hands what a hub wants of backups to them, and tells how far they are."""

    def __init__(self, databases: Databases, backups: Backups) -> None:
        self._databases = databases
        self._backups = backups

    async def TakeBackup(
        self, request_iterator: AsyncIterator[wire.TakeBackupRequest], context: Context
    ) -> AsyncGenerator[wire.TakeBackupResponse, None]:
        """Copies snapshots, then puts the backup in its place."""
        opened = (await _next(request_iterator, "open")).open
        logs.correlation_id.set(opened.manifest.correlation_id)
        sources = [
            Source(self._databases.get(one.database), one.transaction_id) for one in opened.sources
        ]
        async with self._backups.taking(opened.manifest) as taking:
            work = asyncio.ensure_future(taking.copy(sources))
            async for step in _while_running(work, taking.progress):
                yield wire.TakeBackupResponse(activity=step)
            yield wire.TakeBackupResponse(copied=wire.CopiedDatabases(databases=work.result()))
            completing = await _next(request_iterator, "complete")
            stored = await taking.complete(completing.complete)
        yield wire.TakeBackupResponse(completed=stored)

    async def VerifyBackup(
        self, request: wire.VerifyBackupRequest, context: Context
    ) -> AsyncGenerator[wire.VerifyBackupResponse, None]:
        """Restores a backup into a scratch place and records what it finds."""
        logs.correlation_id.set(request.correlation_id)
        with self._backups.verifying(request.backup_id) as progress:
            work = asyncio.ensure_future(self._backups.verify(request.backup_id, progress))
            async for step in _while_running(work, progress):
                yield wire.VerifyBackupResponse(activity=step)
        yield wire.VerifyBackupResponse(verified=work.result())

    async def RestoreBackup(
        self, request_iterator: AsyncIterator[wire.RestoreBackupRequest], context: Context
    ) -> AsyncGenerator[wire.RestoreBackupResponse, None]:
        """Stages databases, looks into them, replaces the live ones."""
        opened = (await _next(request_iterator, "open")).open
        logs.correlation_id.set(opened.correlation_id)
        if done := await self._backups.restored(opened.restore_id, opened.databases):
            yield _restored(done)
            return
        wanted = await self._backups.chosen(opened.backup_id, opened.databases)
        async with self._backups.restoring(opened.backup_id, opened.restore_id) as restoring:
            staging = asyncio.ensure_future(restoring.stage(wanted))
            async for step in _while_running(staging, restoring.progress):
                yield wire.RestoreBackupResponse(activity=step)
            staging.result()
            yield wire.RestoreBackupResponse(staged=wire.StagedDatabases())
            closing = (await _next(request_iterator, "close")).close
            live = [self._databases.get(name) for name in opened.databases]
            async with restoring.closed(live, closing.wait_timeout_ms / MILLISECONDS):
                yield wire.RestoreBackupResponse(closed=wire.ClosedDatabases())
                async with asyncio.timeout(CLOSED_SECONDS_MAX):
                    request = await anext(request_iterator, None)
                    while request is not None and request.HasField("look"):
                        yield await _missing(request.look, restoring)
                        request = await anext(request_iterator, None)
                if request is None:
                    return
                restored = await restoring.replace()
        for database in live:
            await database.open()
        yield _restored(restored)

    async def ListBackups(
        self, request: wire.ListBackupsRequest, context: Context
    ) -> wire.ListBackupsResponse:
        """Lists backups."""
        return wire.ListBackupsResponse(backups=await self._backups.find(request.backup_id))

    async def DeleteBackup(
        self, request: wire.DeleteBackupRequest, context: Context
    ) -> wire.DeleteBackupResponse:
        """Deletes a backup, or cancels it."""
        logs.correlation_id.set(request.correlation_id)
        await self._backups.delete(request.backup_id)
        return wire.DeleteBackupResponse()

    async def ReadBackup(
        self, request: wire.ReadBackupRequest, context: Context
    ) -> AsyncGenerator[wire.ReadBackupResponse, None]:
        """Streams one database of a backup."""
        (database,) = await self._backups.chosen(request.backup_id, [request.database])
        yield wire.ReadBackupResponse(size_bytes=database.size_bytes, checksum=database.checksum)
        pieces = self._backups.pieces(request.backup_id, database)
        try:
            while chunk := await asyncio.to_thread(_piece, pieces):
                yield wire.ReadBackupResponse(chunk=chunk)
        except (Damaged, OSError) as failure:
            raise BackupCorrupt(
                f"the backup {request.backup_id} is damaged: {database.file} {failure}"
            ) from failure

    async def InspectDatabase(
        self, request: wire.InspectDatabaseRequest, context: Context
    ) -> wire.InspectDatabaseResponse:
        """Checks the invariants of a live database."""
        logs.correlation_id.set(request.correlation_id)
        found = await self._databases.get(request.database).inspect()
        return wire.InspectDatabaseResponse(
            inspections=[wire.Inspection(invariant=i, problem=p) for i, p in found]
        )

    async def FindTransactions(
        self, request: wire.FindTransactionsRequest, context: Context
    ) -> wire.FindTransactionsResponse:
        """Tells which transactions a database has in common with others."""
        participant = await self._databases.get(request.database).participant()
        others = set(request.others)
        shared = [
            wire.SharedTransaction(
                transaction_id=record.header.transaction_id, databases=record.header.databases
            )
            for record in await participant.list(ended=TRANSACTIONS_MAX)
            if record.state in _DONE
            and record.update_time_us > request.since_us
            and not others.isdisjoint(record.header.databases)
        ]
        return wire.FindTransactionsResponse(transactions=reversed(shared))


_DONE: Final = (
    ParticipantState.PARTICIPANT_STATE_COMMITTED,
    ParticipantState.PARTICIPANT_STATE_PREPARED,
)


async def _while_running(
    work: "asyncio.Future[Any]", progress: Progress
) -> AsyncIterator[wire.BackupActivity]:
    """Tells how far the work is until it ends; stops it where nobody listens any more."""
    try:
        while not work.done():
            await asyncio.wait([work], timeout=PROGRESS_SECONDS)
            yield activity(progress)
    finally:
        if not work.done():
            progress.cancel()
            work.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])


async def _next(requests: AsyncIterator[Sent], step: str) -> Sent:
    request = await anext(requests, None)
    if request is None or request.WhichOneof("step") != step:
        raise InvalidRequest(f"{step} is missing", fields={step: "is required"})
    return request


async def _missing(
    look: wire.LookForTransactions, restoring: Restoring
) -> wire.RestoreBackupResponse:
    missing = await restoring.missing(look.database, look.transaction_ids)
    return wire.RestoreBackupResponse(missing=wire.MissingTransactions(transaction_ids=missing))


def _piece(pieces: Iterator[bytes]) -> bytes:
    return next(pieces, b"")


def _restored(databases: list[wire.RestoredDatabase]) -> wire.RestoreBackupResponse:
    return wire.RestoreBackupResponse(restored=wire.RestoredDatabases(databases=databases))
