"""One message for all subscribers that get the same batch."""

from hub.api.event_messages import KEPT_MAX, EventMessages
from hub.core.events.subscription import Batch
from messagehub.v1.event_pb2 import Event
from tests.unit.hub.events.journal_model import journal_event


def batch(*sequences, cursor="c"):
    return Batch([journal_event(Event(sequence=number)) for number in sequences], cursor)


def test_a_message_has_the_events_and_the_cursor():
    message = EventMessages().message(batch(1, 2))
    assert [event.sequence for event in message.events] == [1, 2]
    assert message.cursor == "c"


def test_a_heartbeat_has_no_events():
    message = EventMessages().message(batch())
    assert (list(message.events), message.cursor) == ([], "c")


def test_the_same_batch_is_made_once():
    messages = EventMessages()
    one = batch(1, 2)
    assert messages.message(one) is messages.message(Batch(list(one.events), "c"))


def test_another_cursor_or_other_events_make_another_message():
    messages = EventMessages()
    one = batch(1, 2)
    first = messages.message(one)
    assert messages.message(Batch(one.events, "d")) is not first
    assert messages.message(Batch(one.events[:1], "c")) is not first
    assert messages.message(batch(1, 2)) is not first


def test_only_a_few_are_kept():
    messages = EventMessages()
    for number in range(10):
        messages.message(batch(number))
    assert len(messages._kept) == KEPT_MAX
