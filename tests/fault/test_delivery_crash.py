"""kill -9 of the hub, of the storage server, of both, at random moments under submitters.

Every service submits to every database, one operation after the other, takes some of them back,
and asks again with the same request id when an answer does not come. In the end the callers' books,
the tables, the events and the inbox must agree: what was accepted happened once, in the order of
its queue, or is known not to have happened, and every final state is known.
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

import pytest

from messagehub import Hub
from messagehub.errors import OperationNotCancellable
from messagehub.operations import OperationState, SubmittedOperation
from messagehub.request_ids import new_request_id
from tests.support.eventually import eventually
from tests.support.processes import Processes, ServerProcess, running_processes

SERVICES = ("character", "campaign", "auth")
DATABASES = ("character_db", "auth_db")
CREATE = "CREATE TABLE kept (service TEXT, number INTEGER NOT NULL, request_id TEXT NOT NULL)"
INSERT = "INSERT INTO kept VALUES (?, ?, ?)"
# Longer than a kill and a restart may take on a slow machine.
ANSWER_SECONDS = 60.0
SETTLE_SECONDS = 120.0
ALIVE = (OperationState.QUEUED, OperationState.RUNNING)


@dataclass
class Book:
    """What one submitter did, in order, by request id."""

    service: str
    database: str
    submitted: dict[str, str] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


@dataclass
class Platform:
    """Both processes, and where their files are."""

    storage: ServerProcess
    hub: ServerProcess
    data_dir: Path

    async def strike(self, rng: random.Random) -> str:
        """Kills somebody and brings everybody back."""
        victims = rng.choice(["hub", "storage", "both"])
        if victims in ("hub", "both"):
            self.hub.kill()
        if victims in ("storage", "both"):
            self.storage.kill()
        await asyncio.sleep(rng.random() * 0.5)
        both = [self.hub, self.storage] if rng.random() < 0.5 else [self.storage, self.hub]
        for process in both:
            if not process.running:
                process.start()
        await self.hub.ready()
        return victims


@asynccontextmanager
async def platform(directory: Path) -> AsyncIterator[Platform]:
    async with running_processes(directory) as processes:
        yield await start(processes)


async def start(processes: Processes) -> Platform:
    storage = processes.storage()
    hub = processes.hub(storage.address)
    await hub.ready()
    return Platform(storage, hub, processes.data_dir)


async def keep_submitting(hub: Hub, book: Book, rng: random.Random, enough: asyncio.Event) -> None:
    """Submits one operation after the other; each call is repeated until it is answered."""
    number = 0
    while not enough.is_set():
        number += 1
        request_id = new_request_id()
        kind = rng.choices(["write", "bad", "read"], [8, 1, 1])[0]
        query, parameters = {
            "write": (INSERT, [book.service, number, request_id]),
            "bad": (INSERT, [book.service, None, request_id]),
            "read": ("SELECT count(*) FROM kept", []),
        }[kind]
        book.submitted[request_id] = kind
        await hub.submit(query, parameters, database=book.database, request_id=request_id)
        if rng.random() < 0.2:
            try:
                await hub.cancel_operation(request_id)
            except OperationNotCancellable:
                book.refused.add(request_id)
            else:
                book.cancelled.add(request_id)


async def live(platform: Platform, strikes: int, between: float, seed: int) -> list[Book]:
    """Lets submitters work while processes die, and gives their books."""
    rng = random.Random(seed)
    books = [Book(service, database) for service in SERVICES for database in DATABASES]
    enough = asyncio.Event()
    async with Hub(platform.hub.address, service="character", timeout=ANSWER_SECONDS) as hub:
        for database in DATABASES:
            await hub.execute(CREATE, database=database)
    async with asyncio.TaskGroup() as tasks:
        for book in books:
            tasks.create_task(_submitter(platform.hub.address, book, rng.random(), enough))
        for _ in range(strikes):
            await asyncio.sleep(between * rng.random())
            await platform.strike(rng)
        await asyncio.sleep(between)
        enough.set()
    return books


async def _submitter(address: str, book: Book, seed: float, enough: asyncio.Event) -> None:
    async with Hub(address, service=book.service, timeout=ANSWER_SECONDS) as hub:
        await keep_submitting(hub, book, random.Random(seed), enough)


async def final_states(platform: Platform, books: list[Book]) -> dict[str, SubmittedOperation]:
    """Looks at the services' lists until all operations have ended."""
    found: dict[str, SubmittedOperation] = {}
    for service in SERVICES:
        async with Hub(platform.hub.address, service=service, timeout=ANSWER_SECONDS) as hub:
            await eventually(lambda hub=hub: nothing_waits(hub), seconds=SETTLE_SECONDS)
            found |= {o.request_id: o async for o in hub.operations(page_size=1000)}
    for book in books:
        assert book.submitted.keys() <= found.keys()
    return {i: found[i] for book in books for i in book.submitted}


async def nothing_waits(hub: Hub) -> bool:
    """True if every operation of the service has ended."""
    async for _ in hub.operations(states=ALIVE, page_size=1):
        return False
    return True


async def told_of(platform: Platform, wanted: set[str]) -> Counter[str]:
    """Counts the events, by operation, until these were all told of."""
    found: Counter[str] = Counter()
    missing = set(wanted)
    async with Hub(platform.hub.address, service="character", timeout=ANSWER_SECONDS) as hub:
        events = hub.subscribe(
            types=["storage.operation_completed", "storage.operation_failed"],
            databases=DATABASES,
            start="earliest",
        )
        async with asyncio.timeout(SETTLE_SECONDS):
            async for event in events:
                found[event.data.request_id] += 1
                missing.discard(event.data.request_id)
                if not missing:
                    return found
    return found


def rows_of(platform: Platform, database: str) -> list[tuple[str, int, str]]:
    """What the file holds, once nobody uses it; SQLite's own check passes too."""
    with closing(sqlite3.connect(platform.data_dir / f"{database}.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return raw.execute("SELECT * FROM kept ORDER BY rowid").fetchall()


def check_book(
    book: Book, states: dict[str, SubmittedOperation], rows: list[tuple[str, int, str]]
) -> None:
    """The books of one queue against its final states and its rows."""
    mine = [row for row in rows if row[0] == book.service]
    times = Counter(request_id for _, _, request_id in mine)
    for request_id, kind in book.submitted.items():
        state = states[request_id].state
        if request_id in book.cancelled:
            assert state is OperationState.CANCELLED, (request_id, state)
        elif request_id in book.refused:
            assert state is not OperationState.CANCELLED, request_id
        if state is not OperationState.CANCELLED:
            expected = OperationState.FAILED if kind == "bad" else OperationState.COMPLETED
            assert state is expected, (request_id, kind, state, states[request_id].error)
        happened = state is OperationState.COMPLETED and kind == "write"
        assert times[request_id] == int(happened), (request_id, kind, state)
    # In the order of submission, which is that of the numbers.
    numbers = [number for _, number, _ in mine]
    assert numbers == sorted(numbers)


async def chaos(directory: Path, strikes: int, between: float, seed: int) -> None:
    print(f"SOAK_SEED={seed}")
    async with platform(directory) as one:
        books = await live(one, strikes, between, seed)
        states = await final_states(one, books)
        cancelled = {
            request_id
            for request_id, operation in states.items()
            if operation.state is OperationState.CANCELLED
        }
        events = await told_of(one, states.keys() - cancelled)
        assert not [i for i in states if events[i] != int(i not in cancelled)]
        assert await one.hub.stop() == 0
        assert await one.storage.stop() == 0
        for book in books:
            check_book(book, states, rows_of(one, book.database))
        counted = Counter(operation.state.name for operation in states.values())
        print(counted)
        assert counted["COMPLETED"] > 0


async def test_what_was_accepted_happens_once_in_order_whoever_dies(tmp_path: Path) -> None:
    seed = int(os.environ.get("SOAK_SEED") or int.from_bytes(os.urandom(4), "big"))
    await chaos(tmp_path, strikes=4, between=0.6, seed=seed)


@pytest.mark.soak
async def test_the_same_for_a_long_time(tmp_path: Path) -> None:
    seed = int(os.environ.get("SOAK_SEED") or int.from_bytes(os.urandom(4), "big"))
    await chaos(tmp_path, strikes=60, between=1.5, seed=seed)
