"""PublishEvent over real gRPC: what a service may put into a journal, and what comes back."""

import uuid

import pytest

from hub.core.ports import Operation
from messagehub.v1 import event_service_pb2 as messages
from messagehub.v1.event_pb2 import Event, EventDraft, OperationRequest
from tests.support.refusals import refused
from tests.unit.hub.events.event_hub import EVENT_BYTES_MAX, OWN, SERVICES, Operations, hub_before
from tests.unit.hub.events.journal_model import Model, serving


@pytest.fixture
def model():
    return Model(*SERVICES.values())


@pytest.fixture
async def hub(model):
    async with serving(model) as address, hub_before(address, Operations()) as hub:
        yield hub


def publish(hub, draft=None, *, source_service="character", **fields):
    request = messages.PublishEventRequest(
        source_service=source_service,
        event=draft or EventDraft(type="character.levelled_up", custom=b"{}"),
        **fields,
    )
    return hub.stub.PublishEvent(request, timeout=20)


async def test_an_event_is_an_operation_on_the_services_database(hub):
    request_id = str(uuid.uuid4())
    draft = EventDraft(
        type="character.levelled_up", data_content_type="application/json", custom=b"{}"
    )
    response = await publish(hub, draft, request_id=request_id, correlation_id="c")
    assert response == messages.PublishEventResponse(
        correlation_id="c",
        database=OWN,
        sequence=7,
        schema_version="1.2.0",
        event_id=f"{OWN}/0f/7",
    )
    (operation,) = hub.operations.operations
    event = Event(type="character.levelled_up", data_content_type="application/json", custom=b"{}")
    assert operation == Operation(
        database=OWN,
        read_only=False,
        source_service="character",
        correlation_id="c",
        request_id=request_id,
        content=event,
    )


async def test_an_event_without_payload_stays_without(hub):
    await publish(hub, EventDraft(type="a.b"))
    await publish(hub, EventDraft(type="a.b", custom=b""))
    without, empty = (operation.content for operation in hub.operations.operations)
    assert without.WhichOneof("data") is None
    assert empty.WhichOneof("data") == "custom"


async def test_ids_are_made_where_none_are_given(hub):
    response = await publish(hub)
    (operation,) = hub.operations.operations
    assert operation.correlation_id == response.correlation_id != ""
    assert str(uuid.UUID(operation.request_id)) == operation.request_id


@pytest.mark.parametrize(
    ("draft", "field"),
    [
        (EventDraft(), "event.type"),
        (EventDraft(type="nodot"), "event.type"),
        (EventDraft(type="storage.operation_completed"), "event.type"),
        (EventDraft(type="schema.update_started"), "event.type"),
        (EventDraft(type="transaction.committed"), "event.type"),
        (EventDraft(type="a.b", data_content_type="x\n"), "event.data_content_type"),
        (EventDraft(type="a.b", data_content_type="x" * 129), "event.data_content_type"),
        (
            EventDraft(type="a.b", operation_request=OperationRequest()),
            "event.operation_request",
        ),
    ],
)
async def test_a_bad_draft_is_refused_by_field(hub, draft, field):
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        await publish(hub, draft)
    assert list(refusal.fields) == [field]
    assert hub.operations.operations == []


async def test_a_bad_request_id_is_refused(hub):
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        await publish(hub, request_id="7")
    assert list(refusal.fields) == ["request_id"]


async def test_an_event_has_a_limit_of_size(hub):
    await publish(hub, EventDraft(type="a.b", custom=b"x" * EVENT_BYTES_MAX))
    with refused("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE") as refusal:
        await publish(hub, EventDraft(type="a.b", custom=b"x" * (EVENT_BYTES_MAX + 1)))
    assert refusal.metadata["limit_bytes"] == str(EVENT_BYTES_MAX)


async def test_publishing_is_routed_and_granted(hub):
    with refused("NOT_FOUND", "INVALID_ROUTE") as refusal:
        await publish(hub, EventDraft(type="a.b", database="nowhere_db"))
    assert list(refusal.fields) == ["event.database"]
    with refused("PERMISSION_DENIED", "ACCESS_DENIED"):
        await publish(hub, EventDraft(type="a.b", database="metrics_db"))
    with refused("PERMISSION_DENIED", "ACCESS_DENIED"):
        await publish(hub, EventDraft(type="a.b", database="auth_db"))
    assert hub.operations.operations == []
