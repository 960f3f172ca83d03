"""A hub that answers as a test tells it, behind a real gRPC server on a free port."""

import asyncio
import inspect
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Self

from grpc_health.v1 import health_pb2_grpc

from messagehub.errors import HubError
from messagehub.serving.health import HealthBoard
from messagehub.serving.process import bind, make_server
from messagehub.v1 import (
    event_service_pb2,
    event_service_pb2_grpc,
    hub_service_pb2,
    hub_service_pb2_grpc,
    storage_service_pb2_grpc,
    transaction_service_pb2_grpc,
)
from messagehub.v1.event_pb2 import Event, OperationCompleted
from messagehub.v1.event_service_pb2 import ListSubscriptionsResponse, SubscribeResponse
from messagehub.v1.hub_service_pb2 import DatabaseStatus, HubStatus, RouteStatus
from messagehub.v1.statement_pb2 import Column, ResultSet, Row
from messagehub.v1.storage_service_pb2 import ExecuteResponse, QueryResponse
from messagehub.values import to_value

Answer = Any


def result_set(columns: Iterable[str] = (), rows: Iterable[tuple[Any, ...]] = ()) -> ResultSet:
    return ResultSet(
        columns=[Column(name=name) for name in columns],
        rows=[Row(values=[to_value(value) for value in row]) for row in rows],
    )


def executed(*rows: tuple[Any, ...], columns: Iterable[str] = (), **envelope: Any) -> Any:
    return ExecuteResponse(result=result_set(columns, rows), **envelope)


def page(*rows: tuple[Any, ...], columns: Iterable[str] = ()) -> QueryResponse:
    return QueryResponse(database="character_db", result=result_set(columns, rows))


def event(sequence: int, **fields: Any) -> Event:
    made = Event(
        id=f"character_db/e1/{sequence}",
        source="character",
        type="storage.operation_completed",
        subject="character_db",
        sequence=sequence,
        operation_completed=OperationCompleted(
            query="INSERT INTO heroes (name) VALUES (?)", rows_affected=1
        ),
        data_content_type="application/protobuf",
        correlation_id="c-1",
    )
    made.time.FromMilliseconds(1_764_000_000_123)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def message(*sequences: int, cursor: str | None = None) -> SubscribeResponse:
    """A message of events; its cursor is the last of their numbers."""
    named = cursor if cursor is not None else f"cursor-{sequences[-1]}"
    return SubscribeResponse(events=[event(number) for number in sequences], cursor=named)


class FakeHub:
    """Each RPC takes its next answer: a response, an error, or a function of the request.

    A streaming RPC takes one script, a list of responses, errors and awaitables.
    """

    def __init__(self) -> None:
        self.execute: deque[Answer] = deque()
        self.execute_batch: deque[Answer] = deque()
        self.query: deque[list[Answer]] = deque()
        self.subscribe: deque[list[Answer]] = deque()
        # Without an answer of the test's, acknowledging and deleting succeed.
        self.acknowledge: deque[Answer] = deque()
        self.acknowledged: list[tuple[str, tuple[str, ...]]] = []
        self.delete: deque[Answer] = deque()
        self.subscriptions: dict[str, ListSubscriptionsResponse] = {}
        # By the name of the RPC.
        self.transactions: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self.requests: list[Any] = []
        self.seconds_left: list[float] = []
        self.cancelled = asyncio.Event()
        self.pages_sent = 0
        self.page_sent = asyncio.Event()
        self.adopted = b""
        self.adopt_refusal: HubError | None = None
        self.health = HealthBoard()
        self.status = HubStatus(
            version="0.1.0",
            ready=True,
            open_access=True,
            routes=[
                RouteStatus(service="character", database="character_db"),
                RouteStatus(service="catalog", database="catalog_db"),
            ],
            databases=[
                DatabaseStatus(database="character_db", available=True, sequence=7),
                DatabaseStatus(database="catalog_db", detail="the disk is on fire"),
            ],
        )
        self.address = ""

    def record(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.seconds_left.append(context.time_remaining() or 0.0)

    def next(self, script: deque[Answer], request: Any) -> Any:
        answer = script.popleft()
        if isinstance(answer, HubError):
            raise answer
        return answer(request) if isinstance(answer, Callable) else answer

    async def play(self, script: deque[list[Answer]]) -> AsyncIterator[Any]:
        try:
            for step in script.popleft():
                if isinstance(step, HubError):
                    raise step
                if inspect.isawaitable(step):
                    await step
                    continue
                yield step
                self.pages_sent += 1
                self.page_sent.set()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    @classmethod
    @asynccontextmanager
    async def running(cls, listen: str = "127.0.0.1:0") -> AsyncIterator[Self]:
        hub = cls()
        server = make_server(
            message_bytes_max=16 * 1024 * 1024, default_timeout=10.0, concurrent_streams_max=100
        )
        storage_service_pb2_grpc.add_StorageServiceServicer_to_server(Storage(hub), server)
        event_service_pb2_grpc.add_EventServiceServicer_to_server(Events(hub), server)
        hub_service_pb2_grpc.add_HubServiceServicer_to_server(Operator(hub), server)
        transactions = Transactions(hub)
        transaction_service_pb2_grpc.add_TransactionServiceServicer_to_server(transactions, server)
        health_pb2_grpc.add_HealthServicer_to_server(hub.health, server)
        hub.address = bind(server, listen)
        await server.start()
        try:
            yield hub
        finally:
            hub.health.close()
            await server.stop(0)


class Storage(storage_service_pb2_grpc.StorageServiceServicer):
    def __init__(self, hub: FakeHub) -> None:
        self._hub = hub

    async def Execute(self, request: Any, context: Any) -> Any:  # noqa: N802 - on the wire
        self._hub.record(request, context)
        return self._hub.next(self._hub.execute, request)

    async def ExecuteBatch(self, request: Any, context: Any) -> Any:  # noqa: N802 - on the wire
        self._hub.record(request, context)
        return self._hub.next(self._hub.execute_batch, request)

    async def Query(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - on the wire
        self._hub.record(request, context)
        async for response in self._hub.play(self._hub.query):
            yield response


class Events(event_service_pb2_grpc.EventServiceServicer):
    def __init__(self, hub: FakeHub) -> None:
        self._hub = hub

    async def Subscribe(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - on the wire
        self._hub.record(request, context)
        async for response in self._hub.play(self._hub.subscribe):
            yield response

    async def AcknowledgeEvents(self, request: Any, context: Any) -> Any:  # noqa: N802 - on the wire
        self._hub.record(request, context)
        if self._hub.acknowledge:
            self._hub.next(self._hub.acknowledge, request)
        self._hub.acknowledged.append((request.cursor, tuple(request.event_ids)))
        return event_service_pb2.AcknowledgeEventsResponse()

    async def ListSubscriptions(self, request: Any, context: Any) -> Any:  # noqa: N802 - on the wire
        self._hub.record(request, context)
        return self._hub.subscriptions.get(request.source_service, ListSubscriptionsResponse())

    async def DeleteSubscription(self, request: Any, context: Any) -> Any:  # noqa: N802 - on the wire
        self._hub.record(request, context)
        if self._hub.delete:
            self._hub.next(self._hub.delete, request)
        return event_service_pb2.DeleteSubscriptionResponse()


def scripted(name: str) -> Callable[..., Awaitable[Any]]:
    async def answer(self: Any, request: Any, context: Any) -> Any:
        self.hub.record(request, context)
        return self.hub.next(self.hub.transactions[name], request)

    return answer


class Transactions(transaction_service_pb2_grpc.TransactionServiceServicer):
    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub

    ExecuteTransaction = scripted("ExecuteTransaction")
    BeginTransaction = scripted("BeginTransaction")
    CommitTransaction = scripted("CommitTransaction")
    RollbackTransaction = scripted("RollbackTransaction")
    GetTransaction = scripted("GetTransaction")
    ListTransactions = scripted("ListTransactions")
    ResolveTransaction = scripted("ResolveTransaction")


class Operator(hub_service_pb2_grpc.HubServiceServicer):
    def __init__(self, hub: FakeHub) -> None:
        self._hub = hub

    async def GetStatus(self, request: Any, context: Any) -> Any:  # noqa: N802 - on the wire
        return hub_service_pb2.GetStatusResponse(status=self._hub.status)

    async def AdoptDatabase(self, requests: Any, context: Any) -> Any:  # noqa: N802 - on the wire
        async for request in requests:
            self._hub.record(request, context)
            if self._hub.adopt_refusal is not None:
                raise self._hub.adopt_refusal
            self._hub.adopted += request.chunk
        return hub_service_pb2.AdoptDatabaseResponse(database="catalog_db", tables=["heroes"])
