"""The whole error model: one closed table, used both ways.

The servers raise these classes and `messagehub.status` encodes them; the client decodes a status
into the same class. Every class has exactly one row in `TABLE`: its reason on the wire
(`messagehub.v1.ErrorReason` without prefix), its gRPC code, and what the caller may do. Nobody
matches on the text of an error.

    HubError
    ├── the request        InvalidRequest InvalidRoute AccessDenied Unauthenticated
    │                      InvalidStatement StatementForbidden ConstraintViolation
    │                      RequestIdReused NotBuiltYet
    ├── a limit            MessageTooLarge ResultTooLarge QueueFull StorageFull
    ├── the call           DeadlineExceeded Cancelled
    ├── the servers        StorageUnavailable CircuitOpen DatabaseUnavailable DatabaseCorrupt
    │                      ShuttingDown InternalError
    ├── an operation       OperationNotFound OperationNotCancellable PredecessorMissing
    ├── a transaction      TransactionConflict TransactionNotFound TransactionExpired
    ├── a schema           SchemaMismatch InvalidVersion SchemaHistoryConflict
    ├── a subscription     InvalidCursor CursorExpired CursorEpochChanged
    │                      SubscriptionNotFound SubscriptionInUse
    └── a backup           BackupNotFound BackupCorrupt BackupNeeded TransactionsTorn
                           DatabaseNotEmpty
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple


class Retry(Enum):
    """What a caller may do after an error."""

    NEVER = "fix the request"
    SAME_CALL = "send the same call again, with the same request id"
    WHOLE_TRANSACTION = "run the whole transaction again"
    AFTER_FIX = "fix the state first, then call again"
    SLOWER = "call again later, and less often"


class Recording(NamedTuple):
    """Where a failure stands in the journal of a database; `replayed`, by an earlier call."""

    sequence: int
    schema_version: str
    replayed: bool


class HubError(Exception):
    """Every error that the hub answers or its client raises.

    `retry_after` is in seconds; `fields` maps the path of a bad field to what is wrong with it;
    `metadata` holds facts for programs, such as `limit_bytes`. `recording` is there in a batch,
    for an operation whose failure is its recorded outcome.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        fields: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.fields = dict(fields or {})
        self.metadata = dict(metadata or {})
        self.recording: Recording | None = None

    @property
    def reason(self) -> str:
        """The reason on the wire, such as `CONSTRAINT_VIOLATION`."""
        return TABLE[type(self)].reason

    @property
    def code(self) -> str:
        """The name of the gRPC code."""
        return TABLE[type(self)].code

    @property
    def retry(self) -> Retry:
        """What the caller may do."""
        return TABLE[type(self)].retry


class InvalidRequest(HubError):
    """A field is missing or malformed; `fields` names it."""


class InvalidRoute(HubError):
    """The service or the database is not configured."""


class AccessDenied(HubError):
    """The service has no grant for the database."""


class Unauthenticated(HubError):
    """The caller did not prove who it is."""


class InvalidStatement(HubError):
    """The engine cannot compile or run the statement."""


class StatementForbidden(HubError):
    """The statement reaches beyond its database or into the hub's own tables."""


class ConstraintViolation(HubError):
    """A constraint was violated; `metadata["constraint"]` says which kind."""


class RequestIdReused(HubError):
    """The request id was used before with other content."""


class NotBuiltYet(HubError):
    """The RPC or field is part of the contract but not built yet."""


class MessageTooLarge(HubError):
    """The message is over the size limit."""


class ResultTooLarge(HubError):
    """The result is over the row or byte limit; `Query` streams it."""


class QueueFull(HubError):
    """A bounded queue is full."""


class StorageFull(HubError):
    """The disk is full or the database is at its size limit."""


class DeadlineExceeded(HubError):
    """The caller's deadline or the statement's time limit is over."""


class Cancelled(HubError):
    """The caller went away."""


class StorageUnavailable(HubError):
    """The storage server cannot be reached."""


class CircuitOpen(HubError):
    """The database's circuit is open; `retry_after` is the time until the next trial."""


class DatabaseUnavailable(HubError):
    """The storage server runs but cannot serve this database."""


class DatabaseCorrupt(HubError):
    """The database file is damaged."""


class ShuttingDown(HubError):
    """The server is draining."""


class InternalError(HubError):
    """A defect of the hub or the storage server."""


class OperationNotFound(HubError):
    """No operation with this request id is known."""


class OperationNotCancellable(HubError):
    """The operation is past the point where it can be cancelled."""


class PredecessorMissing(HubError):
    """The operation that this one follows has no outcome yet; no service ever sees this."""


class TransactionConflict(HubError):
    """The transaction lost against another."""


class TransactionNotFound(HubError):
    """No transaction with this id is known."""


class TransactionExpired(HubError):
    """The transaction was over its limit and was rolled back."""


class SchemaMismatch(HubError):
    """The database's schema version is outside the requested range."""


class InvalidVersion(HubError):
    """The schema version is not above the current one."""


class SchemaHistoryConflict(HubError):
    """An applied migration was edited, or cannot be rolled back."""


class InvalidCursor(HubError):
    """The cursor is malformed, or names a database of other data."""


class CursorExpired(HubError):
    """The cursor is older than what is kept; `metadata["oldest_cursor"]`."""


class CursorEpochChanged(HubError):
    """The cursor is from before a restore; `metadata["oldest_cursor"]`."""


class SubscriptionNotFound(HubError):
    """No subscription with this name is known."""


class SubscriptionInUse(HubError):
    """Another consumer holds the subscription."""


class BackupNotFound(HubError):
    """No backup with this id is known."""


class BackupCorrupt(HubError):
    """The backup does not verify."""


class BackupNeeded(HubError):
    """The backup is the last verified one of a database."""


class TransactionsTorn(HubError):
    """The restore would tear transactions apart; `metadata["transactions"]` names them."""


class DatabaseNotEmpty(HubError):
    """The database already holds data."""


class Row(NamedTuple):
    """What one error is on the wire, and what it asks of the caller."""

    reason: str
    code: str
    retry: Retry


TABLE: Final[Mapping[type[HubError], Row]] = MappingProxyType(
    {
        InvalidRequest: Row("INVALID_REQUEST", "INVALID_ARGUMENT", Retry.NEVER),
        InvalidRoute: Row("INVALID_ROUTE", "NOT_FOUND", Retry.NEVER),
        AccessDenied: Row("ACCESS_DENIED", "PERMISSION_DENIED", Retry.NEVER),
        Unauthenticated: Row("UNAUTHENTICATED", "UNAUTHENTICATED", Retry.NEVER),
        InvalidStatement: Row("INVALID_STATEMENT", "INVALID_ARGUMENT", Retry.NEVER),
        StatementForbidden: Row("STATEMENT_FORBIDDEN", "PERMISSION_DENIED", Retry.NEVER),
        ConstraintViolation: Row("CONSTRAINT_VIOLATION", "FAILED_PRECONDITION", Retry.AFTER_FIX),
        RequestIdReused: Row("REQUEST_ID_REUSED", "ALREADY_EXISTS", Retry.NEVER),
        NotBuiltYet: Row("NOT_IMPLEMENTED", "UNIMPLEMENTED", Retry.NEVER),
        MessageTooLarge: Row("MESSAGE_TOO_LARGE", "RESOURCE_EXHAUSTED", Retry.NEVER),
        ResultTooLarge: Row("RESULT_TOO_LARGE", "RESOURCE_EXHAUSTED", Retry.NEVER),
        QueueFull: Row("QUEUE_FULL", "RESOURCE_EXHAUSTED", Retry.SLOWER),
        StorageFull: Row("STORAGE_FULL", "RESOURCE_EXHAUSTED", Retry.AFTER_FIX),
        DeadlineExceeded: Row("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", Retry.SAME_CALL),
        Cancelled: Row("CANCELLED", "CANCELLED", Retry.SAME_CALL),
        StorageUnavailable: Row("STORAGE_UNAVAILABLE", "UNAVAILABLE", Retry.SAME_CALL),
        CircuitOpen: Row("CIRCUIT_OPEN", "UNAVAILABLE", Retry.SAME_CALL),
        DatabaseUnavailable: Row("DATABASE_UNAVAILABLE", "UNAVAILABLE", Retry.SAME_CALL),
        DatabaseCorrupt: Row("DATABASE_CORRUPT", "DATA_LOSS", Retry.AFTER_FIX),
        ShuttingDown: Row("SHUTTING_DOWN", "UNAVAILABLE", Retry.SAME_CALL),
        InternalError: Row("INTERNAL", "INTERNAL", Retry.NEVER),
        OperationNotFound: Row("OPERATION_NOT_FOUND", "NOT_FOUND", Retry.NEVER),
        OperationNotCancellable: Row(
            "OPERATION_NOT_CANCELLABLE", "FAILED_PRECONDITION", Retry.NEVER
        ),
        PredecessorMissing: Row("PREDECESSOR_MISSING", "FAILED_PRECONDITION", Retry.AFTER_FIX),
        TransactionConflict: Row("TRANSACTION_CONFLICT", "ABORTED", Retry.WHOLE_TRANSACTION),
        TransactionNotFound: Row("TRANSACTION_NOT_FOUND", "NOT_FOUND", Retry.NEVER),
        TransactionExpired: Row("TRANSACTION_EXPIRED", "ABORTED", Retry.WHOLE_TRANSACTION),
        SchemaMismatch: Row("SCHEMA_MISMATCH", "FAILED_PRECONDITION", Retry.AFTER_FIX),
        InvalidVersion: Row("INVALID_VERSION", "FAILED_PRECONDITION", Retry.AFTER_FIX),
        SchemaHistoryConflict: Row(
            "SCHEMA_HISTORY_CONFLICT", "FAILED_PRECONDITION", Retry.AFTER_FIX
        ),
        InvalidCursor: Row("INVALID_CURSOR", "INVALID_ARGUMENT", Retry.NEVER),
        CursorExpired: Row("CURSOR_EXPIRED", "OUT_OF_RANGE", Retry.NEVER),
        CursorEpochChanged: Row("CURSOR_EPOCH_CHANGED", "FAILED_PRECONDITION", Retry.NEVER),
        SubscriptionNotFound: Row("SUBSCRIPTION_NOT_FOUND", "NOT_FOUND", Retry.NEVER),
        SubscriptionInUse: Row("SUBSCRIPTION_IN_USE", "FAILED_PRECONDITION", Retry.AFTER_FIX),
        BackupNotFound: Row("BACKUP_NOT_FOUND", "NOT_FOUND", Retry.NEVER),
        BackupCorrupt: Row("BACKUP_CORRUPT", "DATA_LOSS", Retry.NEVER),
        BackupNeeded: Row("BACKUP_NEEDED", "FAILED_PRECONDITION", Retry.AFTER_FIX),
        TransactionsTorn: Row("TRANSACTIONS_TORN", "FAILED_PRECONDITION", Retry.AFTER_FIX),
        DatabaseNotEmpty: Row("DATABASE_NOT_EMPTY", "FAILED_PRECONDITION", Retry.AFTER_FIX),
    }
)

BY_REASON: Final[Mapping[str, type[HubError]]] = MappingProxyType(
    {row.reason: error for error, row in TABLE.items()}
)
