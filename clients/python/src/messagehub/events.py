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

from messagehub.acknowledgements import Acknowledgements, Lag
from messagehub.errors import (
    HubError,
    InvalidRequest,
    Retry,
    StorageUnavailable,
    SubscriptionInUse,
)
from messagehub.retries import Retries, may_retry
from messagehub.v1 import event_pb2
from messagehub.v1.event_service_pb2 import SubscribeRequest, SubscribeResponse

__all__ = ["EARLIEST", "LATEST", "Event", "EventData", "Lag", "Subscription"]

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

    A named one is remembered by the hub: the same name goes on after the last event that was
    acknowledged, in any process.

        async with hub.subscribe(subscription="billing", start="earliest") as events:
            async for event in events:
                await handle(event)
                await events.acknowledge()

    One stream at a time reads for a name. Another one waits for it, within the hub's timeout, and
    then raises `SubscriptionInUse`; so does the first one, should it lose the name.
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
        acknowledgements: Acknowledgements | None = None,
    ) -> None:
        self._subscribe = subscribe
        self._request = request
        self._decode = decode
        self._retries = retries
        self._timeout = timeout
        self._silence_max = silence_max
        self._acknowledgements = acknowledgements
        self._position = start
        self._connected = False
        self._closed = False
        self._received: deque[Event] = deque()
        self._cursor = start

    @property
    def cursor(self) -> str:
        """A bookmark after the last event that was handed out; it moves on in silence too."""
        return self._cursor if self._received else self._position

    async def acknowledge(self) -> None:
        """Has the hub remember that every event that was handed out is handled.

        It is on disk when this returns, and the name goes on after it, whoever fails. Raises
        `CursorExpired` if the subscription was cut off because it was too far behind.
        """
        acknowledgements = self._named()
        cursor = self.cursor
        await acknowledgements.tell("" if cursor in (EARLIEST, LATEST) else cursor)

    async def lag(self) -> Lag:
        """Asks the hub how far the named subscription is behind."""
        return await self._named().lag()

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
        try:
            if error is None and self._acknowledges:
                await self.acknowledge()
        finally:
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
            if self._acknowledges:
                await self._acknowledge_if_possible()
            await self._receive()
        event = self._received.popleft()
        self._cursor = event.cursor
        if self._acknowledgements is not None:
            self._acknowledgements.hand_out(event, ends_message=not self._received)
        return event

    def close(self) -> None:
        """Ends the stream; nothing more comes."""
        self._position = self.cursor
        self._closed = True
        self._received.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _named(self) -> Acknowledgements:
        if self._acknowledgements is None:
            raise InvalidRequest(
                "this stream reads for no named subscription: give `subscription` to subscribe",
                fields={"subscription": "is empty"},
            )
        return self._acknowledgements

    @property
    def _acknowledges(self) -> bool:
        return self._acknowledgements is not None and self._acknowledgements.automatic

    async def _acknowledge_if_possible(self) -> None:
        try:
            await self.acknowledge()
        except HubError as error:
            if error.retry not in (Retry.SAME_CALL, Retry.SLOWER):
                raise
            _log.info("events will be acknowledged with later ones: %s", error.message)

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
                if not self._may_resume(error) or (over and not self._connected):
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
        before, after = self._position, response.cursor or self._position
        if not self._connected and self._acknowledgements is not None:
            self._acknowledgements.begin(before if response.events else after)
        self._connected = True
        # A bookmark inside of a message would have to be at or before the event it belongs to:
        # only the last event of the message is followed by the message's own cursor.
        last = len(response.events) - 1
        self._received.extend(
            _event(event, after if position == last else before)
            for position, event in enumerate(response.events)
        )
        self._cursor, self._position = before, after

    def _may_resume(self, error: HubError) -> bool:
        # A name that is in use may be held by one's own life before a crash, for a moment. Later
        # it means that another has taken over.
        if isinstance(error, SubscriptionInUse):
            return not self._connected
        # A server that drains may cut its streams with CANCELLED. A caller that cancels is told
        # by asyncio and does not come here.
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
