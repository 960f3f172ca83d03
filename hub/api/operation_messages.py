"""Operations of the inbox and of the journals as messages on the wire, and what a list asks for."""

from typing import Final

from hub.core.delivery.entries import Entry, Selection, State
from hub.core.delivery.look_ups import Found
from messagehub.errors import InvalidRequest
from messagehub.status import to_status
from messagehub.v1 import storage_service_pb2 as messages

PAGE_OPERATIONS: Final = 100
PAGE_OPERATIONS_MAX: Final = 1000
STATES: Final = {
    State.QUEUED: messages.OPERATION_STATE_QUEUED,
    State.RUNNING: messages.OPERATION_STATE_RUNNING,
    State.COMPLETED: messages.OPERATION_STATE_COMPLETED,
    State.FAILED: messages.OPERATION_STATE_FAILED,
    State.CANCELLED: messages.OPERATION_STATE_CANCELLED,
}
_STATES_BY_NUMBER: Final = {number: state for state, number in STATES.items()}


def operation_message(request_id: str, known: Entry | Found) -> messages.Operation:
    """Gives the message of an operation, from wherever it is known."""
    return entry_message(known) if isinstance(known, Entry) else _found_message(request_id, known)


def entry_message(entry: Entry) -> messages.Operation:
    """Gives the message of an operation in the inbox."""
    operation = messages.Operation(
        request_id=entry.request_id,
        correlation_id=entry.correlation_id,
        source_service=entry.source_service,
        database=entry.queue.database,
        state=STATES[entry.state],
        attempts=entry.attempts,
        sequence=entry.sequence,
    )
    operation.create_time.FromMicroseconds(entry.create_time_us)
    operation.update_time.FromMicroseconds(entry.update_time_us)
    if entry.error is not None:
        operation.error.CopyFrom(to_status(entry.error))
    elif entry.result is not None:
        operation.result.CopyFrom(entry.result)
    return operation


def _found_message(request_id: str, found: Found) -> messages.Operation:
    recorded = found.recorded
    operation = messages.Operation(
        request_id=request_id,
        correlation_id=recorded.correlation_id,
        source_service=recorded.source_service,
        database=found.database,
        attempts=1,
        sequence=recorded.sequence,
    )
    operation.create_time.FromMicroseconds(recorded.time_us)
    operation.update_time.FromMicroseconds(recorded.time_us)
    if recorded.error is None:
        operation.state = messages.OPERATION_STATE_COMPLETED
        operation.result.CopyFrom(recorded.result)
    else:
        operation.state = messages.OPERATION_STATE_FAILED
        operation.error.CopyFrom(to_status(recorded.error))
    return operation


def selection(request: messages.ListOperationsRequest) -> Selection:
    """Gives what a list asks for; raises `InvalidRequest` for what cannot be asked."""
    states = []
    for index, number in enumerate(request.states):
        if number not in _STATES_BY_NUMBER:
            raise _invalid(f"states[{index}]", "must be one of the states of the contract")
        states.append(_STATES_BY_NUMBER[number])
    return Selection(request.source_service, request.database, states, _before(request.page_token))


def page_size(request: messages.ListOperationsRequest) -> int:
    """Gives the most operations in a page; raises `InvalidRequest` for a size that cannot be."""
    if not 0 <= request.page_size <= PAGE_OPERATIONS_MAX:
        raise _invalid(
            "page_size", f"must be from 0 (for {PAGE_OPERATIONS}) to {PAGE_OPERATIONS_MAX}"
        )
    return request.page_size or PAGE_OPERATIONS


def page_token(before: int | None) -> str:
    """Gives the token of the next page; empty = this was the last."""
    return "" if before is None else f"{before:x}"


def _before(token: str) -> int | None:
    if not token:
        return None
    try:
        before = int(token, 16)
    except ValueError:
        before = 0
    if page_token(before) != token or not 0 < before < 1 << 63:
        raise _invalid("page_token", "must be the next_page_token of an answer")
    return before


def _invalid(field: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {what}", fields={field: what})
