"""Named subscriptions through the client and bare stubs: resumed, exclusive, listed, deleted."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from messagehub import Hub
from messagehub.errors import SubscriptionInUse
from messagehub.events import EARLIEST, Subscription
from messagehub.v1 import event_service_pb2 as messages
from messagehub.v1 import event_service_pb2_grpc
from tests.integration.test_subscribe import ids, live, subscribed, write
from tests.support.calls import CALL_SECONDS, SERVICE
from tests.support.refusals import refused
from tests.support.servers import Servers, running_hub, running_servers

SECONDS_MAX = 20
LEASE_SECONDS = 2.0


@pytest.fixture(scope="module")
def hub_settings() -> dict[str, Any]:
    return {"heartbeat_seconds": 0.2, "subscription_lease_seconds": LEASE_SECONDS}


@pytest.fixture
def name() -> str:
    return f"n{uuid.uuid4().hex}"


@pytest_asyncio.fixture(loop_scope="session")
async def hub(servers: Servers) -> AsyncIterator[Hub]:
    async with Hub(servers.hub.address, service=SERVICE) as client:
        yield client


async def acknowledge(stub: Any, name: str, cursor: str = "", **fields: Any) -> None:
    request = messages.AcknowledgeEventsRequest(
        **{"source_service": SERVICE, "subscription": name, "cursor": cursor} | fields
    )
    await stub.AcknowledgeEvents(request, timeout=CALL_SECONDS)


async def listed(stub: Any, name: str, service: str = SERVICE) -> messages.Subscription:
    request = messages.ListSubscriptionsRequest(source_service=service)
    answer = await stub.ListSubscriptions(request, timeout=CALL_SECONDS)
    assert list(answer.unavailable_databases) == []
    (found,) = [one for one in answer.subscriptions if one.subscription == name]
    return found


async def delete(stub: Any, name: str, service: str = SERVICE) -> None:
    request = messages.DeleteSubscriptionRequest(source_service=service, subscription=name)
    await stub.DeleteSubscription(request, timeout=CALL_SECONDS)


async def free(stub: Any, name: str) -> None:
    """Waits until no stream reads for a name."""
    async with asyncio.timeout(SECONDS_MAX):
        while (await listed(stub, name)).active:  # noqa: ASYNC110 - the server has no bell for it
            await asyncio.sleep(0.01)


async def take(stream: Subscription, count: int) -> list[str]:
    async with asyncio.timeout(SECONDS_MAX):
        return [(await anext(stream)).id for _ in range(count)]


async def test_a_name_goes_on_after_what_was_acknowledged(
    storage_stub: Any, event_stub: Any, table: str, name: str
) -> None:
    async with live(event_stub, subscription=name) as reader:
        created = await write(storage_stub, f"CREATE TABLE {table} (n)")
        await reader.until(created)
        await acknowledge(event_stub, name, reader.cursor)
        inserted = await write(storage_stub, f"INSERT INTO {table} VALUES (1)")
        await reader.until(inserted)
    await free(event_stub, name)
    missed = await write(storage_stub, f"INSERT INTO {table} VALUES (2)")
    for start in ({}, {"latest": True}, {"earliest": True}):
        async with live(event_stub, subscription=name, **start) as reader:
            assert ids(await reader.until(missed)) == [inserted, missed]
        await free(event_stub, name)
    await delete(event_stub, name)


async def test_nothing_after_the_first_message_is_lost(
    storage_stub: Any, event_stub: Any, table: str, name: str
) -> None:
    """Whoever hears of the beginning may go away at once; nobody has acknowledged anything."""
    async with live(event_stub, subscription=name) as reader:
        begin = reader.cursor
    created = await write(storage_stub, f"CREATE TABLE {table} (n)")
    await free(event_stub, name)
    async with live(event_stub, subscription=name) as reader:
        assert reader.cursor == begin
        assert ids(await reader.until(created)) == [created]


async def test_a_new_name_may_begin_at_the_earliest_or_at_a_cursor(
    storage_stub: Any, event_stub: Any, table: str, name: str
) -> None:
    created = await write(storage_stub, f"CREATE TABLE {table} (n)", service="metrics")
    mine = {"source_service": "metrics"}
    async with live(event_stub, **mine) as reader:
        cursor = reader.cursor
    dropped = await write(storage_stub, f"DROP TABLE {table}", service="metrics")
    async with live(event_stub, subscription=name, earliest=True, **mine) as reader:
        assert ids(await reader.until(dropped))[-2:] == [created, dropped]
    async with subscribed(event_stub, subscription=f"{name}-2", cursor=cursor, **mine) as reader:
        assert ids(await reader.until(dropped)) == [dropped]


async def test_one_stream_over_all_hubs_reads_for_a_name(
    servers: Servers, event_stub: Any, name: str
) -> None:
    async with (
        running_hub(servers.storage.address) as other,
        grpc.aio.insecure_channel(other.address) as channel,
    ):
        other_stub = event_service_pb2_grpc.EventServiceStub(channel)
        async with live(event_stub, subscription=name, consumer="worker-1"):
            for stub in (event_stub, other_stub):
                async with subscribed(stub, subscription=name) as second:
                    with refused("FAILED_PRECONDITION", "SUBSCRIPTION_IN_USE") as refusal:
                        await second.message()
                assert refusal.metadata == {"consumer": "worker-1"}
                assert refusal.retry_seconds is not None
                assert 0 < refusal.retry_seconds <= LEASE_SECONDS
            assert (await listed(other_stub, name)).consumer == "worker-1"
            with refused("FAILED_PRECONDITION", "SUBSCRIPTION_IN_USE"):
                await delete(other_stub, name)
            # Another service's name is another name.
            mine = {"source_service": "auth", "databases": ["character_db"]}
            async with live(other_stub, subscription=name, **mine):
                pass
        await free(other_stub, name)
        async with live(other_stub, subscription=name):
            pass


async def test_a_stream_keeps_its_name_for_longer_than_a_lease(event_stub: Any, name: str) -> None:
    async with live(event_stub, subscription=name) as reader:
        until = asyncio.get_running_loop().time() + 1.5 * LEASE_SECONDS
        while asyncio.get_running_loop().time() < until:
            await reader.message()
        async with subscribed(event_stub, subscription=name) as second:
            with refused("FAILED_PRECONDITION", "SUBSCRIPTION_IN_USE"):
                await second.message()


async def test_a_consumer_takes_over_from_itself(event_stub: Any, name: str) -> None:
    async with (
        live(event_stub, subscription=name, consumer="worker-1") as old,
        live(event_stub, subscription=name, consumer="worker-1") as new,
    ):
        with refused("FAILED_PRECONDITION", "SUBSCRIPTION_IN_USE"):
            while True:
                await old.message()
        await new.message()
        assert (await listed(event_stub, name)).active


async def test_a_name_over_all_databases(
    storage_stub: Any, event_stub: Any, table: str, name: str
) -> None:
    services = ("auth", "campaign", "character")
    async with live(event_stub, subscription=name, databases=["*"]) as reader:
        written = [
            await write(storage_stub, f"CREATE TABLE {table} (n)", service=service)
            for service in services
        ]
        await reader.until(*written)
        found = await listed(event_stub, name)
        assert list(found.databases) == [
            "auth_db",
            "campaign_db",
            "catalog_db",
            "character_db",
            "metrics_db",
        ]
        assert found.lag_events == 3
        assert found.lag_duration.ToMicroseconds() > 0
        # Everything in two of the databases; in the third one nothing.
        handled = [event.id for event in reader.events if event.subject != "auth_db"]
        await acknowledge(event_stub, name, event_ids=handled)
        assert (await listed(event_stub, name)).lag_events == 1
    await free(event_stub, name)
    async with live(event_stub, subscription=name, databases=["*"]) as reader:
        assert ids(await reader.until(written[0])) == [written[0]]
    await free(event_stub, name)
    async with subscribed(event_stub, subscription=name) as reader:
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
            await reader.message()
    assert list(refusal.fields) == ["databases"]
    await delete(event_stub, name)
    with refused("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND"):
        await delete(event_stub, name)


async def test_how_a_name_stands(storage_stub: Any, event_stub: Any, table: str, name: str) -> None:
    async with live(event_stub, subscription=name) as reader:
        begun = await listed(event_stub, name)
        assert (begun.source_service, begun.active, begun.lag_events) == (SERVICE, True, 0)
        assert begun.cursor == reader.cursor
        assert begun.lag_duration.ToMicroseconds() == 0
        assert not begun.HasField("acknowledge_time")
        created = await write(storage_stub, f"CREATE TABLE {table} (n)")
        first = await listed(event_stub, name)
        second = await listed(event_stub, name)
        assert first.lag_events == second.lag_events == 1
        waiting = [one.lag_duration.ToMicroseconds() for one in (first, second)]
        assert 0 < waiting[0] < waiting[1], "by the clock, while nothing happens"
        await reader.until(created)
        await acknowledge(event_stub, name, reader.cursor)
        done = await listed(event_stub, name)
        assert (done.cursor, done.lag_events) == (reader.cursor, 0)
        assert done.HasField("acknowledge_time")
        assert not done.HasField("cut_off_time")


async def test_acknowledging_is_monotonic_and_may_be_repeated(
    storage_stub: Any, event_stub: Any, table: str, name: str
) -> None:
    async with live(event_stub, subscription=name) as reader:
        older = reader.cursor
        await reader.until(await write(storage_stub, f"CREATE TABLE {table} (n)"))
        newer = reader.cursor
    for cursor in (newer, newer, older):
        await acknowledge(event_stub, name, cursor)
        assert (await listed(event_stub, name)).cursor == newer


async def test_what_cannot_have_been_handled_is_refused(
    event_stub: Any, tmp_path: Any, name: str
) -> None:
    async with live(event_stub, subscription=name) as reader:
        cursor = reader.cursor
        async with (
            running_servers(tmp_path) as others,
            grpc.aio.insecure_channel(others.hub.address) as channel,
            live(event_service_pb2_grpc.EventServiceStub(channel)) as stranger,
        ):
            strange = stranger.cursor
        with refused("FAILED_PRECONDITION", "CURSOR_EPOCH_CHANGED") as refusal:
            await acknowledge(event_stub, name, strange)
        assert refusal.metadata["oldest_cursor"]
        events, epoch, _ = (await one_event(event_stub)).split("/")
        with refused("FAILED_PRECONDITION", "CURSOR_EPOCH_CHANGED"):
            await acknowledge(event_stub, name, event_ids=[f"{events}/{epoch}/999999999"])
        with refused("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND"):
            await acknowledge(event_stub, "nobody", cursor)
        with refused("INVALID_ARGUMENT", "INVALID_CURSOR"):
            await acknowledge(event_stub, name, "nonsense")
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
            await acknowledge(event_stub, name)
        with refused("NOT_FOUND", "INVALID_ROUTE"):
            await acknowledge(event_stub, name, cursor, source_service="nobody")
        with refused("NOT_FOUND", "INVALID_ROUTE") as refusal:
            await acknowledge(event_stub, name, event_ids=["nowhere_db/00/1"])
        assert (await listed(event_stub, name)).cursor == cursor


async def one_event(stub: Any) -> str:
    async with subscribed(stub, earliest=True) as reader:
        while not reader.events:
            await reader.message()
        return reader.events[0].id


async def test_the_client_goes_on_from_its_name(hub: Hub, table: str, name: str) -> None:
    await hub.execute(f"CREATE TABLE {table} (n)")
    async with hub.subscribe(subscription=name) as events:
        for n in range(6):
            await hub.execute(f"INSERT INTO {table} VALUES (?)", [n])
        first = await take(events, 3)
        await events.acknowledge()
        assert (await events.lag()).events == 3
        second = await take(events, 3)
    assert len(set(first + second)) == 6
    async with hub.subscribe(subscription=name, start=EARLIEST) as events:
        assert await take(events, 2) == second[:2]
        await events.acknowledge()
    async with hub.subscribe(subscription=name) as events:
        assert await take(events, 1) == second[2:]
        await events.acknowledge()
        assert (await events.lag()).events == 0
    await hub.delete_subscription(name)


async def test_the_client_acknowledges_by_itself(hub: Hub, table: str, name: str) -> None:
    await hub.execute(f"CREATE TABLE {table} (n)")
    async with hub.subscribe(subscription=name, acknowledge=True) as events:
        for n in range(5):
            await hub.execute(f"INSERT INTO {table} VALUES (?)", [n])
        await take(events, 4)
    assert (await hub.subscribe(subscription=name).lag()).events == 1


async def test_the_client_waits_for_a_name_and_gets_it(hub: Hub, name: str) -> None:
    first = hub.subscribe(subscription=name)
    async with first:
        waiting = asyncio.create_task(hub.subscribe(subscription=name).__aenter__())
        await asyncio.sleep(0)
    async with asyncio.timeout(SECONDS_MAX):
        second = await waiting
    second.close()


async def test_the_client_gives_a_name_up_that_stays_in_use(servers: Servers, name: str) -> None:
    async with (
        Hub(servers.hub.address, service=SERVICE) as patient,
        Hub(servers.hub.address, service=SERVICE, timeout=0.5) as hasty,
        patient.subscribe(subscription=name),
    ):
        with pytest.raises(SubscriptionInUse):
            await anext(hasty.subscribe(subscription=name))


async def test_a_hub_that_stops_frees_its_names(
    servers: Servers, event_stub: Any, name: str
) -> None:
    async with running_hub(servers.storage.address) as other:
        channel = grpc.aio.insecure_channel(other.address)
        stub = event_service_pb2_grpc.EventServiceStub(channel)
        call = stub.Subscribe(messages.SubscribeRequest(source_service=SERVICE, subscription=name))
        await call.read()
    assert not (await listed(event_stub, name)).active
    await channel.close()
