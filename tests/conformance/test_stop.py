"""A server that stops finishes or refuses everything; nobody is left without an answer."""

import asyncio
from pathlib import Path
from typing import Any

import grpc

from messagehub.errors import HubError
from messagehub.status import from_rpc_error
from messagehub.storage.v1 import storage_service_pb2 as wire
from storage.config import StorageConfig
from storage.server import StorageServer
from tests.conformance.operations import CREATE, ENDLESS_READ, ENDLESS_ROWS, ENDLESS_WRITE
from tests.conformance.storage_client import StorageClient, asking, failure_of, reasons
from tests.support.calls import rows, statement

GUARD_SECONDS = 60.0
DOWN = "SHUTTING_DOWN"


async def started(directory: Path, **settings: Any) -> tuple[StorageServer, StorageClient]:
    server = StorageServer(StorageConfig(listen="127.0.0.1:0", data_dir=str(directory), **settings))
    await server.start()
    return server, StorageClient(server.address)


async def ending_of(call: Any) -> HubError:
    """How a stream ends that was open when the server stopped."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as failure:
        return from_rpc_error(failure)
    raise AssertionError("it ended as if everything had been said")


async def test_everything_that_is_under_way_is_answered(tmp_path: Path) -> None:
    server, client = await started(tmp_path, drain_seconds=0.2)
    await client.run(asking(CREATE))
    query = wire.QueryRequest(database="items_db", statement=statement(ENDLESS_READ))
    paused = wire.QueryRequest(database="items_db", statement=statement(ENDLESS_ROWS), page_size=1)
    running = client.stub.Query(query)
    waiting = client.stub.Query(paused)
    await waiting.read()
    tail = client.stub.Tail(wire.TailRequest(database="items_db", from_end=True))
    await tail.read()
    asked = client.send(asking(ENDLESS_WRITE, service="busy"), asking(ENDLESS_READ))
    await client.taken()
    asked += client.send(*(asking(f"INSERT INTO items VALUES ({n}, 0)") for n in range(20)))
    asked += client.send(*(asking(CREATE, database=f"new{n}_db") for n in range(5)))
    await client.taken()
    endings = [asyncio.ensure_future(ending_of(call)) for call in (running, waiting, tail)]
    async with asyncio.timeout(GUARD_SECONDS):
        await server.stop()
        outcomes = await asyncio.gather(*asked)
        streams = await asyncio.gather(*endings)
    assert set(reasons(outcomes)) <= {"", DOWN}
    assert reasons(outcomes[:2]) == [DOWN, DOWN], "what never ends is ended"
    for outcome in outcomes:
        if outcome.HasField("error"):
            assert failure_of(outcome).retry_after, "another server, or this one later, will do it"
    assert {error.code for error in streams} == {"UNAVAILABLE"}
    await client.close()

    server, client = await started(tmp_path)
    (kept,) = await client.run(asking("SELECT count(*) FROM items"))
    told = reasons(outcomes[2:22]).count("")
    assert rows(kept.result) == [(told,)], "done if it was told so, and only then"
    await client.close()
    await server.stop()


async def test_a_write_under_way_is_finished_and_answered(tmp_path: Path) -> None:
    server, client = await started(tmp_path)
    await client.run(asking(CREATE))
    counting = "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 100000)"
    (answer,) = client.send(asking(f"INSERT INTO items {counting} SELECT n, n FROM c"))
    await client.taken()
    async with asyncio.timeout(GUARD_SECONDS):
        await server.stop()
        outcome = await answer
    assert reasons([outcome]) == [""]
    assert outcome.result.rows_affected == 100_000
    await client.close()


async def test_a_server_that_stops_leaves_one_clean_file_for_each_database(tmp_path: Path) -> None:
    server, client = await started(tmp_path)
    names = [f"db{number}" for number in range(6)]
    outcomes = await client.run(*(asking(CREATE, database=name) for name in names))
    assert reasons(outcomes) == [""] * 6
    await client.close()
    await server.stop()
    left = sorted(file.name for file in tmp_path.iterdir() if not file.name.endswith(".lock"))
    assert left == [f"{name}.db" for name in names]
