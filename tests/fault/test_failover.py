"""Two storage servers over one data directory: the lock decides, and databases move to its holder.

Whatever happens to the owner, nothing that was acknowledged is lost and nothing is done twice.
"""

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from messagehub.client import Hub
from messagehub.errors import HubError
from messagehub.v1 import hub_service_pb2_grpc, storage_service_pb2_grpc
from messagehub.v1.hub_service_pb2 import GetStatusRequest, HubStatus
from tests.support.calls import DATABASE, SERVICE, execute_request, rows, run_async
from tests.support.eventually import eventually
from tests.support.health import NOT_SERVING, SERVING, check, wait_for_status
from tests.support.ports import free_address
from tests.support.processes import Processes, ServerProcess, running_processes
from tests.support.refusals import refused

HEALTH = f"storage.{DATABASE}"
INSERT = "INSERT INTO kept VALUES (?)"
SECONDS_MAX = 60.0


class Platform:
    """A hub, the storage server that has the databases, and its standby."""

    def __init__(self, processes: Processes, owner: ServerProcess, standby: ServerProcess) -> None:
        self.owner = owner
        self.standby = standby
        self.hub = processes.hub(owner.address, "--storage", standby.address)
        self.file = processes.data_dir / f"{DATABASE}.db"

    async def served_by(self) -> str:
        """The address of the storage server that has the database now; empty = nobody."""
        status = await status_of(self.hub.address)
        (database,) = (one for one in status.databases if one.database == DATABASE)
        return database.storage_server if database.available else ""


async def status_of(hub: str) -> HubStatus:
    async with grpc.aio.insecure_channel(hub) as channel:
        stub: Any = hub_service_pb2_grpc.HubServiceStub(channel)
        status: HubStatus = (await stub.GetStatus(GetStatusRequest(), timeout=5)).status
        return status


@pytest_asyncio.fixture(loop_scope="session")
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    async with running_processes(tmp_path) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def platform(processes: Processes) -> AsyncIterator[Platform]:
    owner = processes.storage()
    await owner.ready()
    # A hub of its own gives the first one its databases before the second one begins.
    async with first_hub(processes, owner):
        standby = processes.storage()
        await standby.ready()
        made = Platform(processes, owner, standby)
        await made.hub.ready(HEALTH)
    yield made


class first_hub:  # noqa: N801 - reads as a verb
    """A hub for a while."""

    def __init__(self, processes: Processes, storage: ServerProcess) -> None:
        self._hub = processes.hub(storage.address, "--data-dir", "first-hub-data")

    async def __aenter__(self) -> None:
        await self._hub.ready(HEALTH)

    async def __aexit__(self, *_: object) -> None:
        await self._hub.stop()


class Books:
    """What writers were told, and what a subscriber saw."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.seen: list[str] = []
        self.moves: list[tuple[str, str]] = []
        self.enough = asyncio.Event()

    async def write(self, hub: Hub) -> None:
        while not self.enough.is_set():
            request_id = str(uuid.uuid4())
            await hub.execute(INSERT, [request_id], request_id=request_id)
            self.written.append(request_id)

    async def follow(self, hub: Hub, connected: asyncio.Event, last: str) -> None:
        types = ["storage.operation_completed", "storage.failed_over"]
        async with hub.subscribe(types=types) as events:
            connected.set()
            async for event in events:
                if event.type == "storage.failed_over":
                    move: Any = event.data
                    self.moves.append((move.from_storage_server, move.to_storage_server))
                    assert event.source == "hub"
                    continue
                completed: Any = event.data
                self.seen.append(completed.request_id)
                if completed.request_id == last:
                    return

    async def more(self, count: int) -> None:
        enough = len(self.written) + count
        await eventually(lambda: len(self.written) >= enough)


def check_file(file: Path, written: list[str]) -> None:
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        kept = [row[0] for row in connection.execute("SELECT id FROM kept")]
    assert sorted(kept) == sorted(written)


@pytest.mark.parametrize("ending", ["killed", "stopped"])
async def test_databases_move_with_nothing_lost_and_nothing_twice(
    platform: Platform, ending: str
) -> None:
    owner, standby = platform.owner, platform.standby
    books, last = Books(), str(uuid.uuid4())
    async with Hub(platform.hub.address, service=SERVICE) as hub, asyncio.timeout(SECONDS_MAX):
        await hub.execute("CREATE TABLE kept (id)")
        connected = asyncio.Event()
        following = asyncio.create_task(books.follow(hub, connected, last))
        await connected.wait()
        async with asyncio.TaskGroup() as writers:
            for _ in range(4):
                writers.create_task(books.write(hub))
            # There and back again: the one that comes back is the standby of the other.
            for one, other in ((owner, standby), (standby, owner)):
                assert await platform.served_by() == one.address
                await books.more(50)
                if ending == "killed":
                    one.kill()
                else:
                    assert await one.stop() == 0
                await books.more(50)
                assert await platform.served_by() == other.address
                one.start()
                await one.ready()
            books.enough.set()
        await hub.execute(INSERT, [last], request_id=last)
        await following
    written = [*books.written, last]
    assert sorted(books.seen) == sorted(written)
    assert books.moves == [
        (owner.address, standby.address),
        (standby.address, owner.address),
    ]
    for server in (platform.hub, owner, standby):
        assert await server.stop() == 0
    check_file(platform.file, written)


async def test_a_paused_owner_is_never_doubled(processes: Processes, platform: Platform) -> None:
    # This hub knows the standby only, so nothing can go to the owner that is paused.
    other = processes.hub(platform.standby.address, "--data-dir", "other-hub-data")
    await other.ready()
    async with (
        grpc.aio.insecure_channel(platform.hub.address) as channel,
        grpc.aio.insecure_channel(other.address) as other_channel,
    ):
        stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        beside: Any = storage_service_pb2_grpc.StorageServiceStub(other_channel)
        await run_async(stub, "CREATE TABLE kept (id)")
        await run_async(stub, INSERT, "before")
        platform.owner.freeze()
        request = execute_request(INSERT, "during", request_id=str(uuid.uuid4()))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Execute(request, timeout=1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        for _ in range(5):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await run_async(beside, INSERT, "doubled")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert await check(other.address, HEALTH) == NOT_SERVING
            # Longer than the standby waits between its tries to take the lock.
            await asyncio.sleep(0.5)
        (state,) = (
            one for one in (await status_of(other.address)).databases if one.database == DATABASE
        )
        assert f"pid {platform.owner.pid}" in state.detail
        platform.owner.thaw()
        assert (await stub.Execute(request, timeout=20)).result.rows_affected == 1
        assert rows(await run_async(stub, "SELECT id FROM kept")) == [("before",), ("during",)]
        assert await platform.served_by() == platform.owner.address
        # Paused again, then killed: the lock is free, and only now the standby may have it.
        platform.owner.freeze()
        platform.owner.kill()
        await other.ready(HEALTH)
        assert rows(await run_async(beside, "SELECT id FROM kept")) == [("before",), ("during",)]


async def test_databases_on_different_storage_servers_do_not_harm_each_other(
    tmp_path: Path, processes: Processes
) -> None:
    shared, own = free_address(), free_address()
    (tmp_path / "messagehub.toml").write_text(
        f'[hub.databases.auth_db]\nstorage = ["{own}"]\n[storage]\n'
    )
    storages = [
        processes.storage(address=shared),
        processes.storage("--data-dir", str(tmp_path / "own-data"), address=own),
    ]
    hub = processes.hub(shared)
    await hub.ready("storage.auth_db")
    await hub.ready(HEALTH)
    assert (tmp_path / "own-data" / "auth_db.db").exists()
    assert not (processes.data_dir / "auth_db.db").exists()
    async with grpc.aio.insecure_channel(hub.address) as channel:
        stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        assert rows(await run_async(stub, "SELECT 1", service="auth")) == [(1,)]
        storages[1].kill()
        await wait_for_status(hub.address, "storage.auth_db", NOT_SERVING)
        assert await check(hub.address) == SERVING
        assert await check(hub.address, HEALTH) == SERVING
        for _ in range(20):
            assert rows(await run_async(stub, "SELECT 1")) == [(1,)]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await run_async(stub, "SELECT 1", service="auth")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        storages[1].start()
        await hub.ready("storage.auth_db")
        assert rows(await run_async(stub, "SELECT 1", service="auth")) == [(1,)]


async def test_a_database_whose_idle_owner_let_it_go_is_found_again(
    tmp_path: Path, processes: Processes
) -> None:
    """An idle owner closes its files, and then the standby may have them."""
    (tmp_path / "messagehub.toml").write_text(
        "[storage]\nidle_close_seconds = 0.3\ntrim_every_seconds = 0.1\nreopen_seconds = 0.2\n"
    )
    one, other = processes.storage(), processes.storage()
    hub = processes.hub(one.address, "--storage", other.address)
    await hub.ready(HEALTH)
    async with grpc.aio.insecure_channel(hub.address) as channel:
        stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        await run_async(stub, "CREATE TABLE kept (id)")
        for number in range(6):
            await run_async(stub, INSERT, number)
            # Long enough for the owner to become idle and for the standby to look.
            await asyncio.sleep(0.8)
        found = rows(await run_async(stub, "SELECT id FROM kept"))
    assert found == [(number,) for number in range(6)]


async def test_without_any_storage_server_the_hub_says_so_and_waits(platform: Platform) -> None:
    async with Hub(platform.hub.address, service=SERVICE) as hub:
        for server in (platform.owner, platform.standby):
            server.kill()
        await wait_for_status(platform.hub.address, "", NOT_SERVING)
        with pytest.raises(HubError) as caught:
            await hub.execute("SELECT 1", timeout=0.5)
        assert caught.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        platform.standby.start()
        assert (await hub.execute("SELECT 1")).rows == [(1,)]
        with refused("NOT_FOUND", "INVALID_ROUTE"):
            stub: Any = storage_service_pb2_grpc.StorageServiceStub(hub.channel)
            await run_async(stub, "SELECT 1", database="nowhere_db")
