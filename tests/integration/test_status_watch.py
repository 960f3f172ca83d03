"""`messagehub status --watch`: every change, through restarts of both servers."""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest_asyncio

from messagehub.client import Hub
from tests.support.calls import DATABASE, SERVICE
from tests.support.processes import Processes, messagehub_command, running_processes

SECONDS_MAX = 30


class Live:
    """A running `status --watch --json`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def until(self, wanted: Any) -> dict[str, Any]:
        """Reads statuses until one is as wanted."""
        assert self._process.stdout is not None
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                line = await self._process.stdout.readline()
                assert line, "the command ended"
                status: dict[str, Any] = json.loads(line)
                if wanted(status):
                    return status

    async def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return await self._process.wait()


@asynccontextmanager
async def watching(address: str) -> AsyncIterator[Live]:
    process = await asyncio.create_subprocess_exec(
        messagehub_command(),
        *("status", "--watch", "--json", "--target", address),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        limit=1024 * 1024,
    )
    try:
        yield Live(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest_asyncio.fixture(loop_scope="session")
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    async with running_processes(tmp_path) as running:
        yield running


def is_ready(status: dict[str, Any]) -> bool:
    return bool(status["ready"]) and database_of(status)["available"]


def database_of(status: dict[str, Any]) -> dict[str, Any]:
    (found,) = (one for one in status["databases"] if one["database"] == DATABASE)
    return dict(found)


async def test_the_status_as_it_changes(processes: Processes) -> None:
    storage = processes.storage()
    hub = processes.hub(storage.address)
    await hub.ready()
    async with watching(hub.address) as live:
        first = await live.until(is_ready)
        (server,) = first["storage_servers"]
        assert server["address"] == storage.address
        async with Hub(hub.address, service=SERVICE) as client:
            answer = await client.execute("CREATE TABLE kept (n)")
        await live.until(lambda status: int(database_of(status)["sequence"]) >= answer.sequence)
        storage.kill()
        lost = await live.until(lambda status: not status["ready"])
        assert not lost["storage_servers"][0]["connected"]
        await live.until(lambda status: database_of(status)["circuit"] == "CIRCUIT_STATE_OPEN")
        storage.start()
        await live.until(is_ready)
        # The hub itself may go and come back too.
        hub.kill()
        hub.start()
        again = await live.until(lambda status: status["start_time"] != first["start_time"])
        if not is_ready(again):
            await live.until(is_ready)
        assert await live.interrupt() != 0


async def test_the_screen_is_printed_again_and_again(processes: Processes) -> None:
    storage = processes.storage()
    hub = processes.hub(storage.address)
    await hub.ready()
    process = await asyncio.create_subprocess_exec(
        messagehub_command(),
        *("status", "--watch", "--target", hub.address),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SECONDS_MAX):
            await process.stdout.readuntil(b": ready")
            storage.kill()
            await process.stdout.readuntil(b"NOT READY")
            await process.stdout.readuntil(b"NOT CONNECTED")
    finally:
        process.kill()
        await process.communicate()
