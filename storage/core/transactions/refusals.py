"""What a hub is told when a part cannot go where it should."""

from messagehub.errors import HubError, TransactionConflict, TransactionExpired, TransactionNotFound
from messagehub.storage.v1.participant_service_pb2 import TransactionRecord
from storage.core.transactions.states import Answer


def refusal(answer: Answer, transaction_id: str, database: str) -> HubError:
    """The error for a step that the part cannot take from where it stands."""
    metadata = {"transaction_id": transaction_id}
    if answer is Answer.EXPIRED:
        return TransactionExpired(
            f"the transaction {transaction_id} was rolled back: run it again", metadata=metadata
        )
    if answer is Answer.NOT_FOUND:
        return not_found(transaction_id, database)
    return TransactionConflict(
        f"the transaction {transaction_id} cannot do this in {database}: {answer.value}",
        metadata=metadata,
    )


def not_found(transaction_id: str, database: str) -> TransactionNotFound:
    """Nothing is known here, which never means that it succeeded."""
    return TransactionNotFound(
        f"{database} knows nothing of the transaction {transaction_id}: it never began here, or "
        "is older than what is kept",
        metadata={"transaction_id": transaction_id},
    )


def rolled_back(record: TransactionRecord) -> HubError:
    """Why a transaction that its caller wants to go on with is over."""
    reason = record.error.message if record.HasField("error") else "it was given up"
    return TransactionExpired(
        f"the transaction {record.header.transaction_id} was rolled back: {reason}; run it again",
        metadata={"transaction_id": record.header.transaction_id},
    )
