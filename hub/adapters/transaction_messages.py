"""Transactions between the core and the private contract with a storage server."""

from typing import Final

from hub.core.transactions.transaction import (
    Advance,
    Advanced,
    Decision,
    Header,
    PartOperation,
    PartResult,
    PartState,
    PreparedPart,
    Record,
    Resolution,
    Resolved,
    Step,
)
from messagehub.errors import HubError
from messagehub.status import from_status, to_status
from messagehub.storage.v1 import participant_service_pb2 as storage
from messagehub.storage.v1.schema_pb2 import SchemaOperation, SchemaReport

MILLISECONDS: Final = 1000
STEPS: Final = {
    Step.STAY_OPEN: storage.TRANSACTION_STEP_STAY_OPEN,
    Step.PREPARE: storage.TRANSACTION_STEP_PREPARE,
    Step.COMMIT: storage.TRANSACTION_STEP_COMMIT,
}
PART_STATES: Final = {
    storage.PARTICIPANT_STATE_OPEN: PartState.OPEN,
    storage.PARTICIPANT_STATE_PREPARED: PartState.PREPARED,
    storage.PARTICIPANT_STATE_COMMITTED: PartState.COMMITTED,
    storage.PARTICIPANT_STATE_ROLLED_BACK: PartState.ROLLED_BACK,
}


def milliseconds(seconds: float) -> int:
    """Gives a time for the wire; what is more than nothing stays so."""
    return max(1, round(seconds * MILLISECONDS)) if seconds > 0 else 0


def to_advance(advance: Advance) -> storage.AdvanceTransactionRequest:
    """Gives the request that takes a part on."""
    request = storage.AdvanceTransactionRequest(
        database=advance.database,
        transaction_id=advance.transaction_id,
        correlation_id=advance.correlation_id,
        operations=map(_operation, advance.work.operations),
        step=STEPS[advance.step],
        events=advance.work.events,
        wait_timeout_ms=milliseconds(advance.wait_seconds),
    )
    if advance.header is not None:
        request.header.CopyFrom(to_header(advance.header))
    if advance.decision is not None:
        request.decision.CopyFrom(_decision(advance.decision))
    return request


def from_advance(response: storage.AdvanceTransactionResponse) -> Advanced:
    """Gives how far the part is."""
    return Advanced(
        results=tuple(map(_from_result, response.results)),
        epoch=response.epoch,
        sequence=response.sequence,
        schema_version=response.schema_version,
        replayed=response.replayed,
        record=from_record(response.record) if response.HasField("record") else None,
    )


def to_resolution(resolution: Resolution) -> storage.ResolveTransactionRequest:
    """Gives the request that ends a part."""
    request = storage.ResolveTransactionRequest(
        database=resolution.database,
        commit=resolution.commit,
        header=to_header(resolution.header),
        request_id=resolution.request_id,
        fingerprint=resolution.fingerprint,
        forced=resolution.forced,
    )
    if resolution.error is not None:
        request.error.CopyFrom(to_status(resolution.error))
    return request


def from_resolution(response: storage.ResolveTransactionResponse) -> Resolved:
    """Gives how the transaction ended."""
    replayed = from_record(response.replayed) if response.HasField("replayed") else None
    return Resolved(from_record(response.record), replayed)


def to_header(header: Header) -> storage.TransactionHeader:
    """Gives a transaction for the wire."""
    return storage.TransactionHeader(
        transaction_id=header.transaction_id,
        source_service=header.source_service,
        correlation_id=header.correlation_id,
        databases=header.databases,
        home=header.home,
        create_time_us=header.create_time_us,
        seed=header.seed,
        home_epoch=header.home_epoch,
        read_only=header.read_only,
        idle_timeout_ms=milliseconds(header.idle_seconds),
        timeout_ms=milliseconds(header.seconds),
    )


def from_record(record: storage.TransactionRecord) -> Record:
    """Gives what a database knows; a state that this hub does not know is none to act on."""
    return Record(
        header=_from_header(record.header),
        state=PART_STATES.get(record.state, PartState.OPEN),
        update_time_us=record.update_time_us,
        sequence=record.sequence,
        error=_error(record),
        participants=tuple(
            PreparedPart(one.database, one.epoch, one.sequence) for one in record.participants
        ),
        results=tuple(map(_from_result, record.results)),
        forced=record.forced,
    )


def _error(record: storage.TransactionRecord) -> HubError | None:
    return from_status(record.error) if record.HasField("error") else None


def _from_header(header: storage.TransactionHeader) -> Header:
    return Header(
        transaction_id=header.transaction_id,
        source_service=header.source_service,
        correlation_id=header.correlation_id,
        databases=tuple(header.databases),
        create_time_us=header.create_time_us,
        seed=header.seed,
        home_epoch=header.home_epoch,
        read_only=header.read_only,
        idle_seconds=header.idle_timeout_ms / MILLISECONDS,
        seconds=header.timeout_ms / MILLISECONDS,
    )


def _operation(operation: PartOperation) -> storage.ParticipantOperation:
    content = operation.statement
    shapes = isinstance(content, SchemaOperation)
    return storage.ParticipantOperation(
        index=operation.place,
        request_id=operation.request_id,
        read_only=operation.read_only,
        schema_version=operation.schema_version,
        statement=None if shapes else content,
        schema=content if shapes else None,
    )


def _decision(decision: Decision) -> storage.TransactionDecision:
    return storage.TransactionDecision(
        request_id=decision.request_id,
        fingerprint=decision.fingerprint,
        participants=[
            storage.PreparedParticipant(
                database=one.database, epoch=one.epoch, sequence=one.sequence
            )
            for one in decision.participants
        ],
        results=[_result(one) for one in decision.results],
    )


def _result(one: PartResult) -> storage.ParticipantResult:
    shaped = isinstance(one.result, SchemaReport)
    return storage.ParticipantResult(
        index=one.place,
        database=one.database,
        sequence=one.sequence,
        result=None if shaped else one.result,
        schema=one.result if shaped else None,
    )


def _from_result(result: storage.ParticipantResult) -> PartResult:
    given = result.schema if result.HasField("schema") else result.result
    return PartResult(result.index, result.database, result.sequence, given)
