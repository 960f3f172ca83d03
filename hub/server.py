"""The composition root of the hub."""

import asyncio
import random
import time
import uuid
from typing import Final

from grpc_health.v1 import health_pb2, health_pb2_grpc

from hub.api import event_service, schema_service
from hub.api.backup_service import FULL_NAME as BACKUP_SERVICE
from hub.api.checks import RequestChecks
from hub.api.event_service import EventService
from hub.api.hub_service import HubService
from hub.api.operation_requests import OperationRequests
from hub.api.storage_service import StorageService
from hub.api.streamed_operations import StreamedOperations
from hub.atomic_transactions import AtomicTransactions
from hub.config import HubConfig
from hub.core.events.fanout import Fanout, FanoutLimits
from hub.core.events.journal import Journal
from hub.core.routing.router import Router
from hub.core.routing.routes import Routes
from hub.core.status import HubState, StatusBoard
from hub.core.subscriptions.leases import Leases
from hub.core.subscriptions.named_subscriptions import NamedSubscriptions
from hub.core.subscriptions.subscription_store import SubscriptionStore
from hub.core.verification import Verification
from hub.guaranteed_delivery import GuaranteedDelivery
from hub.guarded_storage import GuardedStorage
from hub.proven_backups import ProvenBackups
from hub.schema_coordination import SchemaCoordination
from hub.storage_connections import StorageConnections
from messagehub.serving.drain import FAREWELL_SECONDS, Drain
from messagehub.serving.health import READY, HealthBoard
from messagehub.serving.process import bind, enable_reflection, make_server
from messagehub.v1 import (
    backup_service_pb2_grpc,
    hub_service_pb2,
    hub_service_pb2_grpc,
    schema_service_pb2_grpc,
    storage_service_pb2,
    storage_service_pb2_grpc,
    transaction_service_pb2,
    transaction_service_pb2_grpc,
)

HEALTH_SERVICE: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
STORAGE_SERVICE: Final = storage_service_pb2.DESCRIPTOR.services_by_name["StorageService"].full_name
HUB_SERVICE: Final = hub_service_pb2.DESCRIPTOR.services_by_name["HubService"].full_name
TRANSACTION_SERVICE: Final = transaction_service_pb2.DESCRIPTOR.services_by_name[
    "TransactionService"
].full_name
SERVICES: Final = (
    STORAGE_SERVICE,
    TRANSACTION_SERVICE,
    BACKUP_SERVICE,
    event_service.FULL_NAME,
    HUB_SERVICE,
    schema_service.FULL_NAME,
)


class HubServer:
    """A hub in this process: `start`, then `address`, then `stop`.

    It starts and answers whether or not the storage server is there; until it is, the hub is not
    ready and operations are `StorageUnavailable`.
    """

    def __init__(self, config: HubConfig) -> None:
        self._config = config
        self._drain = Drain()
        self.address = config.listen

    async def start(self) -> None:
        """Binds, begins to serve and to connect.

        Raises `OSError` if the address is in use, or the data directory cannot be used.
        """
        config = self._config
        self._server = make_server(
            message_bytes_max=config.message_bytes_max,
            default_timeout=config.default_timeout_seconds,
            concurrent_streams_max=config.concurrent_streams_max,
            drain=self._drain,
        )
        self.address = bind(self._server, config.listen)
        routes = Routes(config.services, config.grants)
        self._status = StatusBoard(
            databases=routes.databases,
            changes_max=config.status_changes_max,
            watchers_max=config.status_watchers_max,
        )
        self._health = HealthBoard()
        self._status.listen(self._tell_health)
        self._storage = StorageConnections(config, databases=routes.databases, status=self._status)
        self._guarded = GuardedStorage(
            config,
            databases=routes.databases,
            operations_of=self._storage.operations_of,
            storage=self._storage.calls,
            journal=self._storage.journal,
            subscriptions=self._storage.subscriptions,
            participants=self._storage.participants,
            status=self._status,
        )
        calls, journal = self._guarded.calls, self._guarded.journal
        router = Router(routes=routes, operations=calls, storage=calls, status=self._status)
        self._later = GuaranteedDelivery(
            config,
            routes=routes,
            router=router,
            journal=journal,
            status=self._status,
        )
        await self._open_inbox()
        self._guarded.announce_to(self._later.inbox)
        self._storage.announce_to(self._later.inbox)
        checks = RequestChecks(config)
        self._transactions = AtomicTransactions(
            config,
            routes=routes,
            participants=self._guarded.participants,
            checks=checks,
            status=self._status,
        )
        self._schemas = SchemaCoordination(
            config,
            routes=routes,
            router=router,
            storage=calls,
            coordinator=self._transactions.coordinator,
            announcements=self._later.inbox,
        )
        self._backups = ProvenBackups(
            config,
            routes=routes,
            servers=self._storage.backups,
            transactions=self._transactions,
            announcements=self._later.inbox,
        )
        fanout = _fanout(config, journal)
        self._named = _named_subscriptions(config, self._guarded.subscriptions, fanout)
        self._events = EventService(
            routes=routes,
            router=router,
            fanout=fanout,
            named=self._named,
            operation_requests=OperationRequests(
                submissions=self._later.submissions, checks=checks
            ),
            schema_requests=self._schemas.requests,
            backup_requests=self._backups.requests,
            event_bytes_max=config.event_bytes_max,
        )
        self._add_services(routes, router, checks)
        await self._later.start()
        await self._server.start()
        self._storage.start()
        self._backups.start()
        self._status.start()

    async def stop(self) -> None:
        """Not ready, then streams end, then calls finish within the drain time, then exit."""
        self._status.close()
        self._health.close()
        await asyncio.sleep(self._config.unready_seconds)
        self._drain.refuse()
        await self._events.close()
        await asyncio.gather(
            self._drain.finish(self._config.drain_seconds),
            self._later.stop(self._config.drain_seconds),
        )
        await self._schemas.stop(self._config.drain_seconds)
        await self._backups.stop()
        await self._transactions.stop(self._config.drain_seconds)
        await self._server.stop(FAREWELL_SECONDS)
        await self._named.close()
        await self._guarded.stop()
        await self._storage.stop()
        await self._later.close()

    async def _open_inbox(self) -> None:
        try:
            await self._later.open()
        except OSError:
            await self._server.stop(None)
            await self._storage.stop()
            raise
        self._status.listen(self._later.follow)

    def _tell_health(self, state: HubState) -> None:
        for name in (READY, *SERVICES):
            self._health.set(name, serving=state.ready)
        for database in state.databases:
            self._health.set(f"storage.{database.database}", serving=database.usable)

    def _add_services(self, routes: Routes, router: Router, checks: RequestChecks) -> None:
        config, server = self._config, self._server
        storage_service = StorageService(
            router=router,
            submissions=self._later.submissions,
            joined=self._transactions.joined,
            streamed=StreamedOperations(
                router=router,
                checks=checks,
                message_bytes_max=config.message_bytes_max,
                taken_seconds=config.stream_taken_seconds,
                default_timeout_seconds=config.default_timeout_seconds,
            ),
            checks=checks,
            message_bytes_max=config.message_bytes_max,
            query_seconds_max=config.query_seconds_max,
            page_bytes_max=config.inbox_page_bytes_max,
        )
        hub_service = HubService(
            routes=routes,
            status=self._status,
            router=router,
            circuits=self._guarded.circuits,
            checks=checks,
            look_at_inbox=self._later.backlogs.look,
            verification=Verification(
                self._storage.backups.inspect, lambda: self._status.snapshot().inbox_detail
            ),
            clock=time.time,
        )
        storage_service_pb2_grpc.add_StorageServiceServicer_to_server(storage_service, server)
        transaction_service_pb2_grpc.add_TransactionServiceServicer_to_server(
            self._transactions.service, server
        )
        schema_service_pb2_grpc.add_SchemaServiceServicer_to_server(self._schemas.service, server)
        event_service.add_to_server(self._events, server)
        hub_service_pb2_grpc.add_HubServiceServicer_to_server(hub_service, server)
        backup_service_pb2_grpc.add_BackupServiceServicer_to_server(self._backups.service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        enable_reflection(server, (*SERVICES, HEALTH_SERVICE))


def _fanout(config: HubConfig, journal: Journal) -> Fanout:
    limits = FanoutLimits(
        subscriptions_max=config.subscriptions_max,
        service_subscriptions_max=config.service_subscriptions_max,
        message_events_max=config.event_message_events_max,
        message_bytes_max=config.event_message_bytes_max,
        subscriber_bytes_max=config.subscriber_bytes_max,
        window_bytes_max=config.event_window_bytes_max,
        journal_reads_max=config.journal_reads_max,
        gather_seconds_max=config.event_gather_seconds_max,
        heartbeat_seconds=config.heartbeat_seconds,
        linger_seconds=config.tail_linger_seconds,
        reconnect_seconds_min=config.reconnect_seconds_min,
        reconnect_seconds_max=config.reconnect_seconds_max,
        retry_seconds=config.queue_retry_seconds,
    )
    return Fanout(
        journal,
        limits,
        clock=asyncio.get_running_loop().time,
        sleep=asyncio.sleep,
        random=random.random,
    )


def _named_subscriptions(
    config: HubConfig, store: SubscriptionStore, fanout: Fanout
) -> NamedSubscriptions:
    leases = Leases(
        store,
        seconds=config.subscription_lease_seconds,
        clock=asyncio.get_running_loop().time,
        sleep=asyncio.sleep,
    )
    return NamedSubscriptions(
        store,
        fanout,
        leases,
        make_holder=lambda: uuid.uuid4().hex,
        seconds=config.storage_answer_seconds,
    )
