"""Operations for later delivery: submitted now, executed exactly once when their database can.

    accepted = await hub.submit("INSERT INTO heroes (name) VALUES (?)", ["Ada"])
    ...
    known = await hub.operation(accepted.request_id)
    if known.state is OperationState.COMPLETED:
        print(known.sequence)

The outcome also comes as the event `storage.operation_completed` or `storage.operation_failed`,
with the operation's correlation id; that of a submitted operation carries its rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from messagehub.caller import Caller
from messagehub.errors import HubError, InvalidRequest
from messagehub.pages import Pages
from messagehub.request_ids import new_request_id
from messagehub.status import from_status
from messagehub.v1 import storage_service_pb2 as messages
from messagehub.v1.storage_service_pb2_grpc import StorageServiceStub
from messagehub.values import Parameters, SqlValue, row_tuples, to_statement

__all__ = ["OperationState", "Operations", "SubmittedOperation"]


class OperationState(Enum):
    """Where an operation stands; `UNKNOWN` is a state that this client does not know yet."""

    UNKNOWN = 0
    QUEUED = 1
    RUNNING = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5

    @property
    def final(self) -> bool:
        """True if it stays so."""
        return self in (OperationState.COMPLETED, OperationState.FAILED, OperationState.CANCELLED)


@dataclass(frozen=True, slots=True)
class SubmittedOperation:
    """An operation by its request id, as the hub knows it.

    `columns`, `rows`, `rows_affected` and `last_insert_id` are what it gave once it is COMPLETED,
    `error` is why it FAILED. `attempts` counts the deliveries tried so far, `sequence` is its
    position in the journal of `database` once it has one. `replayed` says, after `submit`, that it
    had been submitted before.
    """

    request_id: str
    correlation_id: str
    service: str
    database: str
    state: OperationState
    attempts: int
    sequence: int
    columns: tuple[str, ...]
    rows: list[tuple[SqlValue, ...]]
    rows_affected: int
    last_insert_id: int
    error: HubError | None
    created: datetime
    updated: datetime
    replayed: bool = False


class Operations:
    """The part of `Hub` that is about operations for later delivery."""

    async def submit(
        self: Caller,
        query: str,
        parameters: Parameters = (),
        *,
        database: str = "",
        request_id: str | None = None,
        correlation_id: str = "",
        schema_version: str = "",
        timeout: float | None = None,
    ) -> SubmittedOperation:
        """Hands one statement over for later delivery; the hub has it on disk when this returns.

        It is executed exactly once, in order with what this service submitted for the same
        database, as soon as that can be used. Also a statement that reads: its rows come with the
        operation and with its event. The `request_id` (a UUID) names it; submitting it again
        gives it as it stands.

        Raises `QueueFull` when too much waits for the database already.
        """
        request = messages.SubmitOperationRequest(
            source_service=self.service,
            database=database,
            correlation_id=correlation_id,
            request_id=request_id or new_request_id(),
            schema_version=schema_version,
            statement=to_statement(query, parameters),
        )
        stub = StorageServiceStub(self.channel)
        response = await self.call(
            lambda seconds: stub.SubmitOperation(request, timeout=seconds), timeout=timeout
        )
        return _operation(response.operation, replayed=response.replayed)

    async def operation(
        self: Caller,
        request_id: str,
        *,
        database: str = "",
        timeout: float | None = None,
    ) -> SubmittedOperation:
        """Tells what became of an operation, submitted or executed, by its request id.

        For one that was executed say the `database`, if it is not the service's own. Raises
        `OperationNotFound` if the hub knows none of this service.
        """
        request = messages.GetOperationRequest(
            source_service=self.service, request_id=request_id, database=database
        )
        stub = StorageServiceStub(self.channel)
        response = await self.call(
            lambda seconds: stub.GetOperation(request, timeout=seconds), timeout=timeout
        )
        return _operation(response.operation)

    def operations(
        self: Caller,
        *,
        database: str = "",
        states: Sequence[OperationState] = (),
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Pages[SubmittedOperation]:
        """Gives the operations that this service submitted, newest first.

        Only those of a `database` and in some `states`, if given. `timeout` bounds each page.
        """
        if OperationState.UNKNOWN in states:
            raise InvalidRequest(
                "states: UNKNOWN is no state to ask for", fields={"states": "has UNKNOWN"}
            )
        request = messages.ListOperationsRequest(
            source_service=self.service,
            database=database,
            states=[messages.OperationState.ValueType(state.value) for state in states],
            page_size=page_size,
        )
        stub = StorageServiceStub(self.channel)

        async def read(token: str) -> tuple[Iterable[SubmittedOperation], str]:
            request.page_token = token
            page = await self.call(
                lambda seconds: stub.ListOperations(request, timeout=seconds), timeout=timeout
            )
            return map(_operation, page.operations), page.next_page_token

        return Pages(read)

    async def cancel_operation(
        self: Caller, request_id: str, *, timeout: float | None = None
    ) -> SubmittedOperation:
        """Takes an operation back: it will never be executed.

        Raises `OperationNotCancellable` once it may have been delivered, and `OperationNotFound`.
        """
        request = messages.CancelOperationRequest(
            source_service=self.service, request_id=request_id
        )
        stub = StorageServiceStub(self.channel)
        response = await self.call(
            lambda seconds: stub.CancelOperation(request, timeout=seconds), timeout=timeout
        )
        return _operation(response.operation)


def _operation(operation: messages.Operation, *, replayed: bool = False) -> SubmittedOperation:
    result = operation.result
    known = operation.state in OperationState._value2member_map_
    return SubmittedOperation(
        request_id=operation.request_id,
        correlation_id=operation.correlation_id,
        service=operation.source_service,
        database=operation.database,
        state=OperationState(operation.state) if known else OperationState.UNKNOWN,
        attempts=operation.attempts,
        sequence=operation.sequence,
        columns=tuple(column.name for column in result.columns),
        rows=row_tuples(result),
        rows_affected=result.rows_affected,
        last_insert_id=result.last_insert_id,
        error=from_status(operation.error) if operation.HasField("error") else None,
        created=operation.create_time.ToDatetime(tzinfo=UTC),
        updated=operation.update_time.ToDatetime(tzinfo=UTC),
        replayed=replayed,
    )
