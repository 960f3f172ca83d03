"""EventService over real gRPC, with a scripted storage server behind it."""

from contextlib import AsyncExitStack

import grpc
import pytest

from hub.core.events import cursor
from hub.core.events.journal import Position
from messagehub.v1 import event_service_pb2 as messages
from tests.support.ports import free_address
from tests.support.refusals import refused
from tests.unit.hub.events.event_hub import OWN, SERVICES, Operations, hub_before
from tests.unit.hub.events.journal_model import Model, serving
from tests.unit.hub.fake_storage import soon, until


@pytest.fixture
def model():
    return Model(*SERVICES.values())


@pytest.fixture
async def hub(model):
    async with serving(model) as address, hub_before(address, Operations()) as hub:
        yield hub


def subscribe(hub, *, source_service="character", **fields):
    return hub.stub.Subscribe(
        messages.SubscribeRequest(source_service=source_service, **fields), timeout=20
    )


async def events_of(stream, count):
    """The next `count` events and the cursor after them; heartbeats are passed by."""
    events = []
    response = None
    while len(events) < count:
        response = await soon(stream.read())
        assert response is not grpc.aio.EOF
        events += response.events
    return events, response.cursor


async def first_of(stream):
    response = await soon(stream.read())
    assert isinstance(response, messages.SubscribeResponse)
    return response


def sequence_of(text, database=OWN):
    return cursor.decode(text)[database].sequence


# Subscribe.


async def test_events_arrive_unchanged_and_in_order(hub, model):
    stream = subscribe(hub, latest=True)
    first = await first_of(stream)
    assert (list(first.events), sequence_of(first.cursor)) == ([], 0)
    model.commit(OWN, "a.b", "a.c", transaction_id="t", correlation_id="c", size=10)
    model.commit(OWN)
    events, last = await events_of(stream, 3)
    assert events == model.databases[OWN].events
    assert sequence_of(last) == 3
    stream.cancel()


async def test_silence_is_filled_with_heartbeats_that_carry_the_cursor(hub, model):
    stream = subscribe(hub, event_types=["wanted.*"])
    await first_of(stream)
    model.commit(OWN, "other.x")
    heartbeats = [await first_of(stream) for _ in range(3)]
    assert [list(heartbeat.events) for heartbeat in heartbeats] == [[], [], []]
    assert sequence_of(heartbeats[-1].cursor) == 1
    stream.cancel()


async def test_without_databases_a_service_sees_its_own(hub, model):
    stream = subscribe(hub)
    assert set(cursor.decode((await first_of(stream)).cursor)) == {OWN}
    stream.cancel()


async def test_a_star_is_every_database_that_the_service_may_read(hub, model):
    stream = subscribe(hub, databases=["*"], earliest=True)
    assert set(cursor.decode((await first_of(stream)).cursor)) == {OWN, "auth_db"}
    model.commit("metrics_db")
    model.commit("auth_db")
    events, _ = await events_of(stream, 1)
    assert [event.subject for event in events] == ["auth_db"]
    stream.cancel()


async def test_all_filters_must_match(hub, model):
    stream = subscribe(hub, event_types=["a.*"], sources=["auth"], correlation_id="wanted")
    await first_of(stream)
    model.commit(OWN, "a.b", source="auth", correlation_id="other")
    model.commit(OWN, "a.b", source="character", correlation_id="wanted")
    model.commit(OWN, "b.c", source="auth", correlation_id="wanted")
    model.commit(OWN, "a.b", source="auth", correlation_id="wanted")
    events, last = await events_of(stream, 1)
    assert [event.sequence for event in events] == [4]
    assert sequence_of(last) == 4
    stream.cancel()


async def test_a_cursor_goes_on_right_after_it_also_in_another_hub(model):
    async with serving(model) as address:
        async with hub_before(address, Operations()) as first:
            stream = subscribe(first, earliest=True)
            for _ in range(3):
                model.commit(OWN)
            _, kept = await events_of(stream, 3)
            stream.cancel()
        model.commit(OWN)
        async with hub_before(address, Operations()) as second:
            stream = subscribe(second, cursor=kept)
            events, _ = await events_of(stream, 1)
            assert [event.sequence for event in events] == [4]
            stream.cancel()


async def test_subscribers_stay_connected_while_the_storage_server_is_away(model):
    address = free_address()
    async with AsyncExitStack() as stack:
        storage = AsyncExitStack()
        await storage.enter_async_context(serving(model, address))
        hub = await stack.enter_async_context(hub_before(address, Operations()))
        stream = subscribe(hub)
        kept = (await first_of(stream)).cursor
        await until(lambda: model.tails_open == 1)
        await storage.aclose()
        for _ in range(3):
            assert list((await first_of(stream)).events) == []
        resumed = subscribe(hub, cursor=kept)
        assert list((await first_of(resumed)).events) == []
        with refused("UNAVAILABLE", "STORAGE_UNAVAILABLE") as refusal:
            await soon(subscribe(hub, latest=True).read())
        assert refusal.retry_seconds is not None
        model.commit(OWN)
        await stack.enter_async_context(serving(model, address))
        for one in (stream, resumed):
            events, _ = await events_of(one, 1)
            assert [event.sequence for event in events] == [1]
            one.cancel()


async def test_closing_ends_streams_cleanly_after_a_last_message(hub, model):
    stream = subscribe(hub)
    await first_of(stream)
    model.commit(OWN)
    await events_of(stream, 1)
    await hub.service.close()
    responses = []
    while (response := await soon(stream.read())) is not grpc.aio.EOF:
        responses.append(response)
    assert sequence_of(responses[-1].cursor) == 1
    assert await stream.code() is grpc.StatusCode.OK
    with refused("UNAVAILABLE", "SHUTTING_DOWN") as refusal:
        await soon(subscribe(hub).read())
    assert refusal.retry_seconds is not None


async def test_a_caller_that_goes_away_gives_its_place_back(model):
    async with (
        serving(model) as address,
        hub_before(address, Operations(), subscriptions_max=1) as hub,
    ):
        stream = subscribe(hub)
        await first_of(stream)
        with refused("RESOURCE_EXHAUSTED", "QUEUE_FULL") as refusal:
            await soon(subscribe(hub).read())
        assert refusal.metadata["limit"] == "1"
        stream.cancel()
        await until(lambda: not hub.fanout._open)
        again = subscribe(hub)
        await first_of(again)
        again.cancel()


async def test_a_caller_that_stops_reading_holds_nobody_up(hub, model):
    stalled = subscribe(hub, earliest=True)
    await first_of(stalled)
    live = subscribe(hub)
    await first_of(live)
    for _ in range(100):
        model.commit(OWN, size=5_000)
    events, _ = await events_of(live, 100)
    assert [event.sequence for event in events] == list(range(1, 101))
    events, _ = await events_of(stalled, 100)
    assert [event.sequence for event in events] == list(range(1, 101))
    live.cancel()
    stalled.cancel()


# What is refused.


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"source_service": ""}, "source_service"),
        ({"earliest": False}, "earliest"),
        ({"latest": False}, "latest"),
        ({"event_types": ["a.*", "Upper.*"]}, "event_types[1]"),
        ({"event_types": ["a.*"] * 129}, "event_types"),
        ({"sources": [""]}, "sources[0]"),
        ({"sources": ["a\n"]}, "sources[0]"),
    ],
)
async def test_a_bad_field_is_named(hub, fields, field):
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        await soon(subscribe(hub, **fields).read())
    assert list(refusal.fields) == [field]


async def test_an_unknown_service_has_no_route(hub):
    with refused("NOT_FOUND", "INVALID_ROUTE") as refusal:
        await soon(subscribe(hub, source_service="nobody").read())
    assert list(refusal.fields) == ["source_service"]


async def test_an_unknown_database_has_no_route(hub):
    with refused("NOT_FOUND", "INVALID_ROUTE") as refusal:
        await soon(subscribe(hub, databases=[OWN, "nowhere_db"]).read())
    assert list(refusal.fields) == ["databases[1]"]


async def test_a_database_without_grant_is_denied(hub):
    with refused("PERMISSION_DENIED", "ACCESS_DENIED"):
        await soon(subscribe(hub, databases=["metrics_db"]).read())


@pytest.mark.parametrize("text", ["", "nonsense", "AAAA", "ä"])
async def test_a_malformed_cursor_says_what_to_do(hub, text):
    with refused("INVALID_ARGUMENT", "INVALID_CURSOR") as refusal:
        await soon(subscribe(hub, cursor=text).read())
    assert "earliest or latest" in refusal.message
    assert list(refusal.fields) == ["cursor"]


async def test_a_cursor_with_other_databases_is_refused(hub, model):
    epoch = model.databases[OWN].epoch
    other = cursor.encode({OWN: Position(epoch, 0), "auth_db": Position(epoch, 0)})
    with refused("INVALID_ARGUMENT", "INVALID_CURSOR") as refusal:
        await soon(subscribe(hub, cursor=other).read())
    assert "auth_db" in refusal.message


async def test_an_expired_cursor_is_refused_with_one_that_works(hub, model):
    for _ in range(5):
        model.commit(OWN)
    model.trim(OWN, 3)
    old = cursor.encode({OWN: Position(model.databases[OWN].epoch, 1)})
    with refused("OUT_OF_RANGE", "CURSOR_EXPIRED") as refusal:
        await soon(subscribe(hub, cursor=old).read())
    assert refusal.metadata["database"] == OWN
    stream = subscribe(hub, cursor=refusal.metadata["oldest_cursor"])
    events, _ = await events_of(stream, 2)
    assert [event.sequence for event in events] == [4, 5]
    stream.cancel()


async def test_a_cursor_of_another_epoch_is_refused_with_one_that_works(hub, model):
    model.commit(OWN)
    old = cursor.encode({OWN: Position("0e0e", 1)})
    with refused("FAILED_PRECONDITION", "CURSOR_EPOCH_CHANGED") as refusal:
        await soon(subscribe(hub, cursor=old).read())
    stream = subscribe(hub, cursor=refusal.metadata["oldest_cursor"])
    await events_of(stream, 1)
    stream.cancel()


async def test_the_oldest_cursor_of_forty_databases_is_told_whole():
    services = {f"service_{n}": f"a_database_with_a_long_name_{n}_db" for n in range(40)}
    model = Model(*services.values())
    for database in services.values():
        for _ in range(3):
            model.commit(database)
    reader = next(iter(services))
    async with (
        serving(model) as address,
        hub_before(address, Operations(), services, grants=None) as hub,
    ):
        stream = subscribe(hub, source_service=reader, databases=["*"], earliest=True)
        _, seen = await events_of(stream, 3 * len(services))
        stream.cancel()
        beginning = {
            name: Position(position.epoch, 0) for name, position in cursor.decode(seen).items()
        }
        assert len(beginning) == len(services)
        for database in services.values():
            model.trim(database, 2)
        lost = cursor.encode(beginning)
        for _ in services:
            stream = subscribe(hub, source_service=reader, databases=["*"], cursor=lost)
            with refused("OUT_OF_RANGE", "CURSOR_EXPIRED") as refusal:
                await events_of(stream, len(services) + 1)
            lost = refusal.metadata["oldest_cursor"]
        found = {position.sequence for position in cursor.decode(lost).values()}
        assert found <= {2, 3}
        stream = subscribe(hub, source_service=reader, databases=["*"], cursor=lost)
        assert (await first_of(stream)).cursor
        stream.cancel()
