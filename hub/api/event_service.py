"""`messagehub.v1.EventService`: what was committed, streamed, and events of services."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from hub.api.checks import request_id_or_new
from hub.api.event_checks import check_draft, check_start, event_filter_of
from hub.api.event_messages import EventMessages
from hub.core import cursor
from hub.core.fanout import Fanout, Start
from hub.core.journal import Position
from hub.core.router import Draft, Router
from hub.core.routes import Routes
from messagehub.errors import HubError, InvalidRoute
from messagehub.serving.interceptor import time_left
from messagehub.status import VALUE_BYTES_MAX
from messagehub.v1 import event_service_pb2 as messages
from messagehub.v1 import event_service_pb2_grpc
from messagehub.v1.event_pb2 import Event

Context = grpc.aio.ServicerContext[Any, Any]

ALL_DATABASES = "*"


class EventService(event_service_pb2_grpc.EventServiceServicer):
    """Subscribe and PublishEvent; named subscriptions are not built yet.

    `event_bytes_max` bounds the payload of a published event.
    """

    def __init__(
        self, *, routes: Routes, router: Router, fanout: Fanout, event_bytes_max: int
    ) -> None:
        self._routes = routes
        self._router = router
        self._fanout = fanout
        self._event_bytes_max = event_bytes_max
        self._messages = EventMessages()

    async def Subscribe(
        self, request: messages.SubscribeRequest, context: Context
    ) -> AsyncIterator[messages.SubscribeResponse]:
        """Streams events until the caller goes away or the hub shuts down."""
        event_filter = event_filter_of(request)
        check_start(request)
        databases = self._databases(request)
        subscription = await self._fanout.subscribe(
            request.source_service, databases, event_filter, _start(request, databases)
        )
        try:
            while (batch := await subscription.next_batch()) is not None:
                yield self._messages.message(batch)
        except HubError as failure:
            _drop_long_cursor(failure)
            raise
        finally:
            subscription.close()

    async def PublishEvent(
        self, request: messages.PublishEventRequest, context: Context
    ) -> messages.PublishEventResponse:
        """Puts an event of a service into a journal."""
        draft = request.event
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

    async def close(self) -> None:
        """Ends every stream after a last message with its cursor; later ones are refused."""
        await self._fanout.close()

    def _databases(self, request: messages.SubscribeRequest) -> list[str]:
        service = request.source_service
        if ALL_DATABASES in request.databases:
            return list(self._routes.readable(service))
        names = set()
        for index, name in enumerate(request.databases or [""]):
            with _database_field(f"databases[{index}]"):
                names.add(self._routes.resolve(service, name).database)
        return sorted(names)


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


def _drop_long_cursor(failure: HubError) -> None:
    """Removes an oldest cursor that an error detail would cut: a cut cursor is no cursor."""
    if len(failure.metadata.get("oldest_cursor", "")) > VALUE_BYTES_MAX:
        del failure.metadata["oldest_cursor"]
