"""The databases of a storage server as participants of transactions; a port of the core."""

from collections.abc import Awaitable
from typing import TypeVar

import grpc

from hub.adapters.storage_failures import decoded
from hub.adapters.transaction_messages import (
    from_advance,
    from_record,
    from_resolution,
    milliseconds,
    to_advance,
    to_resolution,
)
from hub.core.transactions.transaction import Advance, Advanced, Record, Resolution, Resolved
from messagehub.serving import logs
from messagehub.storage.v1 import participant_service_pb2 as storage
from messagehub.storage.v1 import participant_service_pb2_grpc as storage_grpc

Answer = TypeVar("Answer")


class StorageParticipants:
    """The port `Participants` of `hub.core.transactions`, over one storage server.

    `retry_seconds` is what a caller is told to wait when the storage server cannot be reached.
    """

    def __init__(self, channel: grpc.aio.Channel, *, retry_seconds: float) -> None:
        self._stub = storage_grpc.ParticipantServiceStub(channel)
        self._retry_seconds = retry_seconds

    async def advance(self, advance: Advance, *, seconds: float) -> Advanced:
        """Takes a part on; see the port."""
        call = self._stub.AdvanceTransaction(to_advance(advance), timeout=seconds)
        return from_advance(await self._answer(call))

    async def resolve(self, resolution: Resolution, *, seconds: float) -> Resolved:
        """Ends a part; see the port."""
        call = self._stub.ResolveTransaction(to_resolution(resolution), timeout=seconds)
        return from_resolution(await self._answer(call))

    async def look_up(
        self, database: str, transaction_id: str, *, request_id: str = "", seconds: float
    ) -> Record | None:
        """Tells what a database knows; see the port."""
        request = storage.LookUpTransactionRequest(
            database=database,
            transaction_id=transaction_id,
            request_id=request_id,
            correlation_id=logs.correlation_id.get(),
        )
        answer = await self._answer(self._stub.LookUpTransaction(request, timeout=seconds))
        return from_record(answer.record) if answer.found else None

    async def list(self, database: str, *, ended: bool, limit: int, seconds: float) -> list[Record]:
        """Gives the transactions of a database; see the port."""
        request = storage.ListTransactionsRequest(
            database=database,
            correlation_id=logs.correlation_id.get(),
            ended=ended,
            limit=limit,
        )
        answer = await self._answer(self._stub.ListTransactions(request, timeout=seconds))
        return [from_record(record) for record in answer.records]

    async def hold_commits(
        self,
        database: str,
        holder: str,
        *,
        wait_seconds: float,
        lease_seconds: float,
        seconds: float,
    ) -> None:
        """Holds commits back; see the port."""
        request = storage.HoldCommitsRequest(
            database=database,
            holder=holder,
            correlation_id=logs.correlation_id.get(),
            wait_timeout_ms=milliseconds(wait_seconds),
            lease_ms=milliseconds(lease_seconds),
        )
        await self._answer(self._stub.HoldCommits(request, timeout=seconds))

    async def release_commits(self, database: str, holder: str, *, seconds: float) -> bool:
        """Lets commits go on; see the port."""
        request = storage.ReleaseCommitsRequest(database=database, holder=holder)
        answer = await self._answer(self._stub.ReleaseCommits(request, timeout=seconds))
        return bool(answer.held)

    async def _answer(self, call: Awaitable[Answer]) -> Answer:
        try:
            return await call
        except grpc.aio.AioRpcError as failure:
            raise decoded(failure, retry_seconds=self._retry_seconds) from failure
