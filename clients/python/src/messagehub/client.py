"""The asyncio client of the hub.

    async with Hub("127.0.0.1:50051", service="character") as hub:
        await hub.execute("INSERT INTO heroes (name) VALUES (?)", ["Ada"])
        async for id, name in hub.query("SELECT id, name FROM heroes"):
            ...
        async for event in hub.subscribe(types="storage.*"):
            ...
        await hub.submit("DELETE FROM heroes WHERE name = ?", ["Ada"])
        async with hub.transaction("character_db", "campaign_db") as transaction:
            await transaction.execute("DELETE FROM heroes", database="character_db")

Every call has a deadline, every write a request id, and a call that the hub could not serve at
the moment is sent again until its deadline. What fails raises a class of `messagehub.errors`,
whose `__cause__` is the error of gRPC.
"""

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

import grpc

from messagehub.acknowledgements import Acknowledgements
from messagehub.backups import Backups
from messagehub.batching import Batching, BatchingLimits
from messagehub.channel import DEFAULT_TARGET, MESSAGE_BYTES_MAX, decode, open_channel
from messagehub.errors import HubError, InvalidRequest
from messagehub.events import LATEST, Subscription
from messagehub.operations import Operations
from messagehub.request_ids import new_request_id
from messagehub.results import Operation, Result, batch_operation, batch_outcome, result_of
from messagehub.retries import Retries, may_retry
from messagehub.rows import QueryCall, Rows
from messagehub.schemas import Schemas
from messagehub.transactions import Transactions
from messagehub.v1.event_service_pb2 import (
    AcknowledgeEventsRequest,
    DeleteSubscriptionRequest,
    ListSubscriptionsRequest,
    ListSubscriptionsResponse,
    SubscribeRequest,
)
from messagehub.v1.event_service_pb2_grpc import EventServiceStub
from messagehub.v1.hub_service_pb2 import (
    GetStatusRequest,
    HubStatus,
    VerifyDeploymentRequest,
    VerifyDeploymentResponse,
)
from messagehub.v1.hub_service_pb2_grpc import HubServiceStub
from messagehub.v1.storage_service_pb2 import (
    ExecuteBatchRequest,
    ExecuteRequest,
    ExecuteResponse,
    ExecuteStreamRequest,
    ExecuteStreamResponse,
    QueryRequest,
)
from messagehub.v1.storage_service_pb2_grpc import StorageServiceStub
from messagehub.values import Parameters, to_statement

if TYPE_CHECKING:
    from messagehub.v1.storage_service_pb2_grpc import StorageServiceAsyncStub

__all__ = ["DEFAULT_TARGET", "BatchingLimits", "Hub", "Operation", "Result"]

TIMEOUT_SECONDS: Final = 30.0
QUERY_TIMEOUT_SECONDS: Final = 600.0
BATCHING: Final = BatchingLimits()

Answer = TypeVar("Answer")


class Hub(Backups, Operations, Transactions, Schemas):
    """A service's connection to the hub: one channel, which reconnects by itself.

    `service` is the calling service. `timeout` (seconds) bounds every call with all its attempts,
    `query_timeout` a whole streamed query, because it holds a snapshot. Concurrent calls of
    `execute` share RPCs within the bounds of `batching`; None = each has its own. Use it on one
    event loop.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        service: str,
        timeout: float = TIMEOUT_SECONDS,
        query_timeout: float = QUERY_TIMEOUT_SECONDS,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        retries: Retries | None = None,
        batching: BatchingLimits | None = BATCHING,
    ) -> None:
        self.target = target
        self.service = service
        self.timeout = timeout
        self.query_timeout = query_timeout
        self._message_bytes_max = message_bytes_max
        self._retries = retries or Retries()
        self._batching_limits = batching
        self._batching: Batching | None = None
        self._channel: grpc.aio.Channel | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and every call on it."""
        self._closed = True
        if self._batching is not None:
            await self._batching.close()
        if self._channel is not None:
            await self._channel.close()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel, for a generated stub of your own; it belongs to this object."""
        if self._closed:
            raise RuntimeError("this Hub is closed: make a new one")
        if self._channel is None:
            self._channel = open_channel(self.target, message_bytes_max=self._message_bytes_max)
        return self._channel

    async def execute(
        self,
        query: str,
        parameters: Parameters = (),
        *,
        database: str = "",
        request_id: str | None = None,
        correlation_id: str = "",
        schema_version: str = "",
        timeout: float | None = None,
    ) -> Result:
        """Runs one statement; a write is on disk when this returns.

        `parameters` is a sequence for `?` or a mapping for `:name`. `database` empty = the
        service's own. Give a `request_id` (a UUID) of your own to make a repetition by your own
        code safe too.
        """
        request = ExecuteRequest(
            source_service=self.service,
            database=database,
            correlation_id=correlation_id,
            request_id=request_id or new_request_id(),
            schema_version=schema_version,
            statement=to_statement(query, parameters),
        )
        response = await self.call(self._executing(request), timeout=timeout)
        return result_of(response, response.result, response.correlation_id)

    async def execute_batch(
        self,
        operations: Sequence[Operation | tuple[str, Parameters]],
        *,
        correlation_id: str = "",
        timeout: float | None = None,
    ) -> list[Result | HubError]:
        """Runs independent operations in one call; not a transaction.

        Gives the outcome of each in order: its result, or the error that `execute` would have
        raised. Raises only when the call as a whole fails. An error of one operation is not
        retried here, because the operations after it may have been done.
        """
        request = ExecuteBatchRequest(
            source_service=self.service,
            correlation_id=correlation_id,
            operations=[batch_operation(operation) for operation in operations],
        )
        stub = StorageServiceStub(self.channel)
        response = await self.call(
            lambda seconds: stub.ExecuteBatch(request, timeout=seconds), timeout=timeout
        )
        return [batch_outcome(result, response.correlation_id) for result in response.results]

    def query(
        self,
        query: str,
        parameters: Parameters = (),
        *,
        database: str = "",
        page_size: int = 0,
        correlation_id: str = "",
        schema_version: str = "",
        timeout: float | None = None,
    ) -> Rows:
        """Streams the rows of one reading statement in constant memory; see `Rows`.

        `page_size` is the most rows that one message brings; 0 = the server's default. `timeout`
        bounds the whole stream, not each row.
        """
        request = QueryRequest(
            source_service=self.service,
            database=database,
            correlation_id=correlation_id,
            request_id=new_request_id(),
            schema_version=schema_version,
            statement=to_statement(query, parameters),
            page_size=page_size,
        )
        stub = StorageServiceStub(self.channel)

        def start(seconds: float) -> QueryCall:
            return stub.Query(request, timeout=seconds)

        limit = _positive(self.query_timeout if timeout is None else timeout)
        return Rows(start, self._decode, self._retries, limit)

    def subscribe(
        self,
        *,
        types: str | Sequence[str] = (),
        databases: str | Sequence[str] = (),
        sources: str | Sequence[str] = (),
        correlation_id: str = "",
        start: str = LATEST,
        subscription: str = "",
        consumer: str = "",
        acknowledge: bool = False,
    ) -> Subscription:
        """Streams events as they are committed; see `Subscription`.

        `types` are patterns such as `storage.*`; `databases` none = the service's own, `*` = all
        that it may read; `sources` are the services that caused the events. `start` is
        `"latest"`, `"earliest"`, or the `cursor` of an event or a subscription.

        `subscription` names one that the hub remembers; `start` then says where it begins when it
        is new. `consumer` names who reads for it: a stream takes over at once from an earlier one
        of the same consumer. With `acknowledge`, an event counts as handled when the next one is
        asked for, or the `async with` block is left without an error; it is acknowledged with the
        others of its message.
        """
        request = SubscribeRequest(
            source_service=self.service,
            event_types=_listed(types),
            databases=_listed(databases),
            sources=_listed(sources),
            correlation_id=correlation_id,
            subscription=subscription,
            consumer=consumer or (new_request_id() if subscription else ""),
        )
        acknowledgements = None
        if subscription or acknowledge:
            acknowledgements = Acknowledgements(
                subscription,
                lambda cursor, ids: self.acknowledge(subscription, cursor, event_ids=ids),
                self.subscriptions,
                automatic=acknowledge,
            )
        return Subscription(
            EventServiceStub(self.channel).Subscribe,
            request,
            start,
            self._decode,
            self._retries,
            timeout=self.timeout,
            acknowledgements=acknowledgements,
        )

    async def acknowledge(
        self,
        subscription: str,
        cursor: str = "",
        *,
        event_ids: Iterable[str] = (),
        timeout: float | None = None,
    ) -> None:
        """Has a named subscription remember that everything up to a cursor is handled.

        `event_ids` say the same for everything up to these events, each in its database. It is on
        disk when this returns. `Subscription.acknowledge` is the simple way.
        """
        request = AcknowledgeEventsRequest(
            source_service=self.service,
            subscription=subscription,
            cursor=cursor,
            event_ids=event_ids,
        )
        stub = EventServiceStub(self.channel)
        await self.call(
            lambda seconds: stub.AcknowledgeEvents(request, timeout=seconds), timeout=timeout
        )

    async def subscriptions(self, *, timeout: float | None = None) -> ListSubscriptionsResponse:
        """Tells how the service's named subscriptions stand: cursor, lag, who reads."""
        request = ListSubscriptionsRequest(source_service=self.service)
        stub = EventServiceStub(self.channel)
        return await self.call(
            lambda seconds: stub.ListSubscriptions(request, timeout=seconds), timeout=timeout
        )

    async def delete_subscription(self, subscription: str, *, timeout: float | None = None) -> None:
        """Forgets a named subscription, which nobody may be reading for."""
        request = DeleteSubscriptionRequest(source_service=self.service, subscription=subscription)
        stub = EventServiceStub(self.channel)
        await self.call(
            lambda seconds: stub.DeleteSubscription(request, timeout=seconds), timeout=timeout
        )

    async def status(self, *, timeout: float | None = None) -> HubStatus:
        """Tells how the hub, its routes, storage servers and databases stand."""
        stub = HubServiceStub(self.channel)
        request = GetStatusRequest(source_service=self.service)
        response = await self.call(
            lambda seconds: stub.GetStatus(request, timeout=seconds), timeout=timeout
        )
        return response.status

    async def verify_deployment(self, *, timeout: float | None = None) -> VerifyDeploymentResponse:
        """Checks what must always hold in the live databases that the service may read."""
        stub = HubServiceStub(self.channel)
        request = VerifyDeploymentRequest(source_service=self.service)
        return await self.call(
            lambda seconds: stub.VerifyDeployment(request, timeout=seconds), timeout=timeout
        )

    async def call(
        self,
        start: Callable[[float], Awaitable[Answer]],
        *,
        timeout: float | None = None,
        again: Callable[[HubError], bool] = may_retry,
    ) -> Answer:
        """Makes a call of a generated stub as the methods here do: deadline, retries, errors.

        `start` gets the seconds that are left and gives the call. It is made again after a
        failure that `again` says yes to, so a write in it must carry a request id.
        """

        async def attempt(seconds: float) -> Answer:
            try:
                return await start(seconds)
            except grpc.aio.AioRpcError as failure:
                raise self._decode(failure) from failure

        limit = _positive(self.timeout if timeout is None else timeout)
        return await self._retries.run(attempt, limit, again)

    def _executing(self, request: ExecuteRequest) -> Callable[[float], Awaitable[ExecuteResponse]]:
        calls = _StatementCalls(StorageServiceStub(self.channel))
        if self._batching_limits is None:
            return lambda seconds: calls.execute(request, seconds)
        if self._batching is None:
            self._batching = Batching(calls, self._decode, self._batching_limits)
        batching = self._batching
        return lambda seconds: batching.execute(request, seconds)

    def _decode(self, failure: grpc.aio.AioRpcError) -> HubError:
        return decode(failure, self.target)


class _StatementCalls:
    """The RPCs that concurrent statements share."""

    def __init__(self, stub: "StorageServiceAsyncStub") -> None:
        self._stub = stub

    async def execute(self, request: ExecuteRequest, seconds: float) -> ExecuteResponse:
        response: ExecuteResponse = await self._stub.Execute(request, timeout=seconds)
        return response

    def stream(
        self, request: ExecuteStreamRequest, seconds: float
    ) -> AsyncIterable[ExecuteStreamResponse]:
        return self._stub.ExecuteStream(request, timeout=seconds)


def _positive(timeout: float) -> float:
    if timeout > 0:
        return timeout
    raise InvalidRequest(
        f"timeout is {timeout} seconds: it must be above 0", fields={"timeout": "must be above 0"}
    )


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
