"""Limits of files, subscriptions, streams and events; and every refusal names its setting."""

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from messagehub.errors import HubError
from messagehub.status import from_rpc_error
from messagehub.storage.v1 import storage_service_pb2 as wire
from tests.conformance.limit_checks import GUARD_SECONDS, OVER, check, one, works
from tests.conformance.operations import CREATE
from tests.conformance.storage_client import StorageClient, asking, failure_of, reasons, serving
from tests.support.calls import rows, statement

CHUNK_BYTES: Final = 1024 * 1024


@OVER
async def test_named_parameters(tmp_path: Path, over: int) -> None:
    async with serving(tmp_path, parameters_max=50) as client:
        names = [f"p{n}" for n in range(50 + over)]
        operation = asking("")
        operation.statement.CopyFrom(
            statement(
                "SELECT " + ", ".join(f":{name}" for name in names), **dict.fromkeys(names, 1)
            )
        )
        (outcome,) = await client.run(operation)
        await check(client, outcome, over, "INVALID_REQUEST", limit="50")


# The size of a database.


async def filled(client: StorageClient) -> wire.Outcome:
    await one(client, "CREATE TABLE texts (content BLOB)")
    return await one(client, "INSERT INTO texts VALUES (zeroblob(300000))")


@OVER
async def test_the_bytes_of_a_database_to_the_byte(tmp_path: Path, over: int) -> None:
    """A file has whole pages: the one that takes it over the limit is not there."""
    async with serving(tmp_path / "free") as client:
        assert reasons([await filled(client)]) == [""]
        pages = rows((await one(client, "PRAGMA page_count")).result)[0][0]
        page_bytes = rows((await one(client, "PRAGMA page_size")).result)[0][0]
    assert isinstance(pages, int)
    assert isinstance(page_bytes, int)
    needed = pages * page_bytes
    async with serving(tmp_path / "limited", database_bytes_max=needed - over) as client:
        outcome = await filled(client)
        await check(client, outcome, over, "STORAGE_FULL")
        if over > 0:
            assert "database_bytes_max" in failure_of(outcome).message
            assert reasons([await one(client, "INSERT INTO texts VALUES (1)")]) == [""]


def a_database(file: Path) -> bytes:
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("CREATE TABLE adopted (content)")
        raw.execute("INSERT INTO adopted VALUES (zeroblob(?))", (CHUNK_BYTES + 100_000,))
        raw.commit()
    return file.read_bytes()


async def adopt(client: StorageClient, content: bytes, chunk_bytes: int) -> HubError | None:
    async def pieces() -> AsyncIterator[wire.AdoptDatabaseRequest]:
        header: dict[str, Any] = {
            "database": "items_db",
            "size_bytes": len(content),
            "checksum": hashlib.sha256(content).hexdigest(),
        }
        for start in range(0, len(content), chunk_bytes):
            chunk = content[start : start + chunk_bytes]
            yield wire.AdoptDatabaseRequest(chunk=chunk, **header)
            header = {}

    try:
        async with asyncio.timeout(GUARD_SECONDS):
            await client.stub.AdoptDatabase(pieces())
    except grpc.aio.AioRpcError as failure:
        return from_rpc_error(failure)
    return None


@OVER
async def test_the_bytes_of_a_file_to_adopt(tmp_path: Path, over: int) -> None:
    content = a_database(tmp_path / "file.db")
    limit = len(content) - over
    async with serving(tmp_path / "data", database_bytes_max=limit) as client:
        error = await adopt(client, content, CHUNK_BYTES)
        assert error is not None, "the journal needs room beside it"
        assert error.code == "RESOURCE_EXHAUSTED"
        told = "MESSAGE_TOO_LARGE" if over > 0 else "STORAGE_FULL"
        assert (error.reason, "database_bytes_max" in error.message) == (told, True)
        await works(client)


@OVER
async def test_the_bytes_of_a_piece_of_a_file(tmp_path: Path, over: int) -> None:
    content = a_database(tmp_path / "file.db")
    async with serving(tmp_path / "data") as client:
        error = await adopt(client, content, CHUNK_BYTES + over)
        assert (error.reason if error else "") == ("INVALID_REQUEST" if over > 0 else "")
        await works(client)


# Subscriptions, streams, messages of events.


@OVER
async def test_named_subscriptions(tmp_path: Path, over: int) -> None:
    async with serving(tmp_path, subscriptions_max=3) as client:
        told = []
        for number in range(3 + over):
            request = wire.OpenSubscriptionRequest(
                database="items_db", source_service="s", subscription=f"n{number}", holder="h"
            )
            try:
                await client.stub.OpenSubscription(request, timeout=GUARD_SECONDS)
            except grpc.aio.AioRpcError as failure:
                told.append(from_rpc_error(failure))
        assert len(told) == max(0, over)
        for error in told:
            assert (error.reason, error.code) == ("QUEUE_FULL", "RESOURCE_EXHAUSTED")
            assert error.metadata["limit"] == "3"
            assert error.retry_after
            assert "subscriptions_max" in error.message
        await works(client)


@OVER
async def test_streams_of_a_connection(tmp_path: Path, over: int) -> None:
    """One more than the limit waits for another to end; gRPC does not refuse it."""
    limit = 4
    async with serving(tmp_path, concurrent_streams_max=limit) as client:
        await one(client, CREATE)  # the exchange is a stream too
        request = wire.TailRequest(database="items_db")
        tails = [client.stub.Tail(request) for _ in range(limit - 2 + over)]
        for tail in tails:
            await tail.read()
        last = asyncio.ensure_future(
            client.stub.LookUpOperation(wire.LookUpOperationRequest(database="items_db"))
        )
        for _ in range(20):
            await works(client)
        if over > 0:
            assert not last.done()
            tails.pop().cancel()
        async with asyncio.timeout(GUARD_SECONDS):
            assert not (await last).found
        for tail in tails:
            tail.cancel()


async def test_bytes_of_a_message_of_a_tail(tmp_path: Path) -> None:
    """About so many, but at least one event; from the memory of the server and from the file."""
    settings = {"tail_message_bytes_max": 10_000, "tail_bytes_max": 50_000}
    async with serving(tmp_path, **settings) as client:
        await one(client, CREATE)
        sizes = [4_000] * 20 + [30_000] + [4_000] * 5
        for size in sizes:
            await one(client, f"DELETE FROM items /* {'x' * size} */")
            event = wire.Operation(database="items_db", source_service="s")
            event.event.type = "character.levelled_up"
            event.event.custom = b"x" * size
            assert reasons(await client.run(event)) == [""]
        found: list[int] = []
        call = client.stub.Tail(wire.TailRequest(database="items_db"))
        async for part in call:
            assert len(part.events) <= 1 or part.ByteSize() < 2 * 10_000
            found += [event.sequence for event in part.events]
            if len(found) == 1 + 2 * len(sizes):
                break
        call.cancel()
        assert found == list(range(1, 2 + 2 * len(sizes)))


# Every refusal names the setting that it comes from.


@pytest.mark.parametrize(
    ("settings", "query", "parameters"),
    [
        ({"statement_bytes_max": 10}, "SELECT 1234567", ()),
        ({"parameters_max": 1}, "SELECT ?, ?", (1, 2)),
        ({"value_bytes_max": 1000}, "SELECT ?", ("x" * 2000,)),
        ({"result_rows_max": 1}, "VALUES (1), (2)", ()),
        ({"result_bytes_max": 1000}, "SELECT ?", ("x" * 2000,)),
        ({"queue_bytes_max": 1000}, "SELECT ?", ("x" * 2000,)),
        ({"caller_bytes_max": 1000}, "SELECT ?", ("x" * 2000,)),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
async def test_a_refusal_names_the_setting(
    tmp_path: Path, settings: dict[str, int], query: str, parameters: tuple[int | str, ...]
) -> None:
    async with serving(tmp_path, **settings) as client:
        error = failure_of(await one(client, query, *parameters))
        (name,) = settings
        assert name in error.message
        assert error.retry_after is None, "waiting does not help"
