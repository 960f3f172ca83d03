"""What is checked in named subscriptions on the wire, and how they are told."""

import pytest

from hub.api.subscription_messages import (
    acknowledged,
    check_consumer,
    name_of,
    subscription_message,
)
from hub.core.events import cursor
from hub.core.events.journal import Position
from hub.core.subscriptions.named_subscriptions import Summary
from messagehub.errors import InvalidCursor, InvalidRequest
from messagehub.v1.event_service_pb2 import AcknowledgeEventsRequest, SubscribeRequest

A, B = "a_db", "b_db"
STANDING = cursor.encode({A: Position("00", 5), B: Position("00", 5)})


@pytest.mark.parametrize("name", ["a", "billing", "a.b-c_d", "z9", "a" * 63])
def test_a_name_is_kept_as_it_is(name):
    assert name_of("character", name) == ("character", name)


@pytest.mark.parametrize("name", ["", "A", "9a", "_a", ".a", "a b", "a/b", "ä", "a\n", "a" * 64])
def test_a_name_that_cannot_be_is_refused(name):
    with pytest.raises(InvalidRequest) as caught:
        name_of("character", name)
    assert list(caught.value.fields) == ["subscription"]


@pytest.mark.parametrize("consumer", ["", "worker-1", "ä ✓", "x" * 128])
def test_a_consumer_is_any_short_text(consumer):
    check_consumer(SubscribeRequest(subscription="a", consumer=consumer))


@pytest.mark.parametrize(
    ("subscription", "consumer"), [("", "me"), ("a", "x" * 129), ("a", "a\n"), ("a", "\x00")]
)
def test_a_consumer_that_cannot_be_is_refused(subscription, consumer):
    with pytest.raises(InvalidRequest) as caught:
        check_consumer(SubscribeRequest(subscription=subscription, consumer=consumer))
    assert list(caught.value.fields) == ["consumer"]


@pytest.mark.parametrize(
    ("event_ids", "positions"),
    [
        ([], {A: 5, B: 5}),
        ([f"{A}/00/7"], {A: 7, B: 5}),
        ([f"{A}/00/7", f"{A}/00/6", f"{B}/00/9"], {A: 7, B: 9}),
        ([f"{A}/00/3"], {A: 5, B: 5}),
        (["c_db/ff/1"], {A: 5, B: 5, "c_db": 1}),
    ],
)
def test_events_are_acknowledged_beyond_the_cursor(event_ids, positions):
    found = acknowledged(AcknowledgeEventsRequest(cursor=STANDING, event_ids=event_ids))
    assert {database: position.sequence for database, position in found.items()} == positions


def test_events_alone_are_enough():
    assert acknowledged(AcknowledgeEventsRequest(event_ids=[f"{A}/0f/7"])) == {A: Position("0f", 7)}


@pytest.mark.parametrize(
    ("fields", "error", "field"),
    [
        ({}, InvalidRequest, "cursor"),
        ({"cursor": "nonsense"}, InvalidCursor, "cursor"),
        ({"event_ids": [""]}, InvalidRequest, "event_ids[0]"),
        ({"event_ids": [f"{A}/00/1", "7"]}, InvalidRequest, "event_ids[1]"),
        ({"event_ids": [f"{A}/00/-1"]}, InvalidRequest, "event_ids[0]"),
        ({"event_ids": ["/00/1"]}, InvalidRequest, "event_ids[0]"),
        ({"event_ids": [f"{A}/00/{10**19}"]}, InvalidRequest, "event_ids[0]"),
        ({"event_ids": [f"{A}/00/1\n"]}, InvalidRequest, "event_ids[0]"),
        ({"event_ids": [f"{A}/00/1"] * 1001}, InvalidRequest, "event_ids"),
        ({"event_ids": [f"{A}/00/1", f"{A}/ff/2"]}, InvalidCursor, "event_ids[1]"),
        ({"cursor": STANDING, "event_ids": [f"{A}/ff/9"]}, InvalidCursor, "event_ids[0]"),
    ],
)
def test_what_names_no_position_is_refused(fields, error, field):
    with pytest.raises(error) as caught:
        acknowledged(AcknowledgeEventsRequest(**fields))
    assert list(caught.value.fields) == [field]


def test_times_that_never_were_are_not_told():
    summary = Summary("billing", [A, B], "c", 7, 2.5, False, "", 0, 0)
    message = subscription_message("character", summary)
    assert (message.subscription, message.source_service) == ("billing", "character")
    assert (message.lag_events, message.lag_duration.ToMilliseconds()) == (7, 2500)
    assert list(message.databases) == [A, B]
    assert not message.HasField("acknowledge_time")
    assert not message.HasField("cut_off_time")


def test_times_are_told():
    summary = Summary("billing", [A], "c", 0, 0.0, True, "me", 1_000_000, 2_500_000)
    message = subscription_message("character", summary)
    assert (message.active, message.consumer) == (True, "me")
    assert message.acknowledge_time.ToMicroseconds() == 1_000_000
    assert message.cut_off_time.ToMicroseconds() == 2_500_000
