"""Events as they are committed, through reconnects, without a gap and without a duplicate."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self, TypeAlias, cast

import grpc

from messagehub.errors import HubError, StorageUnavailable
from messagehub.retries import Retries, may_retry
from messagehub.v1 import event_pb2
from messagehub.v1.event_service_pb2 import SubscribeRequest, SubscribeResponse

__all__ = ["EARLIEST", "LATEST", "Event", "EventData", "Subscription"]

EARLIEST: Final = "earliest"
LATEST: Final = "latest"
# Heartbeats come every few seconds; a stream that is silent for longer than this is dead.
SILENCE_SECONDS_MAX: Final = 30.0

EventData: TypeAlias = (
    event_pb2.OperationCompleted
    | event_pb2.OperationFailed
    | event_pb2.OperationRequest
    | event_pb2.SchemaUpdated
    | event_pb2.SchemaRequest
    | event_pb2.BackupFinished
    | event_pb2.BackupRequest
    | event_pb2.CircuitChanged
    | event_pb2.FailedOver
    | event_pb2.TransactionFinished
    | bytes
    | None
)
SubscribeCall: TypeAlias = grpc.aio.UnaryStreamCall[SubscribeRequest, SubscribeResponse]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """One fact of one database; the names are those of CloudEvents.

    `source` is the service that caused it, `subject` the database it is about, `sequence` its
    position there. `data` is the message of its type (`messagehub.v1.event_pb2`), or the bytes
    that a service published, of the media type `data_content_type`.

    `message` is the event as it came; `messagehub.cloudevents` makes a CloudEvent of it.

    `cursor` is a bookmark: a subscription that starts from it misses nothing after this event. It
    may repeat events that came together with this one, which `id` tells.
    """

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    correlation_id: str
    transaction_id: str
    sequence: int
    data_content_type: str
    data: EventData
    cursor: str
    message: event_pb2.Event = field(repr=False)


class Subscription:
    """A live stream of events; made by `Hub.subscribe`.

        async for event in hub.subscribe(types=["storage.*"]):
            ...

    It ends when the loop is left, or with an error that waiting cannot cure, such as
    `CursorExpired`. When the hub goes away it reconnects, for as long as it takes, and goes on
    right after the last event it received. Only the first connection is bounded, by the hub's
    timeout. With `async with`, whatever is committed inside of the block is seen:

        async with hub.subscribe() as events:
            await hub.execute("DELETE FROM heroes")
            async for event in events:
                break
    """

    _call: SubscribeCall | None = None

    def __init__(
        self,
        subscribe: Callable[[SubscribeRequest], SubscribeCall],
        request: SubscribeRequest,
        start: str,
        decode: Callable[[grpc.aio.AioRpcError], HubError],
        retries: Retries,
        *,
        timeout: float,
        silence_max: float = SILENCE_SECONDS_MAX,
    ) -> None:
        self._subscribe = subscribe
        self._request = request
        self._decode = decode
        self._retries = retries
        self._timeout = timeout
        self._silence_max = silence_max
        self._position = start
        self._connected = False
        self._closed = False
        self._received: deque[Event] = deque()
        self._cursor = start

    @property
    def cursor(self) -> str:
        """A bookmark after the last event that was handed out; it moves on in silence too."""
        return self._cursor if self._received else self._position

    async def __aenter__(self) -> Self:
        """Connects; what is committed from now on will be seen."""
        if not self._connected:
            await self._receive()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # gRPC keeps every call alive that is not done: this one would go on for nobody.
        if self._call is not None:
            self._call.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._received:
            if self._closed:
                raise StopAsyncIteration
            await self._receive()
        event = self._received.popleft()
        self._cursor = event.cursor
        return event

    def close(self) -> None:
        """Ends the stream; nothing more comes."""
        self._closed = True
        self._received.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _receive(self) -> None:
        """Takes in the next message, over as many connections as it needs."""
        deadline = self._retries.clock() + self._timeout
        failures = 0
        while True:
            try:
                self._take(await self._read())
            except HubError as error:
                self._call = None
                failures += 1
                delay = self._retries.delay(failures, error.retry_after)
                over = failures == self._retries.attempts_max
                over = over or self._retries.clock() + delay >= deadline
                if not _may_resume(error) or (over and not self._connected):
                    raise
                _log.info("the stream of events was cut, it will be resumed: %s", error.message)
            else:
                return
            await self._retries.sleep(delay)

    async def _read(self) -> SubscribeResponse:
        if self._call is None:
            self._call = self._subscribe(_starting(self._request, self._position))
        try:
            async with asyncio.timeout(self._silence_max):
                response = await self._call.read()
        except grpc.aio.AioRpcError as failure:
            raise self._decode(failure) from failure
        except TimeoutError as failure:
            raise StorageUnavailable(
                f"the stream of events was silent for {self._silence_max} seconds"
            ) from failure
        except asyncio.CancelledError:
            # gRPC has ended the call with the read; the next one goes on from the same place.
            self._call = None
            raise
        if isinstance(response, SubscribeResponse):
            return response
        raise StorageUnavailable("the hub ended the stream of events")

    def _take(self, response: SubscribeResponse) -> None:
        self._connected = True
        before, after = self._position, response.cursor or self._position
        # A bookmark inside of a message would have to be at or before the event it belongs to:
        # only the last event of the message is followed by the message's own cursor.
        last = len(response.events) - 1
        self._received.extend(
            _event(event, after if position == last else before)
            for position, event in enumerate(response.events)
        )
        self._cursor, self._position = before, after


def _may_resume(error: HubError) -> bool:
    # A server that drains may cut its streams with CANCELLED. A caller that cancels is told by
    # asyncio and does not come here.
    return may_retry(error) or error.code == "CANCELLED"


def _starting(request: SubscribeRequest, position: str) -> SubscribeRequest:
    if position == LATEST:
        request.latest = True
    elif position == EARLIEST:
        request.earliest = True
    else:
        request.cursor = position
    return request


def _event(event: event_pb2.Event, cursor: str) -> Event:
    kind = event.WhichOneof("data")
    return Event(
        id=event.id,
        source=event.source,
        type=event.type,
        subject=event.subject,
        time=event.time.ToDatetime(tzinfo=UTC),
        correlation_id=event.correlation_id,
        transaction_id=event.transaction_id,
        sequence=event.sequence,
        data_content_type=event.data_content_type,
        data=None if kind is None else cast("EventData", getattr(event, kind)),
        cursor=cursor,
        message=event,
    )
