"""When fsync fails, nobody knows what is on disk: the database is fenced, the others go on.

Once with the failure put in the way of SQLite's COMMIT, which runs everywhere, and once with a real
system call that fails, injected by strace where that is installed.
"""

import asyncio
import os
import signal
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from messagehub.status import from_rpc_error
from messagehub.storage.v1 import storage_service_pb2 as wire
from storage.config import StorageConfig
from storage.server import StorageServer
from tests.conformance.storage_client import StorageClient, failure_of
from tests.fault.storage_disk import CREATE, INSERT, Ask, storage_process, strace
from tests.support.health import NOT_SERVING, SERVING, wait_for_status
from tests.support.processes import ServerProcess

GUARD_SECONDS = 60.0
VICTIM, OTHER = "victim_db", "other_db"


class FailingCommit:
    """Stands before a connection; its COMMIT fails as SQLite's does when fsync fails."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw
        self.commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if statement != "COMMIT":
            return self._raw.execute(statement, *parameters)
        self.commits += 1
        self._raw.execute("ROLLBACK")
        failure = sqlite3.OperationalError("disk I/O error")
        failure.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise failure


async def check_fenced(client: StorageClient) -> None:
    """The victim refuses everything and says why; the other database goes on."""
    victim, other = Ask(client, VICTIM), Ask(client, OTHER)
    for query in ("SELECT 1", "DELETE FROM items", CREATE):
        error = await victim.refused(query)
        assert error.reason == "DATABASE_UNAVAILABLE"
        assert "fsync" in error.message
        assert "restart" in error.message, "it says what to do"
    state = await victim.state()
    assert (state.available, "fsync" in state.detail) == (False, True)
    for call in (
        client.stub.Tail(wire.TailRequest(database=VICTIM)).read(),
        client.stub.LookUpOperation(
            wire.LookUpOperationRequest(database=VICTIM, request_id=str(uuid.uuid4()))
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert from_rpc_error(caught.value).reason == "DATABASE_UNAVAILABLE"
    health = health_pb2_grpc.HealthStub(client.channel)
    for database, expected in ((VICTIM, NOT_SERVING), (OTHER, SERVING)):
        name = health_pb2.HealthCheckRequest(service=f"storage.{database}")
        assert (await health.Check(name)).status == expected
    await other.done("INSERT INTO items (content) VALUES ('fine')")
    assert (await other.state()).available


async def test_a_commit_whose_fsync_failed_fences_the_database(tmp_path: Path) -> None:
    server = StorageServer(StorageConfig(listen="127.0.0.1:0", data_dir=str(tmp_path)))
    await server.start()
    client = StorageClient(server.address)
    victim = Ask(client, VICTIM)
    await victim.done(CREATE)
    await Ask(client, OTHER).done(CREATE)
    await victim.done(INSERT, 1, "acknowledged")
    engine: Any = server._databases.get(VICTIM)._engine
    failing = FailingCommit(engine._writer._raw)
    engine._writer._raw = failing
    asked = [victim.outcome(INSERT, number, "unknown") for number in range(2, 8)]
    outcomes = await asyncio.gather(*asked)
    assert {failure_of(outcome).reason for outcome in outcomes} == {"DATABASE_UNAVAILABLE"}
    assert failing.commits == 1, "nothing is tried again: it could seem to succeed"
    await check_fenced(client)
    await client.close()
    await server.stop()

    server = StorageServer(StorageConfig(listen="127.0.0.1:0", data_dir=str(tmp_path)))
    await server.start()
    client = StorageClient(server.address)
    victim = Ask(client, VICTIM)
    assert await victim.ids() == [1]
    await victim.done(INSERT, 2, "again")
    await client.close()
    await server.stop()


async def children_of(process: ServerProcess) -> list[int]:
    """The processes below one that runs another."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


async def test_a_failed_system_call_fences_the_database(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    log = data / f"{VICTIM}.db-wal"
    options = ["-o", os.devnull, "-P", str(log), "-e", "trace=fsync,fdatasync"]
    options += ["-e", "inject=fsync,fdatasync:error=EIO:when=20+"]
    ids = [str(uuid.uuid4()) for _ in range(60)]
    acknowledged: list[int] = []
    async with storage_process(tmp_path / "run", data, *strace(*options)) as (process, client):
        victim = Ask(client, VICTIM)
        await Ask(client, OTHER).done(CREATE)
        await victim.done(CREATE)
        async with asyncio.timeout(GUARD_SECONDS):
            for number, request_id in enumerate(ids):
                outcome = await victim.outcome(INSERT, number, "x", request_id=request_id)
                if outcome.HasField("error"):
                    break
                acknowledged.append(number)
        assert failure_of(outcome).reason == "DATABASE_UNAVAILABLE"
        assert 5 < len(acknowledged) < 20
        await check_fenced(client)
        await client.close()
        (server,) = await children_of(process)
        os.kill(server, signal.SIGTERM)
        assert await process.wait() == 0, "a fenced database does not keep the server from ending"

    async with storage_process(tmp_path / "run", data) as (process, client):
        victim = Ask(client, VICTIM)
        kept = await victim.ids()
        assert kept[: len(acknowledged)] == acknowledged
        assert len(kept) <= len(acknowledged) + 1, "only the last one was in doubt"
        # Asked again, the one in doubt has one outcome, whichever it is.
        doubtful = len(acknowledged)
        again = await victim.outcome(INSERT, doubtful, "x", request_id=ids[doubtful])
        assert not again.HasField("error")
        assert again.replayed == (doubtful in kept)
        assert await victim.ids() == list(range(doubtful + 1))
        await wait_for_status(process.address, f"storage.{VICTIM}", SERVING)
