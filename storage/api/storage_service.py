"""The private contract: validate, translate, one call into the core, translate back."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

import grpc
from google.rpc import status_pb2

from messagehub import __version__
from messagehub.errors import HubError, InternalError
from messagehub.serving import logs
from messagehub.serving.interceptor import time_left
from messagehub.status import to_status
from messagehub.storage.v1 import storage_service_pb2 as wire
from messagehub.storage.v1 import storage_service_pb2_grpc
from storage.api import subscriptions
from storage.api.adoption import Adoption
from storage.api.exchange import Exchange, ExchangeLimits, encode
from storage.core.database import Database
from storage.core.databases import Databases
from storage.core.operation import Operation
from storage.core.subscriptions import Change, Subscription
from storage.core.transactions.limits import MILLISECONDS

Context = grpc.aio.ServicerContext[Any, Any]


class _Addressed(Protocol):
    """A request that changes a named subscription."""

    database: str
    correlation_id: str


class StorageService(storage_service_pb2_grpc.StorageServiceServicer):
    """The servicer. `engine` is the engine and its version, as the hub shows it."""

    def __init__(
        self,
        databases: Databases,
        adoption: Adoption,
        exchange_limits: ExchangeLimits,
        *,
        engine: str,
        page_rows_max: int,
    ) -> None:
        self._databases = databases
        self._adoption = adoption
        self._exchange_limits = exchange_limits
        self._engine = engine
        self._page_rows_max = page_rows_max

    async def Exchange(
        self, request_iterator: AsyncIterator[wire.ExchangeRequest], context: Context
    ) -> AsyncGenerator[wire.ExchangeResponse, None]:
        """Carries operations both ways."""
        exchange = Exchange(self._databases, self._exchange_limits)
        async with aclosing(exchange.run(request_iterator)) as frames:
            async for frame in frames:
                yield frame

    async def Query(
        self, request: wire.QueryRequest, context: Context
    ) -> AsyncGenerator[wire.QueryResponse, None]:
        """Streams the rows of one reading statement."""
        database = self._databases.get(request.database)
        operation = Operation(
            source_service=request.source_service,
            correlation_id=request.correlation_id,
            request_id="",
            deadline=asyncio.get_running_loop().time() + time_left(),
            deliver=lambda _: None,
            statement=request.statement,
            schema_version=request.schema_version,
        )
        page_rows = min(request.page_size or self._page_rows_max, self._page_rows_max)
        position = await database.position()
        async with aclosing(database.pages(operation, page_rows)) as pages:
            async for page in pages:
                yield wire.QueryResponse(
                    sequence=position.sequence, schema_version=position.schema_version, result=page
                )

    async def Tail(
        self, request: wire.TailRequest, context: Context
    ) -> AsyncGenerator[wire.TailResponse, None]:
        """Streams the journal of one database."""
        database = self._databases.get(request.database)
        after = request.after_sequence
        if request.from_end:
            after = (await database.position()).sequence
        async with aclosing(database.follow(request.epoch, after)) as parts:
            async for events, position in parts:
                yield wire.TailResponse(
                    epoch=position.epoch,
                    events=events,
                    sequence=position.sequence,
                    oldest_sequence=position.oldest_sequence,
                )

    async def LookUpOperation(
        self, request: wire.LookUpOperationRequest, context: Context
    ) -> wire.LookUpOperationResponse:
        """Tells the recorded outcome of a write."""
        database = self._databases.get(request.database)
        recorded = await database.recorded(request.request_id)
        if recorded is None:
            return wire.LookUpOperationResponse(found=False)
        return wire.LookUpOperationResponse(
            found=True,
            record=wire.JournalRecord(
                source_service=recorded.source_service,
                correlation_id=recorded.correlation_id,
                query=recorded.query,
                time_us=recorded.time_us,
                submitted=recorded.submitted,
            ),
            outcome=encode(0, recorded.outcome),
        )

    async def WatchDatabases(
        self, request: wire.WatchDatabasesRequest, context: Context
    ) -> AsyncGenerator[wire.WatchDatabasesResponse, None]:
        """Opens databases and streams how they stand."""
        logs.correlation_id.set(request.correlation_id)
        async with aclosing(self._databases.watch(request.databases)) as changes:
            async for databases in changes:
                yield wire.WatchDatabasesResponse(
                    version=__version__,
                    engine=self._engine,
                    databases=[_state(database) for database in databases],
                )

    async def OpenSubscription(
        self, request: wire.OpenSubscriptionRequest, context: Context
    ) -> wire.OpenSubscriptionResponse:
        """Makes a named subscription where it is new, and tells where it stands."""
        kept = await self._change(request, subscriptions.opening(request))
        if kept is None:
            raise InternalError("a subscription that was opened is not there")
        return subscriptions.opened(kept)

    async def HoldSubscriptions(
        self, request: wire.HoldSubscriptionsRequest, context: Context
    ) -> wire.HoldSubscriptionsResponse:
        """Prolongs leases, or gives them up."""
        outcomes = await asyncio.gather(
            *(self._outcome(request, hold) for hold in subscriptions.holdings(request))
        )
        return wire.HoldSubscriptionsResponse(outcomes=outcomes)

    async def AcknowledgeSubscription(
        self, request: wire.AcknowledgeSubscriptionRequest, context: Context
    ) -> wire.AcknowledgeSubscriptionResponse:
        """Moves an acknowledged position on."""
        await self._change(request, subscriptions.acknowledgement(request))
        return wire.AcknowledgeSubscriptionResponse()

    async def ListSubscriptions(
        self, request: wire.ListSubscriptionsRequest, context: Context
    ) -> wire.ListSubscriptionsResponse:
        """Tells how named subscriptions stand."""
        database = self._databases.get(request.database)
        standings = await database.subscriptions(request.source_service, request.subscription)
        return wire.ListSubscriptionsResponse(states=map(subscriptions.state, standings))

    async def DeleteSubscription(
        self, request: wire.DeleteSubscriptionRequest, context: Context
    ) -> wire.DeleteSubscriptionResponse:
        """Forgets a named subscription."""
        await self._change(request, subscriptions.deletion(request))
        return wire.DeleteSubscriptionResponse()

    async def DescribeSchema(
        self, request: wire.DescribeSchemaRequest, context: Context
    ) -> wire.DescribeSchemaResponse:
        """Tells the schema of one database and how it came to be."""
        logs.correlation_id.set(request.correlation_id)
        return await self._databases.get(request.database).schema()

    async def RehearseSchema(
        self, request: wire.RehearseSchemaRequest, context: Context
    ) -> wire.RehearseSchemaResponse:
        """Runs changes of one database's schema, reports, and leaves nothing."""
        logs.correlation_id.set(request.correlation_id)
        participant = await self._databases.get(request.database).participant()
        now, left = asyncio.get_running_loop().time(), time_left()
        control = Operation(
            source_service=request.source_service,
            correlation_id=request.correlation_id,
            request_id="",
            deadline=now + left,
            deliver=lambda _: None,
        )
        wait = min(request.wait_timeout_ms / MILLISECONDS or left, left)
        reports = await participant.rehearse(request.operations, control, until=now + wait)
        return wire.RehearseSchemaResponse(reports=reports)

    async def AdoptDatabase(
        self, request_iterator: AsyncIterator[wire.AdoptDatabaseRequest], context: Context
    ) -> wire.AdoptDatabaseResponse:
        """Fills an empty database with a copy of a SQLite file."""
        return wire.AdoptDatabaseResponse(tables=await self._adoption.run(request_iterator))

    async def _outcome(self, request: _Addressed, change: Change) -> status_pb2.Status:
        try:
            await self._change(request, change)
        except HubError as refusal:
            return to_status(refusal)
        return status_pb2.Status()

    async def _change(self, request: _Addressed, change: Change) -> Subscription | None:
        return await self._databases.get(request.database).change(
            change, correlation_id=request.correlation_id, seconds=time_left()
        )


def _state(database: Database) -> wire.DatabaseState:
    return wire.DatabaseState(
        database=database.name,
        available=not database.detail,
        detail=database.detail,
        sequence=database.sequence,
        schema_version=database.schema_version,
        epoch=database.epoch,
        in_doubt=database.in_doubt,
    )
