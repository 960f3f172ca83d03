"""The life of one part of a transaction, in one table.

                     ┌── run ──┐
    absent ──begin──▶│  OPEN   │──prepare──▶ PREPARED ──commit──▶ COMMITTED
                     └────┬────┘                │
                          │ commit (home, or alone) ──▶ COMMITTED
                          └────── roll back ────┴──────▶ ROLLED_BACK

An OPEN part may be rolled back at any time, by anybody: a lost connection, a limit, a shutdown. A
PREPARED one only by the home's decision or by an operator. An end is written down, and so final:
what comes later is answered from the record.
"""

from enum import Enum
from types import MappingProxyType
from typing import Final


class State(Enum):
    """Where a part stands."""

    ABSENT = "absent"
    OPEN = "open"
    PREPARED = "prepared"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"


class Verb(Enum):
    """What somebody wants to be done with a part."""

    BEGIN = "begin"
    RUN = "run"
    PREPARE = "prepare"
    COMMIT = "commit"
    FINISH = "finish"
    ROLL_BACK = "roll back"


class Answer(Enum):
    """What is said where nothing is to be done."""

    AS_BEFORE = "the same as when it was done"
    EXPIRED = "it was rolled back"
    NOT_FOUND = "there is no such part"
    TOO_LATE = "it is decided otherwise"
    UNDECIDED = "only its home can decide"


# COMMIT decides, at the home or where there is nobody else; FINISH follows a decision.
TRANSITIONS: Final = MappingProxyType(
    {
        (State.ABSENT, Verb.BEGIN): State.OPEN,
        (State.ABSENT, Verb.RUN): Answer.NOT_FOUND,
        (State.ABSENT, Verb.PREPARE): Answer.NOT_FOUND,
        (State.ABSENT, Verb.COMMIT): Answer.NOT_FOUND,
        (State.ABSENT, Verb.FINISH): Answer.NOT_FOUND,
        (State.ABSENT, Verb.ROLL_BACK): State.ROLLED_BACK,
        (State.OPEN, Verb.BEGIN): State.OPEN,
        (State.OPEN, Verb.RUN): State.OPEN,
        (State.OPEN, Verb.PREPARE): State.PREPARED,
        (State.OPEN, Verb.COMMIT): State.COMMITTED,
        (State.OPEN, Verb.FINISH): Answer.NOT_FOUND,
        (State.OPEN, Verb.ROLL_BACK): State.ROLLED_BACK,
        (State.PREPARED, Verb.BEGIN): Answer.AS_BEFORE,
        (State.PREPARED, Verb.RUN): Answer.TOO_LATE,
        (State.PREPARED, Verb.PREPARE): Answer.AS_BEFORE,
        (State.PREPARED, Verb.COMMIT): Answer.UNDECIDED,
        (State.PREPARED, Verb.FINISH): State.COMMITTED,
        (State.PREPARED, Verb.ROLL_BACK): State.ROLLED_BACK,
        (State.COMMITTED, Verb.BEGIN): Answer.AS_BEFORE,
        (State.COMMITTED, Verb.RUN): Answer.TOO_LATE,
        (State.COMMITTED, Verb.PREPARE): Answer.TOO_LATE,
        (State.COMMITTED, Verb.COMMIT): Answer.AS_BEFORE,
        (State.COMMITTED, Verb.FINISH): Answer.AS_BEFORE,
        (State.COMMITTED, Verb.ROLL_BACK): Answer.AS_BEFORE,
        (State.ROLLED_BACK, Verb.BEGIN): Answer.EXPIRED,
        (State.ROLLED_BACK, Verb.RUN): Answer.EXPIRED,
        (State.ROLLED_BACK, Verb.PREPARE): Answer.EXPIRED,
        (State.ROLLED_BACK, Verb.COMMIT): Answer.EXPIRED,
        (State.ROLLED_BACK, Verb.FINISH): Answer.TOO_LATE,
        (State.ROLLED_BACK, Verb.ROLL_BACK): Answer.AS_BEFORE,
    }
)
