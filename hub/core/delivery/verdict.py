"""What a failed attempt to deliver an operation means for the operation and for its queue.

    error                                  the operation           its queue
REFUSED   open circuit, full queue,      was not begun           waits
          one before it has no outcome
LATER     nobody there, disk trouble     may have been done      waits
SETBACK   took too long, a defect        may have been done      waits, a few times
FINAL     everything else                will never succeed      goes on without it
"""

from enum import Enum
from typing import Final

from messagehub.errors import (
    CircuitOpen,
    DatabaseCorrupt,
    DeadlineExceeded,
    HubError,
    InternalError,
    PredecessorMissing,
    QueueFull,
    Retry,
    StorageFull,
)


class Verdict(Enum):
    """See the table above."""

    REFUSED = "it was not begun"
    LATER = "deliver it again"
    SETBACK = "deliver it again, a few times"
    FINAL = "it failed"


_REFUSALS: Final = (CircuitOpen, QueueFull, PredecessorMissing)
# The error table calls these fixable; whoever waits only has to wait for the fix.
_REPAIRABLE: Final = (StorageFull, DatabaseCorrupt)
# The database answered. It may do better when it has less to do, or has been repaired; but an
# operation that never gets done must not hold up its queue for ever.
_SETBACKS: Final = (DeadlineExceeded, InternalError)
_PASSING: Final = (Retry.SAME_CALL, Retry.SLOWER, Retry.WHOLE_TRANSACTION)


def judge(error: HubError, *, answered: bool) -> Verdict:
    """Gives the verdict on an error; `answered` = the time for the attempt was not over."""
    if isinstance(error, _REFUSALS):
        return Verdict.REFUSED
    if isinstance(error, _REPAIRABLE):
        return Verdict.LATER
    if isinstance(error, _SETBACKS):
        return Verdict.SETBACK if answered else Verdict.LATER
    return Verdict.LATER if error.retry in _PASSING else Verdict.FINAL
