"""What is checked in a transaction, and what tells two of them apart."""

import pytest

from hub.api.checks import RequestChecks
from hub.api.transaction_checks import TransactionChecks, fingerprint
from hub.api.transaction_messages import page_token, selection
from hub.config import HubConfig
from hub.core.routing.routes import Routes
from hub.core.transactions.access import planned
from hub.core.transactions.transaction import Header, Standing, State
from messagehub.errors import AccessDenied, InvalidRequest, MessageTooLarge
from messagehub.v1 import transaction_service_pb2 as messages
from messagehub.v1.event_pb2 import EventDraft
from tests.support.calls import statement

ROUTES = Routes(
    {"character": "character_db", "campaign": "campaign_db"},
    {"character": {"campaign_db": "read"}},
)


def checks(**limits):
    config = HubConfig(**limits)
    return TransactionChecks(config, routes=ROUTES, checks=RequestChecks(config))


def operation(query, *parameters, database="", **named):
    return messages.TransactionOperation(
        database=database, statement=statement(query, *parameters, **named)
    )


def print_of(*operations, events=(), service="character"):
    made = checks()
    drafts = made.operations(service, operations)
    return fingerprint(service, planned(ROUTES, service, drafts, made.events(service, events)))


def test_the_same_content_is_the_same():
    one = print_of(operation("X", a=1, b=2), operation("Y", database="character_db"))
    assert one == print_of(operation("X", b=2, a=1), operation("Y"))


@pytest.mark.parametrize(
    "other",
    [
        (operation("X"), operation("Z")),
        (operation("Y"), operation("X")),
        (operation("X"), operation("Y", 1)),
        (operation("X"), operation("Y", database="campaign_db")),
        (operation("X"),),
        (operation("X"), operation("Y"), operation("Y")),
    ],
)
def test_other_content_is_another(other):
    assert print_of(operation("X"), operation("Y")) != print_of(*other)


def test_events_and_the_service_tell_apart():
    event = EventDraft(type="character.moved", custom=b"1")
    plain = print_of(operation("X", database="character_db"))
    assert plain != print_of(operation("X", database="character_db"), events=[event])
    assert plain != print_of(operation("X", database="campaign_db"), service="campaign")


def test_events_go_where_the_service_may_write():
    with pytest.raises(AccessDenied):
        checks().events("character", [EventDraft(type="x.y", database="campaign_db")])
    with pytest.raises(InvalidRequest) as refusal:
        checks(transaction_events_max=1).events("character", [EventDraft(type="x.y")] * 2)
    assert "events" in refusal.value.fields


def test_reading_is_marked_where_only_that_is_granted():
    drafts = checks().operations(
        "character", [operation("X"), operation("Y", database="campaign_db")]
    )
    work = planned(ROUTES, "character", drafts)
    assert not work["character_db"].operations[0].read_only
    assert work["campaign_db"].operations[0].read_only
    assert work["campaign_db"].operations[0].place == 1


def test_sizes_are_bounded():
    request = messages.ExecuteTransactionRequest(operations=[operation("X" * 100)])
    with pytest.raises(MessageTooLarge):
        checks(transaction_bytes_max=50).size(request)
    request.read_only = True
    request.events.add(type="x.y")
    with pytest.raises(InvalidRequest):
        checks().size(request)


def test_a_page_goes_on_where_the_last_one_ended():
    header = Header("a_db/7", "character", "", ("a_db",), 0x1234, b"", "", False, 1.0, 1.0)
    token = page_token(Standing(header, State.ACTIVE, 0))
    asked = selection(messages.ListTransactionsRequest(page_token=token, page_size=7))
    assert (asked.after, asked.standings_max) == ((0x1234, "a_db/7"), 7)
    assert asked.states == {State.ACTIVE, State.PREPARING, State.IN_DOUBT}


@pytest.mark.parametrize(
    "request_",
    [
        messages.ListTransactionsRequest(page_size=1001),
        messages.ListTransactionsRequest(page_size=-1),
        messages.ListTransactionsRequest(page_token="x"),
        messages.ListTransactionsRequest(page_token="x.y"),
        messages.ListTransactionsRequest(states=[0]),
    ],
)
def test_a_list_that_cannot_be_asked_for(request_):
    with pytest.raises(InvalidRequest):
        selection(request_)
