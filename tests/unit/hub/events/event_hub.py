"""A hub with nothing but events, over real gRPC, before a storage server of the test's."""

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import grpc

from hub.adapters.subscriptions import StorageSubscriptions
from hub.adapters.tail import StorageJournal
from hub.api.event_service import EventService, add_to_server
from hub.core.events.fanout import Fanout
from hub.core.routing.router import Router
from hub.core.routing.routes import Routes
from hub.core.status import StatusBoard
from hub.core.subscriptions.leases import Leases
from hub.core.subscriptions.named_subscriptions import NamedSubscriptions
from messagehub.serving.process import bind, make_server
from messagehub.v1 import event_service_pb2_grpc
from tests.unit.hub.events.fanout_bench import LIMITS

SERVICES = {"character": "character_db", "auth": "auth_db", "metrics": "metrics_db"}
GRANTS = {"character": {"auth_db": "read"}}
OWN = "character_db"
EVENT_BYTES_MAX = 1000


class Operations:
    """The port of the exchange; remembers what it was given."""

    def __init__(self):
        self.operations = []

    async def run(self, operations, seconds):
        assert 0 < seconds < 60
        self.operations += operations
        return [
            SimpleNamespace(
                sequence=7,
                schema_version="1.2.0",
                replayed=False,
                event_id=f"{one.database}/0f/7",
                result=None,
            )
            for one in operations
        ]


def named_subscriptions(storage_channel, fanout):
    store = StorageSubscriptions(storage_channel, retry_seconds=0.5)
    clock = asyncio.get_running_loop().time
    leases = Leases(store, seconds=15.0, clock=clock, sleep=asyncio.sleep)
    holders = map(str, range(100))
    return NamedSubscriptions(store, fanout, leases, make_holder=lambda: next(holders), seconds=5.0)


@asynccontextmanager
async def hub_before(storage_address, operations, services=SERVICES, grants=GRANTS, **limits):
    """A hub with nothing but events; gives its service and a stub."""
    settings = {"heartbeat_seconds": 0.1, "reconnect_seconds_min": 0.05, **limits}
    async with grpc.aio.insecure_channel(storage_address) as storage_channel:
        fanout = Fanout(
            StorageJournal(storage_channel, silence_seconds_max=5.0, retry_seconds=0.5),
            replace(LIMITS, reconnect_seconds_max=0.1, **settings),
            clock=asyncio.get_running_loop().time,
            sleep=asyncio.sleep,
            random=random.random,
        )
        routes = Routes(services, grants)
        status = StatusBoard(databases=routes.databases, changes_max=1, watchers_max=1)
        router = Router(routes=routes, operations=operations, storage=None, status=status)
        service = EventService(
            routes=routes,
            router=router,
            fanout=fanout,
            named=named_subscriptions(storage_channel, fanout),
            operation_requests=None,
            schema_requests=None,
            backup_requests=None,
            event_bytes_max=EVENT_BYTES_MAX,
        )
        server = make_server(
            message_bytes_max=100_000, default_timeout=20.0, concurrent_streams_max=100
        )
        add_to_server(service, server)
        address = bind(server, "127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                yield SimpleNamespace(
                    service=service,
                    fanout=fanout,
                    stub=event_service_pb2_grpc.EventServiceStub(channel),
                    operations=operations,
                )
        finally:
            await service.close()
            await server.stop(1.0)
