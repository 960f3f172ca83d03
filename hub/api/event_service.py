"""`messagehub.v1.EventService`: what was committed, streamed, and events of services."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc

from hub.api.backup_requests import BackupRequests
from hub.api.checks import request_id_or_new
from hub.api.event_checks import check_draft, check_start, event_filter_of
from hub.api.event_messages import EventMessages
from hub.api.operation_requests import OperationRequests
from hub.api.schema_requests import SchemaRequests
from hub.api.subscription_messages import (
    acknowledged,
    check_consumer,
    name_of,
    subscription_message,
)
from hub.core.events import cursor
from hub.core.events.event_filter import EventFilter
from hub.core.events.event_types import BACKUP_REQUEST, OPERATION_REQUEST, SCHEMA_REQUEST
from hub.core.events.fanout import Fanout
from hub.core.events.journal import Position, Start
from hub.core.events.subscription import Batch, Subscription
from hub.core.routing.router import Draft, Router
from hub.core.routing.routes import Routes
from hub.core.subscriptions.named_subscriptions import NamedSubscriptions, Wanted
from messagehub.errors import InvalidRoute
from messagehub.serving.interceptor import time_left
from messagehub.v1 import event_service_pb2 as messages
from messagehub.v1 import event_service_pb2_grpc
from messagehub.v1.event_pb2 import Event

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
Context = grpc.aio.ServicerContext[Any, Any]

ALL_DATABASES = "*"
FULL_NAME: Final = messages.DESCRIPTOR.services_by_name["EventService"].full_name


class EventService(event_service_pb2_grpc.EventServiceServicer):
    """Streams of events, the names that remember how far one got, and events of services.

    `event_bytes_max` bounds the payload of a published event.
    """

    def __init__(
        self,
        *,
        routes: Routes,
        router: Router,
        fanout: Fanout,
        named: NamedSubscriptions,
        operation_requests: OperationRequests,
        schema_requests: SchemaRequests,
        backup_requests: BackupRequests,
        event_bytes_max: int,
    ) -> None:
        self._routes = routes
        self._router = router
        self._operation_requests = operation_requests
        self._schema_requests = schema_requests
        self._backup_requests = backup_requests
        self._fanout = fanout
        self._named = named
        self._event_bytes_max = event_bytes_max
        self._messages = EventMessages()

    async def Subscribe(  # type: ignore[override] # encoded by itself, see `add_to_server`
        self, request: messages.SubscribeRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """Streams encoded messages until the caller goes away or the hub shuts down."""
        event_filter = event_filter_of(request)
        check_start(request)
        check_consumer(request)
        subscription = await self._subscription(request, event_filter)
        try:
            if request.subscription and request.WhichOneof("start") != "cursor":
                # Where a name goes on only its databases knew.
                yield self._messages.encode(Batch((), subscription.cursor()))
            while (batch := await subscription.next_batch()) is not None:
                yield self._messages.encode(batch)
        finally:
            subscription.close()

    async def PublishEvent(
        self, request: messages.PublishEventRequest, context: Context
    ) -> messages.PublishEventResponse:
        """Puts an event of a service into a journal, or does what it asks for."""
        draft = request.event
        if draft.type == OPERATION_REQUEST:
            return await self._operation_requests.submit(request)
        if draft.type == SCHEMA_REQUEST:
            return await self._schema_requests.run(request)
        if draft.type == BACKUP_REQUEST:
            return await self._backup_requests.begin(request)
        check_draft(draft, event_bytes_max=self._event_bytes_max)
        with _database_field("event.database"):
            route = self._routes.resolve_writable(request.source_service, draft.database)
        event = Event(type=draft.type, data_content_type=draft.data_content_type)
        if draft.WhichOneof("data") is not None:
            event.custom = draft.custom
        database, outcome = await self._router.execute(
            Draft(route.database, request_id_or_new(request.request_id), event),
            source_service=request.source_service,
            correlation_id=request.correlation_id,
            seconds=time_left(),
        )
        return messages.PublishEventResponse(
            correlation_id=request.correlation_id,
            database=database,
            sequence=outcome.sequence,
            schema_version=outcome.schema_version,
            replayed=outcome.replayed,
            event_id=outcome.event_id,
        )

    async def AcknowledgeEvents(
        self, request: messages.AcknowledgeEventsRequest, context: Context
    ) -> messages.AcknowledgeEventsResponse:
        """Remembers how far a named subscription got."""
        service = request.source_service
        self._routes.check_service(service)
        name = name_of(service, request.subscription)
        positions = acknowledged(request)
        for database in positions:
            with _database_field("cursor"):
                self._routes.resolve(service, database)
        await self._named.acknowledge(name, positions, seconds=time_left())
        return messages.AcknowledgeEventsResponse(correlation_id=request.correlation_id)

    async def ListSubscriptions(
        self, request: messages.ListSubscriptionsRequest, context: Context
    ) -> messages.ListSubscriptionsResponse:
        """Tells how the named subscriptions of a service stand."""
        service = request.source_service
        summaries, unavailable = await self._named.summaries(
            service, self._routes.readable(service), seconds=time_left()
        )
        return messages.ListSubscriptionsResponse(
            correlation_id=request.correlation_id,
            subscriptions=[subscription_message(service, summary) for summary in summaries],
            unavailable_databases=unavailable,
        )

    async def DeleteSubscription(
        self, request: messages.DeleteSubscriptionRequest, context: Context
    ) -> messages.DeleteSubscriptionResponse:
        """Forgets a named subscription."""
        readable = self._routes.readable(request.source_service)
        name = name_of(request.source_service, request.subscription)
        await self._named.delete(name, readable, seconds=time_left())
        return messages.DeleteSubscriptionResponse(correlation_id=request.correlation_id)

    async def close(self) -> None:
        """Ends every stream after a last message with its cursor; later ones are refused."""
        await self._fanout.close()

    async def _subscription(
        self, request: messages.SubscribeRequest, event_filter: EventFilter
    ) -> Subscription:
        service = request.source_service
        databases = self._databases(request)
        start = _start(request, databases)
        if not request.subscription:
            return await self._fanout.subscribe(service, databases, event_filter, start)
        name = name_of(service, request.subscription)
        wanted = Wanted(name, databases, self._routes.readable(service), request.consumer)
        return await self._named.subscribe(wanted, event_filter, start)

    def _databases(self, request: messages.SubscribeRequest) -> list[str]:
        service = request.source_service
        if ALL_DATABASES in request.databases:
            return list(self._routes.readable(service))
        names = set()
        for index, name in enumerate(request.databases or [""]):
            with _database_field(f"databases[{index}]"):
                names.add(self._routes.resolve(service, name).database)
        return sorted(names)


def add_to_server(service: EventService, server: grpc.aio.Server) -> None:
    """Registers the service; what `Subscribe` gives is encoded already."""
    handlers: dict[str, Handler] = {
        "Subscribe": grpc.unary_stream_rpc_method_handler(
            service.Subscribe, request_deserializer=messages.SubscribeRequest.FromString
        )
    }
    # Before the generated ones: gRPC takes the first that has the method.
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(FULL_NAME, handlers),))
    event_service_pb2_grpc.add_EventServiceServicer_to_server(service, server)


@contextmanager
def _database_field(path: str) -> Iterator[None]:
    """Names the field that a refused database stands in."""
    try:
        yield
    except InvalidRoute as refusal:
        if what := refusal.fields.pop("database", None):
            refusal.fields[path] = what
        raise


def _start(
    request: messages.SubscribeRequest, databases: list[str]
) -> Start | Mapping[str, Position]:
    given = request.WhichOneof("start")
    if given == "cursor":
        # `*` means every database, also one that is newer than the cursor.
        may_grow = ALL_DATABASES in request.databases
        return cursor.resume(request.cursor, databases, may_grow=may_grow)
    return Start.EARLIEST if given == "earliest" else Start.LATEST
