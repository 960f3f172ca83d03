"""The states of one attempt at a transaction, and every way from one to another.

    OPEN ──PREPARE──▶ PREPARING ──DECIDE──▶ DECIDING ──HOME_COMMITTED──▶ COMMITTED
      │                   │  ▲                │  │
      │                   │  └──NOT_DECIDED───┘  │
      └──────GIVE_UP──────┴──────────▶ ROLLED_BACK ◀──HOME_ROLLED_BACK

While it is DECIDING only the home's word leads on: nobody guesses. No way leads out of an end.
"""

from enum import Enum
from typing import Final

from messagehub.errors import InternalError


class Phase(Enum):
    """Where an attempt stands."""

    OPEN = "open"
    PREPARING = "preparing"
    DECIDING = "deciding"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"


class Happening(Enum):
    """What leads on.

    NOT_DECIDED = the home said no before it decided anything, or was never asked.
    """

    PREPARE = "the first participant is about to be prepared"
    DECIDE = "the home is about to be told to commit"
    NOT_DECIDED = "the home did not decide"
    GIVE_UP = "the coordinator rolls back what nobody was told to commit"
    HOME_COMMITTED = "the home says that it is committed"
    HOME_ROLLED_BACK = "the home says that it is rolled back, for ever"


TRANSITIONS: Final = {
    (Phase.OPEN, Happening.PREPARE): Phase.PREPARING,
    # Of one database there is nothing to prepare.
    (Phase.OPEN, Happening.DECIDE): Phase.DECIDING,
    (Phase.OPEN, Happening.GIVE_UP): Phase.ROLLED_BACK,
    # Another hub may have gone further with the same transaction.
    (Phase.OPEN, Happening.HOME_COMMITTED): Phase.COMMITTED,
    (Phase.OPEN, Happening.HOME_ROLLED_BACK): Phase.ROLLED_BACK,
    (Phase.PREPARING, Happening.DECIDE): Phase.DECIDING,
    (Phase.PREPARING, Happening.GIVE_UP): Phase.ROLLED_BACK,
    (Phase.PREPARING, Happening.HOME_COMMITTED): Phase.COMMITTED,
    (Phase.PREPARING, Happening.HOME_ROLLED_BACK): Phase.ROLLED_BACK,
    (Phase.DECIDING, Happening.NOT_DECIDED): Phase.PREPARING,
    (Phase.DECIDING, Happening.HOME_COMMITTED): Phase.COMMITTED,
    (Phase.DECIDING, Happening.HOME_ROLLED_BACK): Phase.ROLLED_BACK,
}


def after(phase: Phase, happening: Happening) -> Phase:
    """Gives the next phase; raises `InternalError` where no way leads on."""
    try:
        return TRANSITIONS[phase, happening]
    except KeyError:
        raise InternalError(
            f"a transaction that is {phase.value} cannot go on: {happening.value}"
        ) from None
