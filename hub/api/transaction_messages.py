"""Transactions as messages on the wire, and what a list of them asks for."""

from typing import Final

from hub.core.transactions.inquiries import Selection
from hub.core.transactions.transaction import Header, Standing, State
from messagehub.errors import InvalidRequest
from messagehub.status import to_status
from messagehub.v1 import transaction_service_pb2 as messages

PAGE_TRANSACTIONS: Final = 100
PAGE_TRANSACTIONS_MAX: Final = 1000
MICROSECONDS: Final = 1_000_000
STATES: Final = {
    State.ACTIVE: messages.TRANSACTION_STATE_ACTIVE,
    State.PREPARING: messages.TRANSACTION_STATE_PREPARING,
    State.COMMITTED: messages.TRANSACTION_STATE_COMMITTED,
    State.ROLLED_BACK: messages.TRANSACTION_STATE_ROLLED_BACK,
    State.IN_DOUBT: messages.TRANSACTION_STATE_IN_DOUBT,
}
UNFINISHED: Final = frozenset({State.ACTIVE, State.PREPARING, State.IN_DOUBT})
_STATES_BY_NUMBER: Final = {number: state for state, number in STATES.items()}


def transaction_message(standing: Standing) -> messages.Transaction:
    """Gives the message of a transaction; the home comes first."""
    header = standing.header
    message = messages.Transaction(
        transaction_id=header.transaction_id,
        correlation_id=header.correlation_id,
        source_service=header.source_service,
        state=STATES[standing.state],
        databases=(header.home, *header.others),
        waiting_for=standing.waiting_for,
    )
    message.create_time.FromMicroseconds(header.create_time_us)
    message.update_time.FromMicroseconds(standing.update_time_us)
    if standing.error is not None:
        message.error.CopyFrom(to_status(standing.error))
    return message


def begun_message(header: Header) -> messages.BeginTransactionResponse:
    """Gives the answer to whoever began a transaction."""
    response = messages.BeginTransactionResponse(
        correlation_id=header.correlation_id, transaction_id=header.transaction_id
    )
    life_us = round(header.seconds * MICROSECONDS)
    response.expire_time.FromMicroseconds(header.create_time_us + life_us)
    return response


def selection(request: messages.ListTransactionsRequest) -> Selection:
    """Gives what a list asks for; raises `InvalidRequest` for what cannot be asked."""
    states = set()
    for index, number in enumerate(request.states):
        if number not in _STATES_BY_NUMBER:
            raise _invalid(f"states[{index}]", "must be one of the states of the contract")
        states.add(_STATES_BY_NUMBER[number])
    if not 0 <= request.page_size <= PAGE_TRANSACTIONS_MAX:
        raise _invalid(
            "page_size", f"must be from 0 (for {PAGE_TRANSACTIONS}) to {PAGE_TRANSACTIONS_MAX}"
        )
    return Selection(
        frozenset(states) or UNFINISHED,
        _after(request.page_token),
        request.page_size or PAGE_TRANSACTIONS,
    )


def page_token(last: Standing) -> str:
    """Gives the token of the page after a transaction."""
    return f"{last.header.create_time_us:x}.{last.header.transaction_id}"


def _after(token: str) -> tuple[int, str]:
    if not token:
        return -1, ""
    time, dot, name = token.partition(".")
    try:
        create_time_us = int(time, 16)
    except ValueError:
        create_time_us = -1
    if not dot or not name or create_time_us < 0:
        raise _invalid("page_token", "must be the next_page_token of an answer")
    return create_time_us, name


def _invalid(field: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {what}", fields={field: what})
