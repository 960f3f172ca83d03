"""The guarantees of a subscription while subscribers, hub and storage server are killed (-9).

One subscriber takes everything of all databases, another one only what one service causes. Each
keeps its cursor beside what it took, and goes on from there in its next life.
"""

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hub.core.events import cursor
from messagehub import Hub, HubError
from messagehub.client import Operation
from tests.support.cursor_consumer import taken
from tests.support.event_stream import COMPLETED
from tests.support.processes import REPOSITORY, Processes, ServerProcess, running_processes

SERVICES = ("auth", "character")
SECONDS_MAX = 60
WRITES_AT_ONCE = 5
PROGRESS_BETWEEN_KILLS = 20
HEARTBEAT_SECONDS = 0.3


class Taken(NamedTuple):
    """An event that was taken."""

    database: str
    sequence: int
    source: str
    type: str


@dataclass
class Subscriber:
    """The lives of one subscriber and what they took."""

    address: str
    file: Path
    sources: tuple[str, ...]
    lives: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.lives += 1
        command = [sys.executable, "-m", "tests.support.cursor_consumer"]
        command += [self.address, str(self.file), *self.sources]
        self.process = subprocess.Popen(command, cwd=REPOSITORY)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def restart(self) -> None:
        self.kill()
        self.start()

    def messages(self) -> list[dict[str, Any]]:
        """What is whole by now; the file of a running process is only looked at."""
        if not self.file.exists():
            return []
        copy = self.file.with_suffix(".copy")
        copy.write_bytes(self.file.read_bytes())
        return taken(copy)

    def events(self) -> list[Taken]:
        return [Taken(*event) for message in self.messages() for event in message["events"]]


@dataclass
class Scene:
    storage: ServerProcess
    hub: ServerProcess
    client: Hub
    subscribers: list[Subscriber]
    written: set[tuple[str, int]] = field(default_factory=set)

    async def write(self) -> None:
        """Writes to all databases without end; `written` is what was answered."""
        while True:
            for service in SERVICES:
                operations = [
                    Operation("INSERT INTO t VALUES (1)", database=f"{service}_db")
                    for _ in range(WRITES_AT_ONCE)
                ]
                self.client.service = service
                try:
                    results = await self.client.execute_batch(operations)
                except HubError:
                    continue
                self.written |= {
                    (one.database, one.sequence) for one in results if not isinstance(one, HubError)
                }
            await asyncio.sleep(0.005)

    async def more(self) -> None:
        """Waits until more was written, and the first subscriber took something."""
        enough = len(self.written) + PROGRESS_BETWEEN_KILLS
        seen = len(self.subscribers[0].messages())
        while len(self.written) < enough or len(self.subscribers[0].messages()) == seen:  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.02)

    async def rows(self, database: str) -> int:
        result = await self.client.execute("SELECT count(*) FROM t", database=database)
        return int(result.rows[0][0])


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    async with running_processes(directory) as processes:
        storage, hub = await _servers(processes, directory)
        async with Hub(hub.address, service=SERVICES[0], timeout=SECONDS_MAX) as client:
            for service in SERVICES:
                await client.execute("CREATE TABLE t (n)", database=f"{service}_db")
            subscribers = [
                Subscriber(hub.address, directory / "everything", ()),
                Subscriber(hub.address, directory / "of-one", (SERVICES[1],)),
            ]
            for subscriber in subscribers:
                subscriber.start()
            try:
                yield Scene(storage, hub, client, subscribers)
            finally:
                for subscriber in subscribers:
                    subscriber.kill()


async def _servers(processes: Processes, directory: Path) -> tuple[ServerProcess, ServerProcess]:
    storage = processes.storage()
    config = directory / "messagehub.toml"
    config.write_text(
        f"[hub]\nheartbeat_seconds = {HEARTBEAT_SECONDS}\nevent_window_bytes_max = 4096\n"
    )
    hub = processes.hub(storage.address, "--config", str(config))
    await hub.ready()
    return storage, hub


async def the_end(here: Scene) -> dict[str, int]:
    """Where the journals end once everybody has everything and said so with a cursor."""
    newest = {name: max(at for of, at in here.written if of == name) for name, _ in here.written}
    while True:
        ends = []
        for subscriber in here.subscribers:
            positions = cursor.decode(subscriber.messages()[-1]["cursor"])
            ends.append({name: positions[name].sequence for name in newest})
        if ends[0] == ends[1] and all(ends[0][name] >= newest[name] for name in newest):
            return ends[0]
        await asyncio.sleep(0.05)


async def check(here: Scene, ends: dict[str, int]) -> None:
    everything, of_one = (subscriber.events() for subscriber in here.subscribers)
    for events in (everything, of_one):
        for name in ends:
            received = [event.sequence for event in events if event.database == name]
            assert received == sorted(received), "ordered"
            assert len(received) == len(set(received)), "unique"
    for name, end in ends.items():
        received = [event.sequence for event in everything if event.database == name]
        assert received == list(range(1, end + 1)), "reliable"
        wanted = [e for e in everything if (e.database, e.source) == (name, SERVICES[1])]
        assert wanted == [e for e in of_one if e.database == name], "reliable through a filter"
        # All but the one of the table are rows, and every row has an event.
        completed = [e for e in everything if (e.database, e.type) == (name, COMPLETED)]
        assert await here.rows(name) == len(completed) - 1
    assert here.written.issubset({(event.database, event.sequence) for event in everything})
    for subscriber in here.subscribers:
        assert subscriber.lives > 1, "resumable"


async def play(directory: Path, *, seed: int, kills: int) -> None:
    chance = random.Random(seed)
    async with asyncio.timeout(SECONDS_MAX + 5 * kills), scene(directory) as here:
        writing = asyncio.create_task(here.write())
        victims: list[Any] = [*here.subscribers, here.hub, here.storage]
        order = [*victims, *(chance.choice(victims) for _ in range(kills - len(victims)))]
        chance.shuffle(order)
        for victim in order:
            await here.more()
            await asyncio.sleep(chance.random() * 0.05)
            await victim.restart()
        await here.more()
        writing.cancel()
        await asyncio.wait([writing])
        ends = await the_end(here)
        await check(here, ends)


async def test_nothing_is_lost_and_nothing_comes_twice_whoever_is_killed(tmp_path: Path) -> None:
    await play(tmp_path, seed=20261123, kills=5)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
async def test_the_same_for_a_long_time(tmp_path: Path, seed: int) -> None:
    await play(tmp_path, seed=seed, kills=60)
