"""Hub and storage begin and begin again in any order; all of it converges without hand work."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from messagehub.client import Hub
from messagehub.v1 import storage_service_pb2_grpc
from tests.support.calls import SERVICE, rows, run_async
from tests.support.health import NOT_SERVING, SERVING, check, wait_for_status
from tests.support.ports import free_address
from tests.support.processes import Processes, ServerProcess, running_processes
from tests.support.refusals import refused

DATABASE_HEALTH = "storage.character_db"
HUB, STORAGE = "hub", "storage"


@pytest_asyncio.fixture(loop_scope="session")
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    async with running_processes(tmp_path) as running:
        yield running


class Pair:
    """A hub and a storage server that find each other at one address."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._address = free_address()
        self._running: dict[str, ServerProcess] = {}

    def __getitem__(self, name: str) -> ServerProcess:
        if name not in self._running:
            self._running[name] = (
                self._processes.hub(self._address)
                if name == HUB
                else self._processes.storage(address=self._address)
            )
        return self._running[name]


async def test_a_hub_waits_for_its_storage_server(processes: Processes) -> None:
    pair = Pair(processes)
    hub = pair[HUB]
    await hub.ready("liveness")
    assert await check(hub.address) == NOT_SERVING
    async with grpc.aio.insecure_channel(hub.address) as channel:
        stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        with refused("UNAVAILABLE", "STORAGE_UNAVAILABLE") as refusal:
            await run_async(stub, "SELECT 1")
        assert refusal.retry_seconds is not None
        await pair[STORAGE].ready()
        await hub.ready(DATABASE_HEALTH)
        assert rows(await run_async(stub, "SELECT 1")) == [(1,)]


async def test_a_storage_server_waits_for_its_hub(processes: Processes) -> None:
    pair = Pair(processes)
    await pair[STORAGE].ready()
    await pair[HUB].ready(DATABASE_HEALTH)
    async with Hub(pair[HUB].address, service=SERVICE) as hub:
        assert (await hub.execute("SELECT 1")).rows == [(1,)]


async def test_a_call_that_was_made_before_both_is_answered(processes: Processes) -> None:
    """The client retries until its deadline, whatever is missing at first."""
    pair = Pair(processes)
    async with Hub(pair[HUB].address, service=SERVICE) as hub:
        await pair[HUB].ready("liveness")
        pair[HUB].kill()
        calling = asyncio.create_task(hub.execute("SELECT 1"))
        pair[HUB].start()
        await pair[STORAGE].ready()
        assert (await calling).rows == [(1,)]


@pytest.mark.parametrize("order", [(HUB, STORAGE), (STORAGE, HUB)], ids=" then ".join)
@pytest.mark.parametrize("ending", ["killed", "stopped"])
async def test_each_may_be_restarted_at_any_time(
    processes: Processes, order: tuple[str, str], ending: str
) -> None:
    pair = Pair(processes)
    await pair[STORAGE].ready()
    await pair[HUB].ready(DATABASE_HEALTH)
    async with Hub(pair[HUB].address, service=SERVICE) as hub:
        await hub.execute("CREATE TABLE kept (n)")
        for number, name in enumerate(order):
            if ending == "killed":
                pair[name].kill()
            else:
                assert await pair[name].stop() == 0
            if name == STORAGE:
                await wait_for_status(pair[HUB].address, DATABASE_HEALTH, NOT_SERVING)
            pair[name].start()
            await hub.execute("INSERT INTO kept VALUES (?)", [number])
            await pair[HUB].ready(DATABASE_HEALTH)
        assert (await hub.execute("SELECT n FROM kept")).rows == [(0,), (1,)]
    assert await check(pair[HUB].address) == SERVING


async def test_both_may_end_at_once(processes: Processes) -> None:
    pair = Pair(processes)
    await pair[STORAGE].ready()
    await pair[HUB].ready(DATABASE_HEALTH)
    async with Hub(pair[HUB].address, service=SERVICE) as hub:
        await hub.execute("CREATE TABLE kept (n)")
        for name in (STORAGE, HUB):
            pair[name].kill()
        for name in (HUB, STORAGE):
            pair[name].start()
        await hub.execute("INSERT INTO kept VALUES (1)")
        assert (await hub.execute("SELECT n FROM kept")).rows == [(1,)]
