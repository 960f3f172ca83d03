"""`messagehub.storage.v1.ParticipantService`: the parts of databases in transactions."""

import asyncio
from typing import Any, Final

import grpc

from messagehub.errors import InvalidRequest
from messagehub.serving import logs
from messagehub.serving.interceptor import time_left
from messagehub.status import from_status
from messagehub.storage.v1 import participant_service_pb2 as wire
from messagehub.storage.v1 import participant_service_pb2_grpc
from storage.core.databases import Databases
from storage.core.operation import Operation
from storage.core.transactions.engine_part import Step, Whole
from storage.core.transactions.limits import MILLISECONDS
from storage.core.transactions.part import Asked, Resolution
from storage.core.transactions.participant import Participant

Context = grpc.aio.ServicerContext[Any, Any]

ENDED_DEFAULT: Final = 100
_STEPS: Final = {
    wire.TransactionStep.TRANSACTION_STEP_STAY_OPEN: Step.STAY_OPEN,
    wire.TransactionStep.TRANSACTION_STEP_PREPARE: Step.PREPARE,
    wire.TransactionStep.TRANSACTION_STEP_COMMIT: Step.COMMIT,
}


class ParticipantService(participant_service_pb2_grpc.ParticipantServiceServicer):
    """Hands what a hub wants of a transaction to the database's part in it."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._loop = asyncio.get_running_loop()

    async def AdvanceTransaction(
        self, request: wire.AdvanceTransactionRequest, context: Context
    ) -> wire.AdvanceTransactionResponse:
        """Begins a part if it is not there and takes it one step on."""
        participant = await self._participant(request.database, request.correlation_id)
        control = self._control(request)
        if _is_whole(request) and not participant.has(request.transaction_id):
            whole = Whole(request.header, request.operations, request.events, request.decision)
            advanced = await participant.run_whole(whole, control)
        else:
            advanced = await participant.advance(self._asked(request, control))
        return wire.AdvanceTransactionResponse(
            results=advanced.results,
            epoch=advanced.epoch,
            sequence=advanced.sequence,
            schema_version=advanced.schema_version,
            replayed=advanced.replayed,
            record=advanced.record,
        )

    async def ResolveTransaction(
        self, request: wire.ResolveTransactionRequest, context: Context
    ) -> wire.ResolveTransactionResponse:
        """Ends a part and tells how the transaction ended in truth."""
        header = request.header
        participant = await self._participant(request.database, header.correlation_id)
        ended = await participant.resolve(
            Resolution(
                header,
                commit=request.commit,
                error=from_status(request.error) if request.HasField("error") else None,
                request_id=request.request_id,
                fingerprint=request.fingerprint,
                forced=request.forced,
            )
        )
        return wire.ResolveTransactionResponse(
            record=ended.record, replayed=ended.replayed if ended.replayed.state else None
        )

    async def LookUpTransaction(
        self, request: wire.LookUpTransactionRequest, context: Context
    ) -> wire.LookUpTransactionResponse:
        """Tells what the database knows of a transaction."""
        participant = await self._participant(request.database, request.correlation_id)
        record = await participant.look_up(request.transaction_id, request.request_id)
        return wire.LookUpTransactionResponse(found=record is not None, record=record)

    async def ListTransactions(
        self, request: wire.ListTransactionsRequest, context: Context
    ) -> wire.ListTransactionsResponse:
        """Lists the transactions of a database."""
        participant = await self._participant(request.database, request.correlation_id)
        ended = (request.limit or ENDED_DEFAULT) if request.ended else 0
        return wire.ListTransactionsResponse(records=await participant.list(ended=ended))

    async def HoldCommits(
        self, request: wire.HoldCommitsRequest, context: Context
    ) -> wire.HoldCommitsResponse:
        """Holds commits back."""
        participant = await self._participant(request.database, request.correlation_id)
        await participant.hold_commits(
            request.holder,
            until=self._until(request.wait_timeout_ms),
            lease_seconds=request.lease_ms / MILLISECONDS,
        )
        return wire.HoldCommitsResponse()

    async def ReleaseCommits(
        self, request: wire.ReleaseCommitsRequest, context: Context
    ) -> wire.ReleaseCommitsResponse:
        """Lets commits go on."""
        participant = await self._participant(request.database, "")
        return wire.ReleaseCommitsResponse(held=participant.gate.release(request.holder))

    async def _participant(self, database: str, correlation_id: str) -> Participant:
        logs.correlation_id.set(correlation_id)
        return await self._databases.get(database).participant()

    def _asked(self, request: wire.AdvanceTransactionRequest, control: Operation) -> Asked:
        step = _STEPS.get(request.step)
        if step is None:
            raise InvalidRequest("step is missing", fields={"step": "is required"})
        return Asked(
            request.transaction_id,
            request.header if request.HasField("header") else None,
            request.operations,
            step,
            request.events,
            request.decision if request.HasField("decision") else None,
            control,
            self._until(request.wait_timeout_ms),
        )

    def _control(self, request: wire.AdvanceTransactionRequest) -> Operation:
        return Operation(
            source_service=request.header.source_service,
            correlation_id=request.correlation_id,
            request_id="",
            deadline=self._loop.time() + time_left(),
            deliver=lambda _: None,
            size_bytes=request.ByteSize(),
        )

    def _until(self, wait_ms: int) -> float:
        return self._loop.time() + min(wait_ms / MILLISECONDS or time_left(), time_left())


def _is_whole(request: wire.AdvanceTransactionRequest) -> bool:
    """True if all of a transaction is here: it needs no protocol.

    A change of the schema may take long; as a part it does not share its commit with others.
    """
    return (
        not any(operation.HasField("schema") for operation in request.operations)
        and request.HasField("header")
        and request.step == wire.TransactionStep.TRANSACTION_STEP_COMMIT
        and list(request.header.databases) == [request.database]
    )
