"""What a caller is told of where a transaction stands, from what databases know of it."""

from collections.abc import Iterable
from typing import Final

from hub.core.transactions.transaction import PartState, Record, Standing, State
from messagehub.errors import HubError, InvalidRequest, TransactionExpired

ENDS: Final = {
    PartState.COMMITTED: State.COMMITTED,
    PartState.ROLLED_BACK: State.ROLLED_BACK,
}


def standing(record: Record, state: State, *, waiting_for: tuple[str, ...] = ()) -> Standing:
    """Gives a standing with the times and the error of a record."""
    since = record.update_time_us or record.header.create_time_us
    error = record.error if state is State.ROLLED_BACK else None
    return Standing(record.header, state, since, error, waiting_for)


def end(record: Record) -> Standing | None:
    """Gives the standing that a record proves, None for a part that has not ended."""
    state = ENDS.get(record.state)
    return None if state is None else standing(record, state)


def of_parts(records: Iterable[Record], *, home_silent: bool) -> Standing | None:
    """Gives what the parts but the home's prove; None if there is none.

    A participant ends only after its home decided, so that its end is the transaction's.
    """
    known = list(records)
    for record in known:
        if (ended := end(record)) is not None:
            return ended
    for record in known:
        if record.state is PartState.PREPARED:
            if home_silent:
                return standing(record, State.IN_DOUBT, waiting_for=(record.header.home,))
            return standing(record, State.PREPARING)
    return standing(known[0], State.ACTIVE) if known else None


def over(ended: Standing) -> HubError:
    """Why nobody can go on with a transaction that has ended."""
    if ended.state is not State.COMMITTED:
        return expired(ended.header.transaction_id, ended.error)
    return committed(ended.header.transaction_id)


def committed(name: str) -> InvalidRequest:
    """A transaction that is committed, or being so, takes nothing more; it must not be repeated."""
    return InvalidRequest(
        f"the transaction {name} is committed, or about to be: ask GetTransaction, and begin "
        "another one for more",
        fields={"transaction_id": "is of a transaction that was told to commit"},
        metadata={"transaction_id": name},
    )


def expired(name: str, reason: HubError | None) -> TransactionExpired:
    """Why nobody can go on with a transaction."""
    why = reason.message if reason is not None else "its owner gave it up"
    return TransactionExpired(
        f"the transaction {name} was rolled back, nothing was changed ({why}): run the whole "
        "transaction again",
        metadata={"transaction_id": name},
    )
