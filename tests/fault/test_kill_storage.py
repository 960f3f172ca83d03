"""kill -9 of the storage process while writes run: nothing acknowledged is lost or done twice.

Writers send each write with a request id until it is answered, as the contract tells them to. A
subscriber reconnects from its last cursor. Afterwards the callers' books, the table, the events,
the journal in the file, and SQLite's own check must agree.
"""

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest_asyncio

from messagehub.storage.v1.storage_service_pb2 import JournalRecord
from messagehub.v1 import event_service_pb2_grpc, storage_service_pb2_grpc
from messagehub.v1.event_pb2 import Event
from messagehub.v1.event_service_pb2 import SubscribeRequest
from tests.support.calls import SERVICE, execute_request, query_request, rows, run_async
from tests.support.eventually import eventually
from tests.support.health import NOT_SERVING, SERVING, check, wait_for_status
from tests.support.processes import Processes, ServerProcess, running_processes
from tests.support.refusals import Refusal, refused

if TYPE_CHECKING:
    from messagehub.v1.storage_service_pb2 import ExecuteResponse

KILLS = 3
WRITERS = 8
ACKNOWLEDGED_BETWEEN_KILLS = 150
ATTEMPT_SECONDS = 5
SECONDS_MAX = 60
# What a caller may be told while the storage server is down; each asks for the same call again.
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
CREATE = "CREATE TABLE kept (writer INTEGER, number INTEGER, request_id TEXT)"
INSERT = "INSERT INTO kept VALUES (?, ?, ?)"


class Platform:
    """Both processes, a channel to the hub, and the file behind them."""

    def __init__(
        self, processes: Processes, storage: ServerProcess, hub: ServerProcess, channel: Any
    ) -> None:
        self.storage = storage
        self.hub = hub
        self.file = processes.data_dir / "character_db.db"
        self.storage_stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        self.event_stub: Any = event_service_pb2_grpc.EventServiceStub(channel)


class Books:
    """What the writers were told."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, ExecuteResponse] = {}
        self.written: dict[str, tuple[int, int]] = {}
        self.refusals: list[Refusal] = []
        self.enough = False


@pytest_asyncio.fixture(loop_scope="session")
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    async with running_processes(tmp_path) as processes:
        storage = processes.storage()
        hub = processes.hub(storage.address)
        await hub.ready()
        async with grpc.aio.insecure_channel(hub.address) as channel:
            yield Platform(processes, storage, hub, channel)


async def write(
    stub: Any, books: Books, writer: int, number: int, request_id: str | None = None
) -> None:
    """Sends one write until it is answered."""
    request_id = request_id or str(uuid.uuid4())
    books.written[request_id] = (writer, number)
    request = execute_request(INSERT, writer, number, request_id, request_id=request_id)
    while True:
        try:
            answer = await stub.Execute(request, timeout=ATTEMPT_SECONDS)
        except grpc.aio.AioRpcError as failure:
            if failure.code() not in PASSING:
                raise
            if failure.code() is grpc.StatusCode.UNAVAILABLE:
                refusal = Refusal()
                refusal.read_call(failure)
                books.refusals.append(refusal)
            await asyncio.sleep(0.02)
        else:
            books.acknowledged[request_id] = answer
            return


async def keep_writing(stub: Any, books: Books, writer: int) -> None:
    number = 0
    while not books.enough:
        await write(stub, books, writer, number)
        number += 1


async def keep_reading(stub: Any, cursor: str, last: str) -> list[Event]:
    """Follows the events through every break, until the write `last` was told of."""
    events: list[Event] = []
    while not (events and events[-1].operation_completed.request_id == last):
        call = stub.Subscribe(
            SubscribeRequest(
                source_service=SERVICE, cursor=cursor, event_types=["storage.operation_completed"]
            )
        )
        try:
            async for message in call:
                events += message.events
                cursor = message.cursor
                if events and events[-1].operation_completed.request_id == last:
                    break
        except grpc.aio.AioRpcError as failure:
            if failure.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(0.05)
        finally:
            call.cancel()
    return events


async def current_cursor(stub: Any) -> str:
    call = stub.Subscribe(SubscribeRequest(source_service=SERVICE), timeout=ATTEMPT_SECONDS)
    cursor: str = (await call.read()).cursor
    call.cancel()
    return cursor


async def kill_and_restart(platform: Platform, books: Books) -> None:
    """Kills the storage process among writes, watches the hub refuse, and starts it again."""
    enough = len(books.acknowledged) + ACKNOWLEDGED_BETWEEN_KILLS
    await eventually(lambda: len(books.acknowledged) >= enough)
    platform.storage.kill()
    await wait_for_status(platform.hub.address, "", NOT_SERVING)
    assert await check(platform.hub.address, "liveness") == SERVING
    with refused("UNAVAILABLE", "CIRCUIT_OPEN") as refusal:
        await run_async(platform.storage_stub, "SELECT 1")
    assert refusal.retry_seconds is not None
    with refused("UNAVAILABLE", "CIRCUIT_OPEN"):
        await platform.storage_stub.Query(query_request("SELECT 1"), timeout=5).read()
    platform.storage.start()
    await platform.hub.ready()


async def test_what_was_acknowledged_is_there_exactly_once(platform: Platform) -> None:
    stub, books = platform.storage_stub, Books()
    await run_async(stub, CREATE)
    cursor, last = await current_cursor(platform.event_stub), str(uuid.uuid4())
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as reader:
        reading = reader.create_task(keep_reading(platform.event_stub, cursor, last))
        async with asyncio.TaskGroup() as writers:
            for writer in range(WRITERS):
                writers.create_task(keep_writing(stub, books, writer))
            for _ in range(KILLS):
                await kill_and_restart(platform, books)
            books.enough = True
        await write(stub, books, WRITERS, 0, last)
    assert len(books.acknowledged) > KILLS * ACKNOWLEDGED_BETWEEN_KILLS
    assert books.acknowledged.keys() == books.written.keys()
    check_refusals(books)
    await check_rows(stub, books)
    check_events(reading.result(), books)
    await check_repetitions(stub, books)
    assert await platform.hub.stop() == 0
    assert await platform.storage.stop() == 0
    check_file(platform.file, books)


def check_refusals(books: Books) -> None:
    """The kills were felt, and every refusal said when to come back."""
    assert books.refusals
    for refusal in books.refusals:
        assert refusal.reason in {"STORAGE_UNAVAILABLE", "CIRCUIT_OPEN"}, refusal.message
        assert refusal.retry_seconds is not None


async def check_rows(stub: Any, books: Books) -> None:
    call = stub.Query(query_request("SELECT request_id, writer, number FROM kept"), timeout=30)
    found = [row async for page in call for row in rows(page.result)]
    assert len(found) == len(books.acknowledged)
    assert {row[0]: row[1:] for row in found} == books.written


def check_events(events: list[Event], books: Books) -> None:
    """One event for each write, in order, at the place that its answer named."""
    assert [event.type for event in events] == ["storage.operation_completed"] * len(events)
    told = {event.operation_completed.request_id: event.sequence for event in events}
    assert told == {name: answer.sequence for name, answer in books.acknowledged.items()}
    assert len(events) == len(told)
    sequences = [event.sequence for event in events]
    assert sequences == sorted(sequences)


async def check_repetitions(stub: Any, books: Books) -> None:
    """The outcome of a write can be asked for by sending it again."""
    for request_id, answer in list(books.acknowledged.items())[::20]:
        writer, number = books.written[request_id]
        request = execute_request(INSERT, writer, number, request_id, request_id=request_id)
        again = await stub.Execute(request, timeout=ATTEMPT_SECONDS)
        assert again.replayed
        assert again.sequence == answer.sequence


def check_file(file: Path, books: Books) -> None:
    """What is on disk once both processes are gone."""
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        entries = connection.execute(
            "SELECT request_id, sequence, record FROM _messagehub_journal"
        ).fetchall()
        # The hub's own tell of the circuit, which opened with every kill.
        journal = {
            str(uuid.UUID(bytes=request_id)): sequence
            for request_id, sequence, record in entries
            if JournalRecord.FromString(record).source_service != "hub"
        }
        kept = [row[0] for row in connection.execute("SELECT request_id FROM kept")]
    assert len({request_id for request_id, _, _ in entries}) == len(entries)
    assert sorted(kept) == sorted(books.acknowledged)
    # The table itself was made by one more write.
    assert len(journal.keys() - set(kept)) == 1
    assert set(kept) <= journal.keys()
    assert {name: journal[name] for name in kept} == {
        name: answer.sequence for name, answer in books.acknowledged.items()
    }
