"""The status of a hub as it changes, through restarts of the hub."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import grpc

from messagehub.channel import decode
from messagehub.client import Hub
from messagehub.errors import HubError, StorageUnavailable
from messagehub.retries import Retries, may_retry
from messagehub.v1.hub_service_pb2 import HubStatus, WatchStatusRequest, WatchStatusResponse
from messagehub.v1.hub_service_pb2_grpc import HubServiceStub

# Positions of journals are no changes that a hub tells of; they are looked at so often.
REFRESH_SECONDS: Final = 1.0


async def follow_status(hub: Hub) -> AsyncGenerator[HubStatus | HubError]:
    """Gives the status now and whenever it changed, and an error when the hub was lost.

    Goes on until it is closed; raises a `HubError` that waiting cannot cure.
    """
    retries = Retries()
    failures = 0
    while True:
        try:
            async with aclosing(_statuses(hub)) as statuses:
                async for status in statuses:
                    failures = 0
                    yield status
        except HubError as error:
            if not may_retry(error):
                raise
            lost = error
        failures += 1
        if failures == 1:
            yield lost
        await asyncio.sleep(retries.delay(failures, lost.retry_after))


async def _statuses(hub: Hub) -> AsyncGenerator[HubStatus]:
    """Gives the statuses of one stream; always ends with a `HubError`."""
    call = HubServiceStub(hub.channel).WatchStatus(WatchStatusRequest(source_service=hub.service))
    reading: asyncio.Future[object] | None = None
    status = HubStatus()
    try:
        while True:
            # A read that is cancelled ends its call, so it goes on while the positions are asked.
            reading = reading or asyncio.ensure_future(call.read())
            await asyncio.wait([reading], timeout=REFRESH_SECONDS)
            if reading.done():
                changed = _changed(status, reading.result())
                reading = None
            else:
                changed = await hub.status()
            if changed != status:
                status = changed
                yield status
    except grpc.aio.AioRpcError as failure:
        raise decode(failure, hub.target) from failure
    finally:
        call.cancel()
        if reading is not None:
            await asyncio.wait([reading])


def _changed(status: HubStatus, update: object) -> HubStatus:
    if not isinstance(update, WatchStatusResponse):
        raise StorageUnavailable("the hub ended the stream of its status")
    kind = update.WhichOneof("update")
    if kind == "snapshot":
        return update.snapshot
    changed = HubStatus()
    changed.CopyFrom(status)
    if kind == "storage_server":
        for server in changed.storage_servers:
            if server.address == update.storage_server.address:
                server.CopyFrom(update.storage_server)
        connected = any(server.connected for server in changed.storage_servers)
        changed.ready = connected and not changed.inbox_detail
    elif kind == "database":
        for database in changed.databases:
            if database.database == update.database.database:
                database.CopyFrom(update.database)
    return changed
