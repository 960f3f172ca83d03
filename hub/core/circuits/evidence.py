"""What the end of a call says about the database that it was for."""

from enum import Enum
from typing import Final

from messagehub.errors import (
    Cancelled,
    CircuitOpen,
    DatabaseCorrupt,
    DatabaseUnavailable,
    DeadlineExceeded,
    HubError,
    InternalError,
    PredecessorMissing,
    QueueFull,
    ShuttingDown,
    StorageFull,
    StorageUnavailable,
)


class Evidence(Enum):
    """What the end of a call says about the database."""

    SUCCESS = "it answered"
    FAILURE = "it does not work"
    NONE = "nothing"


_FAILURES: Final = (StorageUnavailable, DatabaseUnavailable, DatabaseCorrupt, InternalError)
# Full queues and disks, ends that somebody wanted, and what was not begun because of another
# operation: nothing is broken, nothing is proven.
_NO_EVIDENCE: Final = (
    CircuitOpen,
    Cancelled,
    DeadlineExceeded,
    PredecessorMissing,
    QueueFull,
    ShuttingDown,
    StorageFull,
)


def judge(error: HubError, *, silent: bool = False) -> Evidence:
    """Gives what an error says; `silent` = the storage server had its time and said nothing.

    A recorded failure was told by the journal, whatever it was that failed then.
    """
    if error.recording is not None:
        return Evidence.SUCCESS
    if silent and isinstance(error, DeadlineExceeded):
        return Evidence.FAILURE
    if isinstance(error, _FAILURES):
        return Evidence.FAILURE
    return Evidence.NONE if isinstance(error, _NO_EVIDENCE) else Evidence.SUCCESS
