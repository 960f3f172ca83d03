"""The limits of queues, readers, databases and messages: one below, at it, one above."""

import asyncio
from pathlib import Path

import grpc
import pytest

from messagehub.status import from_rpc_error
from messagehub.storage.v1 import storage_service_pb2 as wire
from tests.conformance.limit_checks import GUARD_SECONDS, OVER, check, one, refused, works
from tests.conformance.operations import (
    ALL_ITEMS,
    CREATE,
    ENDLESS_READ,
    ENDLESS_ROWS,
    ENDLESS_WRITE,
)
from tests.conformance.storage_client import StorageClient, asking, failure_of, reasons, serving
from tests.support.calls import rows, statement

# Queues. The writer is busy with an endless statement until it is cancelled.


class Busy:
    """A server whose writer of `items_db` is at work, so that what is sent waits."""

    def __init__(self, client: StorageClient) -> None:
        self.client = client

    async def begin(self, service: str = "busy") -> None:
        await one(self.client, CREATE)
        endless = asking(ENDLESS_WRITE, number=1_000_000, service=service)
        (self._ended,) = self.client.send(endless)
        await self.client.taken()

    async def end(self) -> None:
        self.client.send(cancelled=(1_000_000,))
        assert reasons([await self._ended]) == ["CANCELLED"]


def writes(count: int, service: str = "a", database: str = "items_db") -> list[wire.Operation]:
    # All of the same size, and with a number of the same length.
    return [
        asking("INSERT INTO items VALUES (?, 0)", 100 + n, service=service, database=database)
        for n in range(count)
    ]


@OVER
@pytest.mark.parametrize("per", ["queue", "caller"])
async def test_queue_operations(tmp_path: Path, over: int, per: str) -> None:
    async with serving(tmp_path, **{f"{per}_operations_max": 20}) as client:
        busy = Busy(client)
        await busy.begin()
        waiting = client.send(*writes(20 + over))
        await client.taken()
        settled = [answer for answer in waiting if answer.done()]
        assert len(settled) == max(0, over), "those over the limit are refused at once"
        for answer in settled:
            error = failure_of(answer.result())
            assert (error.reason, error.metadata["limit"]) == ("QUEUE_FULL", "20")
            assert error.retry_after, "waiting helps"
        others = client.send(*writes(3, service="b"), *writes(3, database="other_db"))
        await client.taken()
        if per == "caller":
            assert not any(answer.done() for answer in others[:3]), "others have room"
        await busy.end()
        outcomes = [await answer for answer in waiting]
        assert reasons(outcomes).count("") == min(20, 20 + over)
        await asyncio.gather(*others)
        await works(client)


@OVER
@pytest.mark.parametrize("per", ["queue", "caller"])
async def test_queue_bytes(tmp_path: Path, over: int, per: str) -> None:
    async with serving(tmp_path, **{f"{per}_bytes_max": 5000}) as client:
        busy = Busy(client)
        await busy.begin()
        asked = writes(10)
        for number, operation in enumerate(asked, 1001):
            operation.number = number
        room = 5000 + over - sum(operation.ByteSize() for operation in asked)
        filler = asking("INSERT INTO items VALUES (1, 0)", number=2000, service="a")
        filler.correlation_id = "x" * 128
        filler.correlation_id += "x" * (room - filler.ByteSize())
        assert sum(operation.ByteSize() for operation in (*asked, filler)) == 5000 + over
        waiting = client.send(*asked, filler)
        await client.taken()
        settled = [answer for answer in waiting if answer.done()]
        assert settled == ([waiting[-1]] if over > 0 else [])
        for answer in settled:
            error = failure_of(answer.result())
            assert (error.reason, error.metadata["limit"]) == ("QUEUE_FULL", "5000")
            assert error.retry_after
        await busy.end()
        outcomes = [await answer for answer in waiting]
        assert reasons(outcomes)[:-1] == [""] * 10
        await works(client)


@OVER
async def test_an_operation_that_never_fits(tmp_path: Path, over: int) -> None:
    async with serving(tmp_path, queue_bytes_max=5000) as client:
        operation = asking("SELECT 1", number=7)
        operation.correlation_id = "x" * 128
        operation.correlation_id += "x" * (5000 + over - operation.ByteSize())
        assert operation.ByteSize() == 5000 + over
        (outcome,) = await client.run(operation)
        await check(client, outcome, over, "MESSAGE_TOO_LARGE", limit_bytes="5000")
        if over > 0:
            assert failure_of(outcome).retry_after is None, "waiting does not help"


# Readers, queries, databases.


@OVER
async def test_readers(tmp_path: Path, over: int) -> None:
    """As many slow reads as one caller may hold; a quick one of its own passes only below that."""
    async with serving(tmp_path, readers_max=4) as client:
        await works(client)
        slow = 3 + over
        endless = client.send(*(asking(ENDLESS_READ, number=100 + n) for n in range(slow)))
        (quick,) = client.send(asking("SELECT 1"))
        if over < 0:
            async with asyncio.timeout(GUARD_SECONDS):
                await quick
            assert not any(answer.done() for answer in endless)
        else:
            for _ in range(20):
                await one(client, CREATE)  # the writer goes on, and time passes
            assert not quick.done()
        client.send(cancelled=tuple(range(100, 100 + slow)))
        async with asyncio.timeout(GUARD_SECONDS):
            outcomes = [await answer for answer in endless]
            assert rows((await quick).result) == [(1,)]
        assert reasons(outcomes) == ["CANCELLED"] * slow


@OVER
async def test_queries_open(tmp_path: Path, over: int) -> None:
    async with serving(tmp_path, queries_max=4) as client:
        request = wire.QueryRequest(
            database="items_db", statement=statement(ENDLESS_ROWS), page_size=1
        )
        calls = [client.stub.Query(request) for _ in range(2 + over)]
        for call in calls:
            await call.read()
        last = client.stub.Query(request)
        if over > 0:
            error = await refused(last)
            assert error.reason == "QUEUE_FULL"
            assert error.retry_after
        else:
            assert len((await last.read()).result.rows) == 1
        for call in (*calls, last):
            call.cancel()
        await works(client)


@OVER
async def test_databases_open(tmp_path: Path, over: int) -> None:
    async with serving(tmp_path, databases_open_max=4) as client:
        names = [f"db{number}" for number in range(4 + over)]
        outcomes = await client.run(*(asking(CREATE, database=name) for name in names))
        found = reasons(outcomes)
        assert found.count("") == min(4, 4 + over)
        assert found.count("QUEUE_FULL") == max(0, over)
        for outcome in outcomes:
            if outcome.HasField("error"):
                assert failure_of(outcome).retry_after
        opened = [name for name, reason in zip(names, found, strict=True) if not reason]
        outcomes = await client.run(*(asking(ALL_ITEMS, database=name) for name in opened))
        assert reasons(outcomes) == [""] * len(opened)


async def test_database_bytes(tmp_path: Path) -> None:
    limit = 1024 * 1024
    async with serving(tmp_path, database_bytes_max=limit) as client:
        await one(client, "CREATE TABLE texts (id INTEGER PRIMARY KEY, content TEXT)")
        stored = 0
        for _ in range(200):
            outcome = await one(client, "INSERT INTO texts (content) VALUES (?)", "x" * 10_000)
            if outcome.HasField("error"):
                break
            stored += 1
        error = failure_of(outcome)
        assert error.reason == "STORAGE_FULL"
        assert "database_bytes_max" in error.message
        assert 70 < stored < 105, "nearly all of it can be used"
        kept = await one(client, "SELECT count(*) FROM texts")
        assert rows(kept.result) == [(stored,)], "what was acknowledged is there, and no more"
        assert reasons([await one(client, "DELETE FROM texts WHERE id < 50")]) == [""]
        again = await one(client, "INSERT INTO texts (content) VALUES (?)", "x" * 10_000)
        assert reasons([again]) == [""], "it recovers when there is room"
        file = tmp_path / "items_db.db"
        assert file.stat().st_size <= limit


# Messages.


@OVER
async def test_message_bytes(tmp_path: Path, over: int) -> None:
    async with serving(tmp_path, message_bytes_max=5000) as client:
        request = wire.QueryRequest(database="items_db", statement=statement("SELECT 1"))
        request.statement.query += " -- " + "x" * 200
        request.statement.query += "x" * (5000 + over - request.ByteSize())
        while request.ByteSize() > 5000 + over:
            request.statement.query = request.statement.query[:-1]
        assert request.ByteSize() == 5000 + over
        if over > 0:
            error = await refused(client.stub.Query(request))
            assert (error.reason, error.metadata["limit_bytes"]) == ("MESSAGE_TOO_LARGE", "5000")
        else:
            pages = [page async for page in client.stub.Query(request)]
            assert rows(pages[0].result) == [(1,)]
        await works(client)


@OVER
async def test_bytes_of_a_frame_of_operations(tmp_path: Path, over: int) -> None:
    async with serving(tmp_path, message_bytes_max=5000) as client:
        operation = asking("SELECT 1", number=1)
        operation.correlation_id = "x" * 128
        frame = wire.ExchangeRequest(operations=[operation])
        operation.correlation_id += "x" * (5000 + over - frame.ByteSize())
        while wire.ExchangeRequest(operations=[operation]).ByteSize() > 5000 + over:
            operation.correlation_id = operation.correlation_id[:-1]
        (answer,) = client.send(operation)
        if over > 0:
            await asyncio.wait([answer])
            assert isinstance(client.ended, grpc.aio.AioRpcError)
            assert from_rpc_error(client.ended).reason == "MESSAGE_TOO_LARGE"
        else:
            assert rows((await answer).result) == [(1,)]


async def test_bytes_of_a_frame_of_outcomes(tmp_path: Path) -> None:
    async with serving(tmp_path, frame_bytes_max=10_000) as client:
        asked = [asking("SELECT printf('%.*c', ?, 'x')", 3000) for _ in range(30)]
        asked.append(asking("SELECT printf('%.*c', ?, 'x')", 100_000))
        outcomes = await client.run(*asked)
        sizes = [len(str(rows(outcome.result)[0][0])) for outcome in outcomes]
        assert sizes == [3000] * 30 + [100_000], "one that is larger than a frame arrives too"


async def test_events_of_a_message_of_a_tail(tmp_path: Path) -> None:
    async with serving(tmp_path, tail_message_events_max=3) as client:
        await one(client, CREATE)
        await client.run(*(asking(f"INSERT INTO items VALUES ({n}, 0)") for n in range(10)))
        found: list[int] = []
        call = client.stub.Tail(wire.TailRequest(database="items_db"))
        async for part in call:
            assert len(part.events) <= 3
            found += [event.sequence for event in part.events]
            if len(found) == 11:
                break
        call.cancel()
        assert found == list(range(1, 12))
