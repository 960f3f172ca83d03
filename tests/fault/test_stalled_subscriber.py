"""One of many subscribers stops reading while thousands of events are written.

The others get everything meanwhile, neither process grows, and when the one reads again it gets
everything once and in order, most of it from the journal.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from messagehub.v1 import storage_service_pb2_grpc
from messagehub.v1.event_service_pb2 import SubscribeRequest, SubscribeResponse
from messagehub.v1.storage_service_pb2 import BatchOperation, ExecuteBatchRequest
from tests.support.calls import CALL_SECONDS, SERVICE, run_async, statement
from tests.support.memory import resident_bytes
from tests.support.processes import ServerProcess, running_processes

MEBIBYTE = 1024 * 1024
# What a thousand of the events take is more than this; and far more than it is written.
WINDOW_BYTES = MEBIBYTE
# Allocators keep some; the events alone would be several times as much.
GROWTH_BYTES_MAX = 48 * MEBIBYTE
WRITES_AT_ONCE = 100
SECONDS_MAX = 300
# An event carries the statement's text, so a long comment makes a large event.
INSERT = "INSERT INTO samples VALUES (?) -- " + "x" * 900


class Listener:
    """One subscriber; `reading` is cleared while it stalls. Keeps nothing but where it is."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.reading = asyncio.Event()
        self.reading.set()
        self.first = self.last = self.events = 0
        self.moved = asyncio.Condition()

    async def listen(self) -> None:
        while True:
            await self.reading.wait()
            message = SubscribeResponse.FromString(await self._call.read())
            for event in message.events:
                self.first = self.first or event.sequence
                assert event.sequence == self.last + 1 or not self.last
                self.last = event.sequence
                self.events += 1
            async with self.moved:
                self.moved.notify_all()

    async def reaches(self, sequence: int) -> None:
        async with self.moved:
            await self.moved.wait_for(lambda: self.last >= sequence)


@dataclass
class Scene:
    """A hub with a small window, its storage server, and many who listen."""

    servers: Sequence[ServerProcess]
    stub: Any
    listeners: list[Listener]

    async def write(self, events: int) -> int:
        """Gives the sequence of the last one."""
        sequence = 0
        for begin in range(0, events, WRITES_AT_ONCE):
            operations = [
                BatchOperation(statement=statement(INSERT, begin + n))
                for n in range(WRITES_AT_ONCE)
            ]
            request = ExecuteBatchRequest(source_service=SERVICE, operations=operations)
            answer = await self.stub.ExecuteBatch(request, timeout=CALL_SECONDS)
            sequence = max(result.sequence for result in answer.results)
        return sequence

    def resident(self) -> list[int]:
        if not sys.platform.startswith("linux"):
            return [0 for _ in self.servers]
        return [resident_bytes(server.pid) for server in self.servers]


@asynccontextmanager
async def listening(address: str, count: int) -> AsyncIterator[list[Listener]]:
    """So many subscribers, all of them at their beginning; each has a connection of its own."""
    request = SubscribeRequest(source_service=SERVICE, latest=True).SerializeToString()
    own = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=own) for _ in range(count)]
    calls = [c.unary_stream("/messagehub.v1.EventService/Subscribe")(request) for c in channels]
    try:
        for call in calls:
            await call.read()
        yield [Listener(call) for call in calls]
    finally:
        for call in calls:
            call.cancel()
        for channel in channels:
            await channel.close()


@asynccontextmanager
async def scene(directory: Path, subscribers: int) -> AsyncIterator[Scene]:
    async with running_processes(directory) as processes:
        storage = processes.storage()
        config = directory / "messagehub.toml"
        config.write_text(f"[hub]\nevent_window_bytes_max = {WINDOW_BYTES}\n")
        hub = processes.hub(storage.address, "--config", str(config))
        await hub.ready()
        async with grpc.aio.insecure_channel(hub.address) as channel:
            stub = storage_service_pb2_grpc.StorageServiceStub(channel)
            await run_async(stub, "CREATE TABLE samples (n)")
            async with listening(hub.address, subscribers) as listeners:
                yield Scene((hub, storage), stub, listeners)


async def stall(directory: Path, *, subscribers: int, events: int, seconds: float) -> None:
    async with (
        asyncio.timeout(SECONDS_MAX),
        scene(directory, subscribers) as here,
        asyncio.TaskGroup() as group,
    ):
        stalled, *others = here.listeners
        tasks = [group.create_task(listener.listen()) for listener in here.listeners]
        warm = await here.write(events // 4)
        for listener in here.listeners:
            await listener.reaches(warm)
        before = here.resident()
        stalled.reading.clear()
        last = await here.write(events)
        for listener in others:
            await listener.reaches(last)
        await asyncio.sleep(seconds)
        grown = [now - then for then, now in zip(before, here.resident(), strict=True)]
        assert stalled.last < last
        stalled.reading.set()
        for listener in here.listeners:
            await listener.reaches(await here.write(WRITES_AT_ONCE))
        assert len({listener.first for listener in here.listeners}) == 1
        assert stalled.events >= events + events // 4
        print(f"grown by {grown} bytes while {events} events were written")
        assert max(grown) < GROWTH_BYTES_MAX
        for task in tasks:
            task.cancel()


async def test_nobody_notices_and_nothing_is_lost(tmp_path: Path) -> None:
    await stall(tmp_path, subscribers=10, events=5_000, seconds=0)


@pytest.mark.soak
async def test_nobody_notices_among_two_hundred_for_a_minute(tmp_path: Path) -> None:
    await stall(tmp_path, subscribers=200, events=20_000, seconds=60)
