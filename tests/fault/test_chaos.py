"""Everything at once: clients work while servers are killed, paused, stopped and started again.

A hub, and two storage servers over one data directory. Every client executes, or submits for later
delivery, one operation after the other. A subscriber follows from the beginning, and a probe asks
as Kubernetes does. At the end the clients' books, the tables, the journals and the events must
agree: what was acknowledged happened once, in the order of its queue, and every final state is
known.
"""

import asyncio
import os
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from messagehub import Hub
from messagehub.operations import OperationState
from messagehub.request_ids import new_request_id
from tests.fault.probe import Probe
from tests.support.health import NOT_SERVING, wait_for_status
from tests.support.processes import Processes, ServerProcess, running_processes

SERVICES = ("character", "campaign")
DATABASES = ("character_db", "auth_db")
WAYS = ("execute", "submit")
CREATE = "CREATE TABLE kept (service TEXT, way TEXT, number INTEGER, request_id TEXT)"
INSERT = "INSERT INTO kept VALUES (?, ?, ?, ?)"
CONFIGURATION = "[hub]\ndrain_seconds = 2.0\n[storage]\ndrain_seconds = 2.0\n"
# Longer than any strike and the recovery from it, on a slow machine.
ANSWER_SECONDS = 90.0
SETTLE_SECONDS = 180.0
PAUSE_SECONDS_MAX = 1.5
# Between two operations of a client, so that a long run's books can be asked for one by one.
BREATH_SECONDS = 0.02
ASKED_AT_ONCE = 32


@dataclass
class Book:
    """The request ids that one client was given an answer for, in order."""

    service: str
    database: str
    way: str
    acknowledged: list[str] = field(default_factory=list)


class Platform:
    """The processes, and what is done to them."""

    def __init__(self, processes: Processes) -> None:
        self.storages = [processes.storage(), processes.storage()]
        self.hub = processes.hub(self.storages[0].address, "--storage", self.storages[1].address)
        self.probe = Probe(self.hub.address)
        self.data_dir = processes.data_dir

    async def strike(self, rng: random.Random) -> str:
        """Does something bad to somebody, and brings everybody back."""
        deed = rng.choice(["kill", "kill", "pause", "stop"])
        victims = rng.choice([[self.hub], [rng.choice(self.storages)], self.storages, self.all])
        with self.probe.doubtful(self.hub in victims):
            for victim in victims:
                await self._hurt(victim, deed)
            if victims == self.storages and deed != "pause":
                await wait_for_status(self.hub.address, "", NOT_SERVING)
            await asyncio.sleep(rng.random() * PAUSE_SECONDS_MAX)
            for victim in rng.sample(victims, len(victims)):
                if deed == "pause":
                    victim.thaw()
                else:
                    victim.start()
            for process in self.all:
                await process.ready()
        return f"{deed} {', '.join(victim.name for victim in victims)}"

    @property
    def all(self) -> list[ServerProcess]:
        return [self.hub, *self.storages]

    @staticmethod
    async def _hurt(victim: ServerProcess, deed: str) -> None:
        if deed == "kill":
            victim.kill()
        elif deed == "pause":
            victim.freeze()
        else:
            status = await victim.stop()
            assert status == 0, f"{victim.name} ended with {status}:\n{victim.log_text()}"


@asynccontextmanager
async def running_platform(directory: Path) -> AsyncIterator[Platform]:
    (directory / "messagehub.toml").write_text(CONFIGURATION)
    async with running_processes(directory) as processes:
        platform = Platform(processes)
        for database in DATABASES:
            await platform.hub.ready(f"storage.{database}")
        yield platform


def client(platform: Platform, service: str) -> Hub:
    return Hub(platform.hub.address, service=service, timeout=ANSWER_SECONDS)


async def keep_working(platform: Platform, book: Book, enough: asyncio.Event) -> None:
    """Does one operation after the other; the client repeats each until it is answered."""
    async with client(platform, book.service) as hub:
        while not enough.is_set():
            name = new_request_id()
            content = [book.service, book.way, len(book.acknowledged), name]
            do: Any = hub.execute if book.way == "execute" else hub.submit
            await do(INSERT, content, database=book.database, request_id=name)
            book.acknowledged.append(name)
            await asyncio.sleep(BREATH_SECONDS)


async def follow(platform: Platform, seen: Counter[str], finished: asyncio.Event) -> None:
    """Counts the events by request id, until it is told to finish and `seen` is complete."""
    positions: dict[str, int] = {}
    async with client(platform, SERVICES[0]) as hub:
        types = ["storage.operation_completed", "storage.operation_failed"]
        events = hub.subscribe(types=types, databases=DATABASES, start="earliest")
        async for event in events:
            data: Any = event.data
            seen[data.request_id] += 1
            assert event.sequence > positions.get(event.subject, 0), "out of order, or twice"
            positions[event.subject] = event.sequence
            if finished.is_set() and data.query == "DROP TABLE the_end":
                return


async def live(platform: Platform, rng: random.Random, strikes: int, between: float) -> list[Book]:
    """Lets everybody work among the strikes, and gives the books."""
    books = [
        Book(service, database, way)
        for service in SERVICES
        for database in DATABASES
        for way in WAYS
    ]
    enough = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for book in books:
            tasks.create_task(keep_working(platform, book, enough))
        for number in range(strikes):
            await asyncio.sleep(between * rng.random())
            print(f"strike {number + 1}: {await platform.strike(rng)}")
        await asyncio.sleep(between)
        enough.set()
    return books


async def check_final_states(platform: Platform, books: list[Book]) -> None:
    """Everything that was accepted for later has come to its end."""
    turns = asyncio.Semaphore(ASKED_AT_ONCE)

    async def check(hub: Hub, book: Book, name: str) -> None:
        async with turns:
            # The inbox may have forgotten it by now; the journal of its database has not.
            operation = await hub.operation(name, database=book.database)
            while not operation.state.final:
                await asyncio.sleep(0.02)
                operation = await hub.operation(name, database=book.database)
            assert operation.state is OperationState.COMPLETED, (name, operation)

    for book in books:
        if book.way == "submit":
            async with client(platform, book.service) as hub:
                await asyncio.gather(*(check(hub, book, name) for name in book.acknowledged))


def check_file(platform: Platform, database: str, books: list[Book]) -> None:
    """Each queue's rows are what was acknowledged, once and in order; the journal agrees."""
    with closing(sqlite3.connect(platform.data_dir / f"{database}.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = raw.execute("SELECT service, way, number, request_id FROM kept ORDER BY rowid")
        found = rows.fetchall()
        (distinct,) = raw.execute(
            "SELECT count(*) - count(DISTINCT request_id) FROM _messagehub_journal"
            " WHERE request_id IS NOT NULL"
        ).fetchone()
    assert distinct == 0
    for book in books:
        if book.database == database:
            mine = [row[2:] for row in found if row[:2] == (book.service, book.way)]
            assert mine == list(enumerate(book.acknowledged)), (book.service, book.way)


async def chaos(directory: Path, *, strikes: int, between: float) -> None:
    seed = int(os.environ.get("SOAK_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"SOAK_SEED={seed}")
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    finished = asyncio.Event()
    async with running_platform(directory) as platform:
        async with client(platform, SERVICES[0]) as hub:
            for database in DATABASES:
                await hub.execute(CREATE, database=database)
                await hub.execute("CREATE TABLE the_end (n)", database=database)
            async with platform.probe, asyncio.TaskGroup() as following:
                following.create_task(follow(platform, seen, finished))
                books = await live(platform, rng, strikes, between)
                async with asyncio.timeout(SETTLE_SECONDS):
                    await check_final_states(platform, books)
                    names = Counter(name for book in books for name in book.acknowledged)
                    while names - seen:  # noqa: ASYNC110 - an event is what is waited for
                        await asyncio.sleep(0.02)
                    finished.set()
                    await hub.execute("DROP TABLE the_end", database=DATABASES[0])
        assert {name: seen[name] for name in names} == names
        for process in platform.all:
            assert await process.stop() == 0
        for database in DATABASES:
            check_file(platform, database, books)
        platform.probe.check()
    print({way: sum(len(b.acknowledged) for b in books if b.way == way) for way in WAYS})
    assert all(book.acknowledged for book in books)


async def test_what_was_acknowledged_happened_once_and_in_order(tmp_path: Path) -> None:
    await chaos(tmp_path, strikes=4, between=0.8)


@pytest.mark.soak
async def test_the_same_for_a_long_time(tmp_path: Path) -> None:
    await chaos(tmp_path, strikes=150, between=3.0)
