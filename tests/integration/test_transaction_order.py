"""Transactions that want the same databases in opposite orders: none waits for ever.

A deadlock would show as calls that use up all of their time; here every call must be answered with
its commit, through one hub, whose lock table knows all of them, and through two, which meet only in
the storage server.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from messagehub.client import Hub, Operation
from tests.support.servers import running_hub, running_servers

if TYPE_CHECKING:
    from pathlib import Path

ORDERS: Final = (("auth_db", "campaign_db"), ("campaign_db", "auth_db"))
AT_ONCE: Final = 20
BLOCKS: Final = 50
# For all of them: a call that waits in a circle would take that long by itself.
SECONDS_MAX: Final = 100.0
COUNT: Final = "UPDATE counted SET n = n + 1"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def addresses(tmp_path_factory: Any) -> AsyncIterator[list[str]]:
    """Two hubs over one storage server."""
    directory: Path = tmp_path_factory.mktemp("order")
    async with (
        running_servers(directory) as servers,
        running_hub(servers.storage.address) as other,
    ):
        yield [servers.hub.address, other.address]


@pytest_asyncio.fixture(loop_scope="session", params=[1, 2], ids=["one-hub", "two-hubs"])
async def hubs(addresses: list[str], request: pytest.FixtureRequest) -> AsyncIterator[list[Hub]]:
    chosen = addresses[: request.param]
    hubs = [Hub(one, service="character", timeout=SECONDS_MAX) for one in chosen]
    for database in ORDERS[0]:
        await hubs[0].execute("DROP TABLE IF EXISTS counted", database=database)
        await hubs[0].execute("CREATE TABLE counted AS SELECT 0 AS n", database=database)
    yield hubs
    for hub in hubs:
        await hub.close()


async def counts(hub: Hub) -> list[object]:
    """Both numbers, once nothing is under way that is decided already."""
    done = await hub.execute_transaction(
        [Operation("SELECT n FROM counted", database=name) for name in ORDERS[0]], read_only=True
    )
    return [result.rows[0][0] for result in done.results]


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.soak)])
async def test_calls(hubs: list[Hub], count: int) -> None:
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            order = ORDERS[number % 2]
            await hubs[number // 2 % len(hubs)].execute_transaction(
                [Operation(COUNT, database=database) for database in order]
            )

    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())
    assert await counts(hubs[0]) == [count] * 2


async def test_blocks(hubs: list[Hub]) -> None:
    numbers = iter(range(BLOCKS))

    async def run(hub: Hub, order: Sequence[str]) -> None:
        async with hub.transaction(*order) as transaction:
            for database in order:
                await transaction.execute(COUNT, database=database)

    async def work() -> None:
        for number in numbers:
            await run(hubs[number // 2 % len(hubs)], ORDERS[number % 2])

    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE // 2):
            tasks.create_task(work())
    assert await counts(hubs[0]) == [BLOCKS] * 2
