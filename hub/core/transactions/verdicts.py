"""What the failure of a step says about the transaction.

CONFLICT  another was in the way; nothing was changed     tried again, with a new id
PASSING   somebody was away for a moment                  tried again a few times
FINAL     a statement that will always fail               recorded under the request id
OTHER     everything else                                 the caller learns of it
"""

from enum import Enum
from typing import Final

from messagehub.errors import (
    Cancelled,
    CircuitOpen,
    ConstraintViolation,
    CursorEpochChanged,
    DatabaseUnavailable,
    DeadlineExceeded,
    HubError,
    InternalError,
    InvalidStatement,
    InvalidVersion,
    QueueFull,
    Retry,
    SchemaHistoryConflict,
    ShuttingDown,
    StatementForbidden,
    StorageFull,
    StorageUnavailable,
    TransactionConflict,
    TransactionExpired,
    TransactionNotFound,
)


class Verdict(Enum):
    """See the table above."""

    CONFLICT = "it lost against another"
    PASSING = "it may succeed in a moment"
    FINAL = "it will never succeed"
    OTHER = "it failed"


# The last two: a part that was lost, a home that was restored meanwhile.
_CONFLICTS: Final = (
    TransactionConflict,
    TransactionExpired,
    TransactionNotFound,
    CursorEpochChanged,
)
_PASSING: Final = (StorageUnavailable, DatabaseUnavailable, ShuttingDown)
_FINAL: Final = (
    ConstraintViolation,
    InvalidStatement,
    InvalidVersion,
    SchemaHistoryConflict,
    StatementForbidden,
)
# After these a call may have been executed all the same, or is worth repeating until it is.
_UNANSWERED: Final = (
    Cancelled,
    DatabaseUnavailable,
    DeadlineExceeded,
    InternalError,
    ShuttingDown,
    StorageFull,
    StorageUnavailable,
)
_NOT_BEGUN: Final = (CircuitOpen, QueueFull)
_HARMLESS: Final = (Retry.SAME_CALL, Retry.SLOWER)


def judge(failure: HubError) -> Verdict:
    """Gives the verdict on a failure."""
    if isinstance(failure, _CONFLICTS):
        return Verdict.CONFLICT
    if isinstance(failure, _PASSING):
        return Verdict.PASSING
    return Verdict.FINAL if isinstance(failure, _FINAL) else Verdict.OTHER


def leaves_unknown(failure: HubError) -> bool:
    """True if what was asked for may have been done in spite of the failure."""
    return isinstance(failure, _UNANSWERED)


def may_be_repeated(failure: HubError) -> bool:
    """True if the same question may have an answer later; False if this was the answer."""
    return isinstance(failure, (*_UNANSWERED, *_NOT_BEGUN))


def denies_change(failure: HubError) -> bool:
    """True if a caller takes it for the word that the transaction was not done and never will be.

    A caller that sends the same call again in any case may be told anything.
    """
    return failure.retry not in _HARMLESS
