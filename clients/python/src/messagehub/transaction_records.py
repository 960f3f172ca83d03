"""What the hub knows of a transaction: where it stands, who takes part, how it ended."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from messagehub.errors import HubError
from messagehub.status import from_status
from messagehub.v1 import transaction_service_pb2 as messages

__all__ = ["TransactionRecord", "TransactionState", "record_of"]


class TransactionState(Enum):
    """Where a transaction stands.

    `UNKNOWN` is one that did not begin, one whose end was not heard of, or a state that this
    client does not know yet.
    """

    UNKNOWN = 0
    ACTIVE = 1
    PREPARING = 2
    COMMITTED = 3
    ROLLED_BACK = 4
    IN_DOUBT = 5

    @property
    def final(self) -> bool:
        """True if it stays so."""
        return self in (TransactionState.COMMITTED, TransactionState.ROLLED_BACK)


@dataclass(frozen=True, slots=True)
class TransactionRecord:
    """A transaction by its id, as the hub knows it.

    The first of `databases` is the home, whose commit decides. `waiting_for` are those that have
    to answer before an `IN_DOUBT` one can end; those that are prepared take no write meanwhile.
    `error` is why it was rolled back.
    """

    id: str
    correlation_id: str
    service: str
    state: TransactionState
    databases: tuple[str, ...]
    waiting_for: tuple[str, ...]
    created: datetime
    updated: datetime
    error: HubError | None


def record_of(transaction: messages.Transaction) -> TransactionRecord:
    """Gives a transaction as it came."""
    known = transaction.state in TransactionState._value2member_map_
    return TransactionRecord(
        id=transaction.transaction_id,
        correlation_id=transaction.correlation_id,
        service=transaction.source_service,
        state=TransactionState(transaction.state) if known else TransactionState.UNKNOWN,
        databases=tuple(transaction.databases),
        waiting_for=tuple(transaction.waiting_for),
        created=transaction.create_time.ToDatetime(tzinfo=UTC),
        updated=transaction.update_time.ToDatetime(tzinfo=UTC),
        error=from_status(transaction.error) if transaction.HasField("error") else None,
    )
