"""A journal waits for a named subscription, and no longer than it may."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from messagehub import Hub
from messagehub.events import EARLIEST
from messagehub.v1 import event_service_pb2_grpc
from tests.integration.test_named_subscriptions import acknowledge, take
from tests.integration.test_subscribe import subscribed
from tests.support.calls import SERVICE
from tests.support.refusals import refused
from tests.support.servers import Servers, running_servers

SECONDS_MAX = 20


@asynccontextmanager
async def small_databases(tmp_path: Any) -> AsyncIterator[Servers]:
    """Servers whose journals keep five entries, and wait for names that are 20 behind."""
    storage = {
        "journal_rows_max": 5,
        "trim_every_seconds": 0.05,
        "subscription_lag_rows_max": 20,
    }
    async with running_servers(tmp_path, storage=storage) as servers:
        yield servers


async def oldest(hub: Hub) -> int:
    """The sequence of the oldest event that is kept."""
    stream = hub.subscribe(start=EARLIEST)
    async with asyncio.timeout(SECONDS_MAX):
        first = await anext(stream)
    stream.close()
    return first.sequence


async def trimmed_to(hub: Hub, sequence: int) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while await oldest(hub) < sequence:  # noqa: ASYNC110 - the server has no bell for it
            await asyncio.sleep(0.02)


async def test_a_journal_waits_for_a_name_and_no_longer_than_it_may(tmp_path: Any) -> None:
    async with (
        small_databases(tmp_path) as servers,
        Hub(servers.hub.address, service=SERVICE) as hub,
        Hub(servers.hub.address, service="auth") as witness,
    ):
        await hub.execute("CREATE TABLE t (n)")
        async with hub.subscribe(subscription="slow") as slow:
            before = (await hub.subscriptions()).subscriptions[0].cursor
        # Trimming runs; the other database, where nobody waits, shows that it has been here.
        for n in range(15):
            await hub.execute("INSERT INTO t VALUES (?)", [n])
            await witness.execute(f"CREATE TABLE t{n} (n)")
        await trimmed_to(witness, 10)
        assert await oldest(hub) == 2, "the entry after the one where the name began is kept"
        async with hub.subscribe(subscription="slow") as slow:
            assert len(await take(slow, 5)) == 5
            await slow.acknowledge()
        await trimmed_to(hub, 7)
        for n in range(21):
            await hub.execute("INSERT INTO t VALUES (?)", [n])
        await trimmed_to(hub, 33)
        (found,) = (await hub.subscriptions()).subscriptions
        assert found.HasField("cut_off_time")
        assert found.lag_events == 31
        stub = event_service_pb2_grpc.EventServiceStub(hub.channel)
        with refused("OUT_OF_RANGE", "CURSOR_EXPIRED") as refusal:
            await acknowledge(stub, "slow", before)
        async with subscribed(stub, subscription="slow") as reader:
            with refused("OUT_OF_RANGE", "CURSOR_EXPIRED") as refusal:
                await reader.message()
        assert refusal.metadata["oldest_cursor"] == found.cursor
        # Whoever accepts the loss begins again at the oldest cursor.
        await hub.delete_subscription("slow")
        async with hub.subscribe(
            subscription="slow", start=refusal.metadata["oldest_cursor"]
        ) as again:
            first = await anext(again)
            assert first.sequence == 33
            await again.acknowledge()
