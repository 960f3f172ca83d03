"""One statement: what is asked, and what it gave."""

from dataclasses import dataclass

from messagehub.errors import HubError, Recording
from messagehub.request_ids import new_request_id
from messagehub.status import from_status
from messagehub.v1.statement_pb2 import ResultSet
from messagehub.v1.storage_service_pb2 import BatchOperation, BatchResult, ExecuteResponse
from messagehub.values import Parameters, SqlValue, row_tuples, to_statement

__all__ = ["Operation", "Result", "batch_operation", "batch_outcome", "result_of"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a statement gave.

    `sequence` is the position of a write in the journal of `database`; of a read, one that its
    snapshot includes. `replayed` says that the write had been done by an earlier call with the
    same request id, whose outcome this is.
    """

    columns: tuple[str, ...]
    rows: list[tuple[SqlValue, ...]]
    rows_affected: int
    last_insert_id: int
    database: str
    sequence: int
    schema_version: str
    replayed: bool
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a batch or of a transaction; the fields are those of `Hub.execute`.

    In a transaction it has no request id of its own.
    """

    query: str
    parameters: Parameters = ()
    database: str = ""
    request_id: str | None = None
    schema_version: str = ""


def result_of(
    answer: ExecuteResponse | BatchResult, result: ResultSet, correlation_id: str
) -> Result:
    """Gives what an answer of the hub says of one statement."""
    return Result(
        columns=tuple(column.name for column in result.columns),
        rows=row_tuples(result),
        rows_affected=result.rows_affected,
        last_insert_id=result.last_insert_id,
        database=answer.database,
        sequence=answer.sequence,
        schema_version=answer.schema_version,
        replayed=answer.replayed,
        correlation_id=correlation_id,
    )


def batch_operation(operation: Operation | tuple[str, Parameters]) -> BatchOperation:
    """Gives an operation of a batch as it is sent."""
    if isinstance(operation, tuple):
        operation = Operation(*operation)
    return BatchOperation(
        database=operation.database,
        request_id=operation.request_id or new_request_id(),
        schema_version=operation.schema_version,
        statement=to_statement(operation.query, operation.parameters),
    )


def batch_outcome(result: BatchResult, correlation_id: str) -> Result | HubError:
    """Gives what one operation of a batch came to."""
    if result.WhichOneof("outcome") == "error":
        error = from_status(result.error)
        if result.sequence:
            error.recording = Recording(result.sequence, result.schema_version, result.replayed)
        return error
    return result_of(result, result.result, correlation_id)
