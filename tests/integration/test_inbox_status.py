"""What waits for later delivery, and an inbox that is lost, are seen from outside."""

import json
import sqlite3
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest

from messagehub.v1 import hub_service_pb2_grpc, storage_service_pb2_grpc
from messagehub.v1.hub_service_pb2 import GetStatusRequest, WatchStatusRequest
from tests.support.calls import CALL_SECONDS, run_async
from tests.support.eventually import eventually
from tests.support.health import NOT_SERVING, SERVING, check, wait_for_status
from tests.support.processes import run_command
from tests.support.refusals import refused
from tests.support.servers import running_servers
from tests.support.submissions import ended, submit

OWN = "character_db"
COUNT = 5


def of_own(databases: Any) -> Any:
    return next(one for one in databases if one.database == OWN)


async def command(*arguments: str) -> str:
    status, output, errors = await run_command(*arguments)
    assert status == 0, errors
    return output


@pytest.fixture
def settings() -> dict[str, Any]:
    # What a delivery would sleep for, if closing the circuit did not wake it.
    return {"circuit_open_seconds_max": 1000.0, "delivery_retry_seconds_max": 1000.0}


async def test_what_waits_is_shown_and_goes_as_soon_as_the_circuit_is_closed(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    async with (
        running_servers(tmp_path, hub=settings) as servers,
        grpc.aio.insecure_channel(servers.hub.address) as channel,
    ):
        target = ("--target", servers.hub.address)
        stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        operator: Any = hub_service_pb2_grpc.HubServiceStub(channel)
        await run_async(stub, "CREATE TABLE kept (n)")
        opened = json.loads(await command("circuits", "open", OWN, "--json", *target))
        assert (opened["circuit"], opened["available"]) == ("CIRCUIT_STATE_OPEN", False)
        watch = operator.WatchStatus(WatchStatusRequest(), timeout=CALL_SECONDS)
        await watch.read()
        submitted = [await submit(stub, "INSERT INTO kept VALUES (?)", n) for n in range(COUNT)]
        status = (await operator.GetStatus(GetStatusRequest(), timeout=CALL_SECONDS)).status
        found = of_own(status.databases)
        assert found.inbox_operations == COUNT
        assert found.inbox_bytes > 0
        assert found.inbox_oldest_age.ToMicroseconds() > 0
        assert f" {COUNT} (" in await command("status", *target)
        while (await watch.read()).database.inbox_operations != COUNT:
            pass
        closed = await command("circuits", "close", OWN, *target)
        assert f"the circuit of {OWN} is closed" in closed
        for one in submitted:
            await ended(stub, one.operation.request_id)
        while (await watch.read()).database.inbox_operations:
            pass
        watch.cancel()
        status = (await operator.GetStatus(GetStatusRequest(), timeout=CALL_SECONDS)).status
        assert not of_own(status.databases).inbox_operations


async def test_an_inbox_whose_fsync_failed_makes_the_hub_unready_and_says_so(
    tmp_path: Path,
) -> None:
    def broken(_: sqlite3.Connection) -> NoReturn:
        failure = sqlite3.OperationalError("disk I/O error")
        failure.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise failure

    async with (
        running_servers(tmp_path) as servers,
        grpc.aio.insecure_channel(servers.hub.address) as channel,
    ):
        hub = servers.hub
        stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        with pytest.raises(Exception, match="fsync"):
            await hub._later._store._commits.change(broken)
        await wait_for_status(hub.address, "", NOT_SERVING)
        assert await check(hub.address, "liveness") == SERVING
        with refused("UNAVAILABLE", "DATABASE_UNAVAILABLE"):
            await submit(stub, "SELECT 1")
        status = json.loads(await command("status", "--json", "--target", hub.address))
        assert not status["ready"]
        assert "restart the hub" in status["inbox_detail"]
        assert "inbox: fsync failed" in await command("status", "--target", hub.address)
        # What needs no inbox is still done for whoever comes.
        await run_async(stub, "SELECT 1")

        async def database_serves() -> bool:
            return await check(hub.address, f"storage.{OWN}") == SERVING

        await eventually(database_serves)
