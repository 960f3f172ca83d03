"""The storage servers as places where backups are taken; a port of the core."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import grpc

from hub.adapters.backup_messages import (
    from_backed_up,
    from_restored,
    from_stored,
    to_manifest,
)
from hub.adapters.storage_failures import decoded
from hub.core.backups.backup import BackedUp, Manifest, Stored
from hub.core.backups.ports import FileStart, Restored, Shared
from hub.core.routing.placement import Placement
from hub.core.transactions.together import each
from messagehub.errors import HubError, StorageUnavailable
from messagehub.serving import logs
from messagehub.storage.v1 import backup_service_pb2 as storage
from messagehub.storage.v1 import backup_service_pb2_grpc as storage_grpc

Answer = TypeVar("Answer")
MILLISECONDS: Final = 1000

_log = logging.getLogger(__name__)


class _Conversation:
    """A stream in both directions, of which one step at a time matters."""

    def __init__(self, call: Any, retry_seconds: float) -> None:
        self._call = call
        self._retry_seconds = retry_seconds

    async def say(self, request: Any) -> None:
        # A write fails without saying why; the next read knows.
        with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await self._call.write(request)

    async def hear(self) -> Any:
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as failure:
            raise decoded(failure, retry_seconds=self._retry_seconds) from failure
        if response is grpc.aio.EOF:
            raise StorageUnavailable(
                "the storage server ended the conversation about a backup: call again",
                retry_after=self._retry_seconds,
            )
        return response

    async def hear_until(self, *steps: str) -> Any:
        while (response := await self.hear()).WhichOneof("step") not in steps:
            pass
        return response


class _Taking:
    """See `hub.core.backups.ports.Taking`."""

    def __init__(self, conversation: _Conversation) -> None:
        self._conversation = conversation
        self._first: Any = None

    async def begun(self) -> None:
        self._first = await self._conversation.hear()

    async def copied(self) -> Sequence[BackedUp]:
        response = self._first
        if response.WhichOneof("step") != "copied":
            response = await self._conversation.hear_until("copied")
        return [from_backed_up(one) for one in response.copied.databases]

    async def complete(self, manifest: Manifest) -> None:
        await self._conversation.say(storage.TakeBackupRequest(complete=to_manifest(manifest)))
        await self._conversation.hear_until("completed")


class _Restoring:
    """See `hub.core.backups.ports.Restoring`."""

    def __init__(self, conversation: _Conversation) -> None:
        self._conversation = conversation

    async def staged(self) -> Sequence[Restored]:
        response = await self._conversation.hear_until("staged", "restored")
        return from_restored(response.restored.databases)

    async def close(self, wait_seconds: float) -> None:
        closing = storage.CloseDatabases(wait_timeout_ms=round(wait_seconds * MILLISECONDS))
        await self._conversation.say(storage.RestoreBackupRequest(close=closing))
        await self._conversation.hear_until("closed")

    async def missing(self, database: str, transaction_ids: Sequence[str]) -> Sequence[str]:
        look = storage.LookForTransactions(database=database, transaction_ids=transaction_ids)
        await self._conversation.say(storage.RestoreBackupRequest(look=look))
        response = await self._conversation.hear_until("missing")
        return list(response.missing.transaction_ids)

    async def replace(self) -> Sequence[Restored]:
        replacing = storage.RestoreBackupRequest(replace=storage.ReplaceDatabases())
        await self._conversation.say(replacing)
        response = await self._conversation.hear_until("restored")
        return from_restored(response.restored.databases)


class StorageBackups:
    """The port `BackupServers`, over all storage servers.

    What works on whole databases may take `work_seconds`, the rest `answer_seconds`.
    """

    def __init__(
        self,
        placement: Placement,
        channels: Mapping[str, grpc.aio.Channel],
        *,
        work_seconds: float,
        answer_seconds: float,
        retry_seconds: float,
    ) -> None:
        self._placement = placement
        self._stubs = {
            address: storage_grpc.BackupServiceStub(channel)
            for address, channel in channels.items()
        }
        self._work_seconds = work_seconds
        self._answer_seconds = answer_seconds
        self._retry_seconds = retry_seconds

    def places(self, databases: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """The databases by the storage server that has them; see the port."""
        found: dict[str, list[str]] = {}
        for database in sorted(databases):
            found.setdefault(self._placement.server_of(database), []).append(database)
        return {address: tuple(names) for address, names in found.items()}

    @asynccontextmanager
    async def take(
        self, address: str, manifest: Manifest, databases: Sequence[str], transaction_id: str
    ) -> AsyncIterator[_Taking]:
        """Begins a part of a backup; see the port."""
        sources = [
            storage.BackupSource(database=database, transaction_id=transaction_id)
            for database in databases
        ]
        opening = storage.OpenBackup(manifest=to_manifest(manifest), sources=sources)
        call = self._stub(address).TakeBackup(timeout=self._work_seconds)
        async with self._conversation(call) as conversation:
            await conversation.say(storage.TakeBackupRequest(open=opening))
            yield _Taking(conversation)

    @asynccontextmanager
    async def restore(
        self, address: str, backup_id: str, restore_id: str, databases: Sequence[str]
    ) -> AsyncIterator[_Restoring]:
        """Begins a part of a restore; see the port."""
        opening = storage.OpenRestore(
            backup_id=backup_id,
            restore_id=restore_id,
            databases=databases,
            correlation_id=logs.correlation_id.get(),
        )
        call = self._stub(address).RestoreBackup(timeout=self._work_seconds)
        async with self._conversation(call) as conversation:
            await conversation.say(storage.RestoreBackupRequest(open=opening))
            yield _Restoring(conversation)

    async def verify(self, address: str, backup_id: str) -> Stored:
        """Proves the part of a backup at a storage server; see the port."""
        request = storage.VerifyBackupRequest(
            backup_id=backup_id, correlation_id=logs.correlation_id.get()
        )
        call = self._stub(address).VerifyBackup(request, timeout=self._work_seconds)
        async with self._conversation(call) as conversation:
            return from_stored((await conversation.hear_until("verified")).verified)

    async def find(self, backup_id: str = "") -> Mapping[str, Sequence[Stored]]:
        """Gives the backups at every storage server that answers; see the port."""
        request = storage.ListBackupsRequest(
            backup_id=backup_id, correlation_id=logs.correlation_id.get()
        )
        asked = {
            address: self._answer(stub.ListBackups(request, timeout=self._answer_seconds))
            for address, stub in self._stubs.items()
            if self._placement.connected(address)
        }
        answers = dict(zip(asked, await each(asked.values()), strict=True))
        found: dict[str, Sequence[Stored]] = {}
        for address, answer in answers.items():
            if isinstance(answer, HubError):
                _log.warning(
                    "cannot list the backups of a storage server",
                    extra={"address": address, "detail": answer.message},
                )
            else:
                found[address] = [from_stored(one) for one in answer.backups]
        if not found:
            failed = next((one for one in answers.values() if isinstance(one, HubError)), None)
            raise failed or self._unavailable()
        return found

    async def delete(self, address: str, backup_id: str) -> None:
        """Deletes what a storage server has of a backup; see the port."""
        request = storage.DeleteBackupRequest(
            backup_id=backup_id, correlation_id=logs.correlation_id.get()
        )
        call = self._stub(address).DeleteBackup(request, timeout=self._answer_seconds)
        await self._answer(call)

    async def read(
        self, address: str, backup_id: str, database: str
    ) -> AsyncGenerator[FileStart | bytes, None]:
        """Streams one database of a backup; see the port."""
        request = storage.ReadBackupRequest(
            backup_id=backup_id, database=database, correlation_id=logs.correlation_id.get()
        )
        call = self._stub(address).ReadBackup(request, timeout=self._work_seconds)
        try:
            async for response in call:
                if response.checksum:
                    yield FileStart(response.size_bytes, response.checksum)
                else:
                    yield response.chunk
        except grpc.aio.AioRpcError as failure:
            raise decoded(failure, retry_seconds=self._retry_seconds) from failure
        finally:
            call.cancel()

    async def inspect(self, database: str) -> Sequence[tuple[str, str]]:
        """Checks the invariants of a live database; see the port."""
        request = storage.InspectDatabaseRequest(
            database=database, correlation_id=logs.correlation_id.get()
        )
        stub = self._stub(self._placement.server_of(database))
        found = await self._answer(stub.InspectDatabase(request, timeout=self._answer_seconds))
        return [(one.invariant, one.problem) for one in found.inspections]

    async def shared(
        self, database: str, others: Sequence[str], *, since_us: int
    ) -> Sequence[Shared]:
        """Gives the transactions that a database has in common with others; see the port."""
        request = storage.FindTransactionsRequest(
            database=database,
            others=others,
            since_us=since_us,
            correlation_id=logs.correlation_id.get(),
        )
        stub = self._stub(self._placement.server_of(database))
        found = await self._answer(stub.FindTransactions(request, timeout=self._answer_seconds))
        return [Shared(one.transaction_id, tuple(one.databases)) for one in found.transactions]

    @asynccontextmanager
    async def _conversation(self, call: Any) -> AsyncIterator[_Conversation]:
        try:
            yield _Conversation(call, self._retry_seconds)
        finally:
            call.cancel()

    async def _answer(self, call: Awaitable[Answer]) -> Answer:
        try:
            return await call
        except grpc.aio.AioRpcError as failure:
            raise decoded(failure, retry_seconds=self._retry_seconds) from failure

    def _stub(self, address: str) -> "storage_grpc.BackupServiceAsyncStub":
        if not self._placement.connected(address):
            raise self._unavailable()
        return self._stubs[address]

    def _unavailable(self) -> StorageUnavailable:
        return StorageUnavailable(
            "the hub is not connected to the storage server: call again",
            retry_after=self._retry_seconds,
        )
