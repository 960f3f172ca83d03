"""Named subscriptions of the client: what is acknowledged when, and what survives a reconnect."""

import asyncio

import pytest

from messagehub.client import Hub
from messagehub.errors import (
    CursorExpired,
    InvalidRequest,
    ShuttingDown,
    StorageUnavailable,
    SubscriptionInUse,
    SubscriptionNotFound,
)
from messagehub.events import EARLIEST, Lag, Subscription
from messagehub.retries import Retries
from messagehub.v1.event_service_pb2 import ListSubscriptionsResponse, SubscribeRequest
from messagehub.v1.event_service_pb2 import Subscription as Named
from tests.unit.client.conftest import Waits
from tests.unit.client.fake_hub import FakeHub, event, message

NAME = "billing"
BEGIN = message(cursor="cursor-0")


def forever() -> object:
    return asyncio.get_running_loop().create_future()


def id_of(sequence: int, database: str = "character_db") -> str:
    return f"{database}/e1/{sequence}"


def subscribed(fake: FakeHub) -> list[SubscribeRequest]:
    return [request for request in fake.requests if isinstance(request, SubscribeRequest)]


async def take(subscription: Subscription, count: int) -> list[int]:
    return [(await anext(subscription)).sequence for _ in range(count)]


async def test_the_name_and_who_reads_are_sent_with_every_connection(
    hub: Hub, fake: FakeHub
) -> None:
    fake.subscribe.extend([[BEGIN, message(1), ShuttingDown("later")], [message(2), forever()]])
    async with hub.subscribe(subscription=NAME, start=EARLIEST) as events:
        assert await take(events, 2) == [1, 2]
    first, second = subscribed(fake)
    assert (first.subscription, first.earliest) == (NAME, True)
    assert (second.subscription, second.cursor) == (NAME, "cursor-1")
    assert first.consumer == second.consumer != ""


async def test_streams_are_consumers_of_their_own_unless_they_are_named(
    hub: Hub, fake: FakeHub
) -> None:
    for _ in range(3):
        fake.subscribe.append([BEGIN, forever()])
    for consumer in ("", "", "worker-1"):
        async with hub.subscribe(subscription=NAME, consumer=consumer):
            pass
    one, two, three = subscribed(fake)
    assert one.consumer != two.consumer
    assert three.consumer == "worker-1"


async def test_acknowledging_covers_exactly_what_was_handed_out(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.append([BEGIN, message(1, 2, 3), message(4), forever()])
    async with hub.subscribe(subscription=NAME) as events:
        await events.acknowledge()
        assert fake.acknowledged == [], "nothing was handed out"
        await take(events, 1)
        await events.acknowledge()
        await take(events, 1)
        await events.acknowledge()
        await events.acknowledge()
        await take(events, 1)
        await events.acknowledge()
        await take(events, 1)
    assert fake.acknowledged == [
        ("cursor-0", (id_of(1),)),
        ("cursor-0", (id_of(2),)),
        ("cursor-3", ()),
    ]


async def test_inside_of_a_message_each_database_has_its_last_event(
    hub: Hub, fake: FakeHub
) -> None:
    merged = message(1, 2, 3, 4, 5)
    for position in (1, 3):
        merged.events[position].subject = "auth_db"
        merged.events[position].id = id_of(position + 1, "auth_db")
    fake.subscribe.append([BEGIN, merged, forever()])
    async with hub.subscribe(subscription=NAME) as events:
        await take(events, 4)
        await events.acknowledge()
    assert fake.acknowledged == [("cursor-0", (id_of(3), id_of(4, "auth_db")))]


async def test_a_transaction_is_acknowledged_with_its_message(hub: Hub, fake: FakeHub) -> None:
    mixed = message(1, 2, 3, 4, 5)
    for position in (1, 2):
        mixed.events[position].transaction_id = "t"
    fake.subscribe.append([BEGIN, mixed, forever()])
    async with hub.subscribe(subscription=NAME) as events:
        for _ in range(5):
            await take(events, 1)
            await events.acknowledge()
    assert fake.acknowledged == [
        ("cursor-0", (id_of(1),)),
        ("cursor-0", (id_of(4),)),
        ("cursor-5", ()),
    ]


async def test_silence_can_be_acknowledged_too(hub: Hub, fake: FakeHub) -> None:
    """A filter holds everything back; the subscription must not fall behind for that."""
    fake.subscribe.append([BEGIN, message(1), message(cursor="cursor-90"), message(91), forever()])
    async with hub.subscribe(subscription=NAME) as events:
        await take(events, 1)
        await take(events, 1)
        await events.acknowledge()
    assert fake.acknowledged == [("cursor-91", ())]


async def test_a_stream_that_is_closed_acknowledges_what_it_handed_out(
    hub: Hub, fake: FakeHub
) -> None:
    fake.subscribe.append([BEGIN, message(1, 2, 3), forever()])
    events = hub.subscribe(subscription=NAME)
    await take(events, 2)
    events.close()
    assert events.cursor == "cursor-0"
    await events.acknowledge()
    assert fake.acknowledged == [("cursor-0", (id_of(2),))]


async def test_events_without_a_cursor_before_them_are_acknowledged_by_their_ids(
    hub: Hub, fake: FakeHub
) -> None:
    fake.subscribe.append([message(1, 2), forever()])
    async with hub.subscribe(subscription=NAME) as events:
        await take(events, 1)
        await events.acknowledge()
    assert fake.acknowledged == [("", (id_of(1),))]


async def test_an_acknowledgement_is_sent_until_it_is_taken(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.append([BEGIN, message(1), forever()])
    fake.acknowledge.extend([StorageUnavailable("gone"), ShuttingDown("later")])
    async with hub.subscribe(subscription=NAME) as events:
        await take(events, 1)
        await events.acknowledge()
    assert fake.acknowledged == [("cursor-1", ())]


async def test_whoever_was_cut_off_learns_it_and_may_go_on_reading(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.append([BEGIN, message(1), message(2), forever()])
    fake.acknowledge.append(CursorExpired("cut off", metadata={"oldest_cursor": "o"}))
    async with hub.subscribe(subscription=NAME) as events:
        await take(events, 1)
        with pytest.raises(CursorExpired) as caught:
            await events.acknowledge()
        assert caught.value.metadata["oldest_cursor"] == "o"
        assert await take(events, 1) == [2]


# When asked, by itself.


async def test_an_event_counts_as_handled_when_the_next_one_is_asked_for(
    hub: Hub, fake: FakeHub
) -> None:
    fake.subscribe.append([BEGIN, message(1, 2), message(3, 4, 5), forever()])
    async with hub.subscribe(subscription=NAME, acknowledge=True) as events:
        await take(events, 2)
        assert fake.acknowledged == []
        await take(events, 1)
        assert fake.acknowledged == [("cursor-2", ())]
        await take(events, 1)
    assert fake.acknowledged == [("cursor-2", ()), ("cursor-2", (id_of(4),))]


async def test_what_failed_is_not_acknowledged(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.append([BEGIN, message(1), message(2), forever()])

    async def handle() -> None:
        async with hub.subscribe(subscription=NAME, acknowledge=True) as events:
            await take(events, 2)
            raise RuntimeError("the handler failed")

    with pytest.raises(RuntimeError):
        await handle()
    assert fake.acknowledged == [("cursor-1", ())]


async def test_what_cannot_be_acknowledged_now_is_with_what_follows(
    fake: FakeHub, waits: Waits
) -> None:
    retries = Retries(random=lambda: 1.0, sleep=waits, attempts_max=2)
    fake.subscribe.append([BEGIN, message(1), message(2), message(3), forever()])
    fake.acknowledge.extend([StorageUnavailable("gone")] * 2)
    async with (
        Hub(fake.address, service="character", retries=retries) as hub,
        hub.subscribe(subscription=NAME, acknowledge=True) as events,
    ):
        assert await take(events, 3) == [1, 2, 3]
    assert fake.acknowledged == [("cursor-2", ()), ("cursor-3", ())]


async def test_what_waiting_cannot_cure_ends_the_loop(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.append([BEGIN, message(1), message(2), forever()])
    fake.acknowledge.append(SubscriptionNotFound("deleted"))
    events = hub.subscribe(subscription=NAME, acknowledge=True)
    await take(events, 1)
    with pytest.raises(SubscriptionNotFound):
        await take(events, 1)
    events.close()


# Who may read.


async def test_a_name_that_is_in_use_at_first_is_waited_for(
    hub: Hub, fake: FakeHub, waits: Waits
) -> None:
    fake.subscribe.extend(
        [[SubscriptionInUse("busy", retry_after=5.0)]] * 2 + [[BEGIN, message(1), forever()]]
    )
    async with hub.subscribe(subscription=NAME) as events:
        assert await take(events, 1) == [1]
    assert [seconds >= 5.0 for seconds in waits.seconds] == [True, True]


async def test_the_wait_for_a_name_is_bounded(fake: FakeHub, waits: Waits) -> None:
    retries = Retries(random=lambda: 1.0, sleep=waits)
    fake.subscribe.append([SubscriptionInUse("busy", retry_after=5.0)])
    async with Hub(fake.address, service="character", retries=retries, timeout=4.0) as hub:
        with pytest.raises(SubscriptionInUse):
            await anext(hub.subscribe(subscription=NAME))
    assert waits.seconds == []


async def test_a_stream_that_lost_its_name_ends(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.append([BEGIN, message(1), SubscriptionInUse("taken over")])
    async with hub.subscribe(subscription=NAME) as events:
        await take(events, 1)
        with pytest.raises(SubscriptionInUse):
            await take(events, 1)


# How it stands.


async def test_the_lag_of_the_name_is_shown(hub: Hub, fake: FakeHub) -> None:
    mine = Named(subscription=NAME, lag_events=7)
    mine.lag_duration.FromMilliseconds(2500)
    other = Named(subscription="other", lag_events=99)
    fake.subscriptions["character"] = ListSubscriptionsResponse(subscriptions=[other, mine])
    events = hub.subscribe(subscription=NAME)
    assert await events.lag() == Lag(events=7, seconds=2.5)
    assert [one.subscription for one in (await hub.subscriptions()).subscriptions] == [
        "other",
        NAME,
    ]
    with pytest.raises(SubscriptionNotFound):
        await hub.subscribe(subscription="nobody").lag()


async def test_a_stream_without_a_name_has_nothing_to_remember(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.append([BEGIN, message(1), forever()])
    async with hub.subscribe() as events:
        await take(events, 1)
        for ask in (events.acknowledge, events.lag):
            with pytest.raises(InvalidRequest):
                await ask()
    with pytest.raises(InvalidRequest):
        hub.subscribe(acknowledge=True)
    assert fake.acknowledged == []
    assert subscribed(fake)[0].consumer == ""


async def test_a_name_is_acknowledged_and_deleted_without_a_stream(hub: Hub, fake: FakeHub) -> None:
    await hub.acknowledge(NAME, "cursor-5")
    await hub.acknowledge(NAME, event_ids=[event(3).id])
    await hub.delete_subscription(NAME)
    assert fake.acknowledged == [("cursor-5", ()), ("", (id_of(3),))]
    assert fake.requests[-1].subscription == NAME
    assert {request.source_service for request in fake.requests} == {"character"}
