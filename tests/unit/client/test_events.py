import asyncio
from datetime import UTC, datetime

import pytest

from messagehub.client import Hub
from messagehub.errors import AccessDenied, CursorExpired, ShuttingDown, StorageUnavailable
from messagehub.events import EARLIEST, LATEST, Subscription
from messagehub.retries import Retries
from messagehub.v1 import event_service_pb2_grpc
from messagehub.v1.event_pb2 import OperationCompleted
from messagehub.v1.event_service_pb2 import SubscribeRequest
from tests.support.ports import free_address
from tests.unit.client.conftest import Waits
from tests.unit.client.fake_hub import FakeHub, message


async def take(subscription: Subscription, count: int) -> list[int]:
    return [(await anext(subscription)).sequence for _ in range(count)]


def forever() -> object:
    return asyncio.get_running_loop().create_future()


async def test_an_event_says_everything(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.append([message(cursor="cursor-0"), message(1), forever()])
    async with hub.subscribe() as events:
        event = await anext(events)
    assert event.id == "character_db/e1/1"
    assert (event.source, event.subject) == ("character", "character_db")
    assert event.type == "storage.operation_completed"
    assert event.time == datetime.fromtimestamp(1_764_000_000.123, UTC)
    assert event.correlation_id == "c-1"
    assert isinstance(event.data, OperationCompleted)
    assert event.data.rows_affected == 1
    assert event.cursor == "cursor-1"


async def test_bytes_of_a_service_come_unchanged(hub: Hub, fake: FakeHub) -> None:
    custom = message(1)
    custom.events[0].custom = b"\0\xff"
    fake.subscribe.append([custom, forever()])
    async with hub.subscribe() as events:
        assert (await anext(events)).data == b"\0\xff"


async def test_filters_are_sent_and_a_single_name_is_one_name(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.append([message(cursor="cursor-0"), forever()])
    async with hub.subscribe(
        types="storage.*", databases=["a", "b"], sources=("auth",), correlation_id="c"
    ):
        pass
    [request] = fake.requests
    assert list(request.event_types) == ["storage.*"]
    assert list(request.databases) == ["a", "b"]
    assert list(request.sources) == ["auth"]
    assert request.correlation_id == "c"
    assert request.source_service == "character"


@pytest.mark.parametrize(
    ("start", "kind", "sent"),
    [(LATEST, "latest", True), (EARLIEST, "earliest", True), ("cursor-9", "cursor", "cursor-9")],
)
async def test_where_it_starts(
    hub: Hub, fake: FakeHub, start: str, kind: str, sent: object
) -> None:
    fake.subscribe.append([message(cursor="cursor-9"), forever()])
    async with hub.subscribe(start=start):
        pass
    assert fake.requests[0].WhichOneof("start") == kind
    assert getattr(fake.requests[0], kind) == sent


async def test_a_cut_stream_goes_on_after_the_last_message(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.extend(
        [
            [message(cursor="cursor-0"), message(1, 2), ShuttingDown("later")],
            [StorageUnavailable("gone")],
            [message(cursor="cursor-2"), message(3)],  # ends without an error
            [message(4, 5), forever()],
        ]
    )
    async with hub.subscribe() as events:
        assert await take(events, 5) == [1, 2, 3, 4, 5]
    assert [request.cursor for request in fake.requests] == [
        "",
        "cursor-2",
        "cursor-2",
        "cursor-3",
    ]


async def test_events_in_hand_come_before_a_reconnect(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.extend([[message(1, 2, 3), ShuttingDown("later")], [message(4), forever()]])
    async with hub.subscribe(start=EARLIEST) as events:
        assert await take(events, 4) == [1, 2, 3, 4]
    assert fake.requests[1].cursor == "cursor-3"


async def test_heartbeats_move_the_bookmark(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.extend(
        [
            [message(1), message(cursor="cursor-50"), ShuttingDown("later")],
            [message(51), forever()],
        ]
    )
    async with hub.subscribe() as events:
        assert await take(events, 2) == [1, 51]
    assert fake.requests[1].cursor == "cursor-50"


async def test_a_bookmark_never_skips(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.append([message(cursor="cursor-0"), message(1, 2, 3), message(4), forever()])
    async with hub.subscribe() as events:
        assert events.cursor == "cursor-0"
        seen = [await anext(events) for _ in range(2)]
        assert [event.cursor for event in seen] == ["cursor-0", "cursor-0"]
        assert events.cursor == "cursor-0"
        assert (await anext(events)).cursor == "cursor-3"
        assert events.cursor == "cursor-3"
        assert (await anext(events)).cursor == "cursor-4"


async def test_a_timeout_around_the_next_event_loses_nothing(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.extend([[message(1), forever()], [message(2), forever()]])
    async with hub.subscribe() as events:
        assert await take(events, 1) == [1]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
        assert await take(events, 1) == [2]
    assert fake.requests[1].cursor == "cursor-1"


async def test_silence_is_a_cut(fake: FakeHub, hub: Hub) -> None:
    fake.subscribe.extend([[message(1), forever()], [message(2), forever()]])
    stub = event_service_pb2_grpc.EventServiceStub(hub.channel)
    events = Subscription(
        stub.Subscribe,
        SubscribeRequest(source_service="character"),
        LATEST,
        AssertionError,
        Retries(),
        timeout=20.0,
        silence_max=0.2,
    )
    assert await take(events, 2) == [1, 2]
    events.close()


@pytest.mark.parametrize("failure", [CursorExpired("old"), AccessDenied("no")])
async def test_what_waiting_cannot_cure_is_raised(
    hub: Hub, fake: FakeHub, failure: Exception
) -> None:
    fake.subscribe.append([message(1), failure])
    async with hub.subscribe() as events:
        await take(events, 1)
        with pytest.raises(type(failure)):
            await anext(events)


async def test_leaving_the_block_ends_the_stream(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.append([message(1, 2), forever()])
    async with hub.subscribe() as events:
        assert await take(events, 1) == [1]
    async with asyncio.timeout(10):
        await fake.cancelled.wait()
    assert [event async for event in events] == []


async def test_leaving_the_loop_ends_the_stream(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.append([message(1), forever()])
    async for _ in hub.subscribe():
        break
    async with asyncio.timeout(10):
        await fake.cancelled.wait()


async def test_the_first_connection_is_bounded(hub: Hub, fake: FakeHub) -> None:
    fake.subscribe.append([StorageUnavailable("gone", retry_after=1000.0)])
    with pytest.raises(StorageUnavailable, match="gone"):
        await anext(hub.subscribe())


async def test_a_reconnection_takes_as_long_as_it_takes(
    hub: Hub, fake: FakeHub, waits: Waits
) -> None:
    gone = [StorageUnavailable("gone", retry_after=1000.0)]
    fake.subscribe.extend([[message(1), *gone], *[gone] * 20, [message(2), forever()]])
    async with hub.subscribe() as events:
        assert await take(events, 2) == [1, 2]
    assert sum(waits.seconds) > 21_000


async def test_a_hub_that_is_away_is_told() -> None:
    async with Hub(free_address(), service="a", retries=Retries(attempts_max=2)) as hub:
        with pytest.raises(StorageUnavailable, match="cannot be reached"):
            await anext(hub.subscribe())
