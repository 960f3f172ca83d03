"""One message for all subscribers that get the same batch."""

import pytest

from hub.api.event_messages import KEPT_MAX, EventMessages
from hub.core.events.journal import JournalEvent
from hub.core.events.subscription import Batch
from messagehub.v1.event_pb2 import Event
from messagehub.v1.event_service_pb2 import SubscribeResponse
from tests.unit.hub.events.journal_model import journal_event


def batch(*sequences, cursor="c"):
    return Batch([journal_event(Event(sequence=number)) for number in sequences], cursor)


def decoded(messages, one):
    return SubscribeResponse.FromString(messages.encode(one))


def test_a_message_has_the_events_and_the_cursor():
    message = decoded(EventMessages(), batch(1, 2))
    assert [event.sequence for event in message.events] == [1, 2]
    assert message.cursor == "c"


def test_a_heartbeat_has_no_events():
    message = decoded(EventMessages(), batch())
    assert (list(message.events), message.cursor) == ([], "c")


def test_the_same_batch_is_made_once():
    messages = EventMessages()
    one = batch(1, 2)
    assert messages.encode(one) is messages.encode(Batch(list(one.events), "c"))


def test_another_cursor_or_other_events_make_another_message():
    messages = EventMessages()
    one = batch(1, 2)
    first = messages.encode(one)
    assert messages.encode(Batch(one.events, "d")) is not first
    assert messages.encode(Batch(one.events[:1], "c")) is not first
    assert messages.encode(batch(1, 2)) is not first


def test_only_a_few_are_kept():
    messages = EventMessages()
    for number in range(10):
        messages.encode(batch(number))
    assert len(messages._kept) == KEPT_MAX


@pytest.mark.parametrize("size", [0, 100, 127, 128, 200, 16_383, 16_384, 3_000_000])
def test_the_bytes_are_those_of_protobuf(size):
    events = [Event(id="a", custom=b"x" * size), Event(id="b", sequence=1 << 60)]
    message = EventMessages().encode(Batch([journal_event(one) for one in events], "cursor"))
    assert message == SubscribeResponse(events=events, cursor="cursor").SerializeToString()


def test_what_this_hub_does_not_know_passes_unchanged():
    newer = Event(id="a").SerializeToString() + b"\xba\x3e\x03new"  # field 999
    event = JournalEvent(1, "a.b", "s", "", "", len(newer), newer)
    message = SubscribeResponse.FromString(EventMessages().encode(Batch([event], "c")))
    assert message.events[0].SerializeToString() == newer
