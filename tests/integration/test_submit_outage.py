"""Submitting while the database cannot be used: accepted, kept, bounded, and then delivered."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from hub.config import HubConfig
from hub.server import HubServer
from messagehub.v1 import event_service_pb2_grpc, storage_service_pb2_grpc
from messagehub.v1.event_service_pb2 import SubscribeRequest
from storage.config import StorageConfig
from storage.server import StorageServer
from tests.support.calls import rows, run_async
from tests.support.event_stream import FAILED
from tests.support.eventually import eventually
from tests.support.health import SERVING, check, wait_until_serving
from tests.support.ports import free_address
from tests.support.processes import run_command
from tests.support.refusals import refusal_of, refused
from tests.support.submissions import cancel, ended, get, listed, state_of, submit

QUICK = {"delivery_retry_seconds_min": 0.01, "delivery_retry_seconds_max": 0.1}


class Platform:
    """A hub and a storage server that come and go, each at its address with its directory."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        address = free_address()
        data_dir = str(directory)
        self._storage_config = StorageConfig(listen=address, data_dir=data_dir, drain_seconds=0.2)
        self.hub_config = HubConfig(
            **{"listen": free_address(), "storage": address, "data_dir": data_dir}
            | QUICK
            | settings
        )
        self._hub: HubServer | None = None
        self._storage: StorageServer | None = None

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[Any]:
        async with grpc.aio.insecure_channel(self.hub_config.listen) as channel:
            yield storage_service_pb2_grpc.StorageServiceStub(channel)

    async def start_hub(self) -> None:
        self._hub = HubServer(self.hub_config)
        await self._hub.start()

    async def stop_hub(self) -> None:
        if self._hub is not None:
            await self._hub.stop()
            self._hub = None

    async def start_storage(self) -> None:
        self._storage = StorageServer(self._storage_config)
        await self._storage.start()
        await wait_until_serving(self.hub_config.listen, "storage.character_db")

    async def stop_storage(self) -> None:
        if self._storage is not None:
            await self._storage.stop()
            self._storage = None


@asynccontextmanager
async def platform(directory: Path, **settings: Any) -> AsyncIterator[tuple[Platform, Any]]:
    """A hub without its storage server."""
    one = Platform(directory, **settings)
    await one.start_hub()
    try:
        async with one.stub() as stub:
            yield one, stub
    finally:
        await one.stop_hub()
        await one.stop_storage()


async def test_operations_wait_for_their_database_and_are_then_executed_in_order(
    tmp_path: Path,
) -> None:
    async with platform(tmp_path) as (one, stub):
        await submit(stub, "CREATE TABLE t (n INTEGER)")
        ids = [
            (await submit(stub, "INSERT INTO t VALUES (?)", number)).operation.request_id
            for number in range(20)
        ]
        assert {state_of(operation) for operation in await listed(stub)} == {"QUEUED"}
        with refused("UNAVAILABLE", "STORAGE_UNAVAILABLE"):
            await run_async(stub, "SELECT 1")
        await one.start_storage()
        await ended(stub, ids[-1])
        found = rows(await run_async(stub, "SELECT n FROM t ORDER BY rowid"))
        assert found == [(number,) for number in range(20)]


async def test_what_was_accepted_survives_a_restart_of_the_hub(tmp_path: Path) -> None:
    async with platform(tmp_path) as (one, stub):
        first = await submit(stub, "CREATE TABLE t (n INTEGER)", correlation_id="before")
        await one.stop_hub()
        await one.start_hub()
        known = await get(stub, first.operation.request_id)
        assert (state_of(known), known.correlation_id) == ("QUEUED", "before")
        await one.start_storage()
        assert state_of(await ended(stub, first.operation.request_id)) == "COMPLETED"
        await one.stop_hub()
        await one.start_hub()
        known = await get(stub, first.operation.request_id)
        assert (state_of(known), known.attempts) == ("COMPLETED", 1)


async def test_a_queued_operation_can_be_taken_back_and_never_happens(tmp_path: Path) -> None:
    async with platform(tmp_path) as (one, stub):
        await submit(stub, "CREATE TABLE t (n INTEGER)")
        ids = [
            (await submit(stub, "INSERT INTO t VALUES (?)", number)).operation.request_id
            for number in range(3)
        ]
        for _ in range(2):
            cancelled = await cancel(stub, ids[1])
            assert state_of(cancelled) == "CANCELLED"
        await one.stop_hub()
        await one.start_hub()
        assert state_of(await get(stub, ids[1])) == "CANCELLED"
        await one.start_storage()
        await ended(stub, ids[2])
        assert rows(await run_async(stub, "SELECT n FROM t ORDER BY n")) == [(0,), (2,)]
        assert state_of(await get(stub, ids[1])) == "CANCELLED"
        again = await submit(stub, "INSERT INTO t VALUES (?)", 1, request_id=ids[1])
        assert again.replayed
        assert state_of(again.operation) == "CANCELLED"


async def test_the_commands_work_while_the_database_does_not(tmp_path: Path) -> None:
    async with platform(tmp_path) as (one, stub):
        request_id = (await submit(stub, "SELECT 1")).operation.request_id
        for command, state in (("get", "QUEUED"), ("cancel", "CANCELLED"), ("get", "CANCELLED")):
            status, output, errors = await run_command(
                "operations", command, request_id, "--json", "--target", one.hub_config.listen
            )
            assert status == 0, errors
            assert json.loads(output)["state"] == state


async def test_past_its_bounds_the_hub_refuses_instead_of_forgetting(tmp_path: Path) -> None:
    settings = {"inbox_operations_max": 3, "inbox_retry_seconds": 0.25}
    async with platform(tmp_path, **settings) as (one, stub):
        ids = [(await submit(stub, "SELECT 1")).operation.request_id for _ in range(3)]
        with refused("RESOURCE_EXHAUSTED", "QUEUE_FULL") as refusal:
            await submit(stub, "SELECT 1", service="auth", database="character_db")
        assert refusal.retry_seconds == 0.25
        assert refusal.metadata == {"limit": "3", "database": "character_db"}
        # Whose answer was lost is answered all the same.
        assert (await submit(stub, "SELECT 1", request_id=ids[0])).replayed
        await submit(stub, "SELECT 1", service="auth")
        await one.start_storage()
        await ended(stub, ids[2])
        await submit(stub, "SELECT 1")


async def test_bytes_are_bounded_as_well(tmp_path: Path) -> None:
    settings = {"inbox_bytes_max": 1_000_000, "message_bytes_max": 1_000_000}
    async with platform(tmp_path, **settings) as (_, stub):
        with refused("RESOURCE_EXHAUSTED", "QUEUE_FULL"):
            for _ in range(3):
                await submit(stub, "SELECT ?", "x" * 400_000)
        assert len(await listed(stub)) == 2


async def test_what_waits_for_too_long_fails_visibly(tmp_path: Path) -> None:
    settings = {"inbox_age_seconds_max": 0.3, "inbox_sweep_seconds": 0.05}
    async with platform(tmp_path, **settings) as (one, stub):
        answer = await submit(stub, "CREATE TABLE never (n)", correlation_id="too late")
        failed = await ended(stub, answer.operation.request_id)
        refusal = refusal_of(failed.error)
        assert (state_of(failed), refusal.reason) == ("FAILED", "DEADLINE_EXCEEDED")
        assert failed.attempts == 0
        await one.stop_hub()
        # Longer than the outage may have lasted, or the event that tells of it is too old as well.
        one.hub_config = HubConfig(
            listen=one.hub_config.listen,
            storage=one.hub_config.storage,
            data_dir=one.hub_config.data_dir,
        )
        await one.start_hub()
        await one.start_storage()
        async with grpc.aio.insecure_channel(one.hub_config.listen) as channel:
            events = event_service_pb2_grpc.EventServiceStub(channel)
            call = events.Subscribe(SubscribeRequest(source_service="character", earliest=True))
            async with asyncio.timeout(20):
                told = [event async for event in _events(call)]
            call.cancel()
        assert [(event.type, event.correlation_id) for event in told] == [(FAILED, "too late")]
        assert told[0].operation_failed.error == failed.error
        with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
            await run_async(stub, "SELECT * FROM never")


async def _events(call: Any) -> AsyncIterator[Any]:
    """The events of the first message that has some."""
    async for message in call:
        for event in message.events:
            yield event
        if message.events:
            return


async def test_a_second_hub_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    async with platform(tmp_path) as (one, _):
        second = HubServer(
            HubConfig(
                listen=free_address(),
                storage=one.hub_config.storage,
                data_dir=one.hub_config.data_dir,
            )
        )
        with pytest.raises(OSError, match=r"belongs to another hub \(pid \d+\).*--data-dir"):
            await second.start()
        # It has given its address up again, and the first one is as it was.
        assert await check(one.hub_config.listen, "liveness") == SERVING


async def test_the_backlog_can_be_told(tmp_path: Path) -> None:
    async with platform(tmp_path) as (one, stub):
        assert one._hub is not None
        inbox = one._hub._later.inbox
        await submit(stub, "SELECT 1")
        await submit(stub, "SELECT 1", service="auth", database="character_db")
        backlog = await inbox.backlog("character_db")
        assert backlog.operations == 2
        assert backlog.size > 0
        assert backlog.oldest_seconds > 0
        await one.start_storage()

        async def delivered() -> bool:
            return (await inbox.backlog("character_db")).operations == 0

        await eventually(delivered)
        assert (await inbox.backlog("character_db")).oldest_seconds == 0
