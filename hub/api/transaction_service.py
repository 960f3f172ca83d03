"""`messagehub.v1.TransactionService`: all or nothing, over any databases of the hub."""

from typing import Any

import grpc

from hub.api.checks import given_request_id, positive_seconds
from hub.api.transaction_checks import TransactionChecks, fingerprint
from hub.api.transaction_messages import (
    begun_message,
    page_token,
    selection,
    transaction_message,
)
from hub.core.routing.routes import Routes
from hub.core.transactions.access import may_see, planned, with_events
from hub.core.transactions.coordinator import Call, Coordinator, Done
from hub.core.transactions.cuts import Cuts
from hub.core.transactions.forcing import Forcing
from hub.core.transactions.inquiries import Inquiries
from hub.core.transactions.interactive import Interactive
from hub.core.transactions.transaction import Standing, Work
from messagehub.errors import TransactionNotFound
from messagehub.request_ids import new_request_id
from messagehub.serving.interceptor import time_left
from messagehub.v1 import transaction_service_pb2 as messages
from messagehub.v1 import transaction_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class TransactionService(transaction_service_pb2_grpc.TransactionServiceServicer):
    """Transactions in one call, interactive ones, and how they stand."""

    def __init__(
        self,
        *,
        routes: Routes,
        checks: TransactionChecks,
        coordinator: Coordinator,
        cuts: Cuts,
        interactive: Interactive,
        inquiries: Inquiries,
        forcing: Forcing,
    ) -> None:
        self._routes = routes
        self._checks = checks
        self._coordinator = coordinator
        self._cuts = cuts
        self._interactive = interactive
        self._inquiries = inquiries
        self._forcing = forcing

    async def ExecuteTransaction(
        self, request: messages.ExecuteTransactionRequest, context: Context
    ) -> messages.ExecuteTransactionResponse:
        """Runs all operations atomically."""
        service = request.source_service
        self._routes.check_service(service)
        self._checks.size(request)
        request_id = given_request_id(request.request_id)
        operations = self._checks.operations(service, request.operations)
        events = self._checks.events(service, request.events)
        work = planned(self._routes, service, operations, events)
        call = Call(
            source_service=service,
            correlation_id=request.correlation_id,
            request_id=request_id or new_request_id(),
            chosen=bool(request_id),
            fingerprint=fingerprint(service, work),
            work=work,
        )
        seconds = _seconds(request)
        if request.read_only:
            done = await self._coordinator.read(call, self._cuts, seconds)
        else:
            done = await self._coordinator.execute(call, seconds)
        return _response(request.correlation_id, done)

    async def BeginTransaction(
        self, request: messages.BeginTransactionRequest, context: Context
    ) -> messages.BeginTransactionResponse:
        """Opens a transaction."""
        service = request.source_service
        self._routes.check_service(service)
        header = await self._interactive.begin(
            self._checks.databases(service, request.databases),
            source_service=service,
            correlation_id=request.correlation_id,
            read_only=request.read_only,
            idle_seconds=self._checks.idle_seconds(request),
            seconds=time_left(),
        )
        return begun_message(header)

    async def CommitTransaction(
        self, request: messages.CommitTransactionRequest, context: Context
    ) -> messages.CommitTransactionResponse:
        """Commits an open transaction."""
        service = request.source_service
        self._routes.check_service(service)
        none: dict[str, Work] = {}
        events = with_events(none, self._checks.events(service, request.events))
        standing = await self._interactive.commit(
            request.transaction_id, service, events, seconds=time_left()
        )
        return messages.CommitTransactionResponse(
            correlation_id=request.correlation_id, transaction=transaction_message(standing)
        )

    async def RollbackTransaction(
        self, request: messages.RollbackTransactionRequest, context: Context
    ) -> messages.RollbackTransactionResponse:
        """Rolls an open transaction back."""
        service = request.source_service
        self._routes.check_service(service)
        standing = await self._interactive.roll_back(
            request.transaction_id, service, seconds=time_left()
        )
        return messages.RollbackTransactionResponse(
            correlation_id=request.correlation_id, transaction=transaction_message(standing)
        )

    async def GetTransaction(
        self, request: messages.GetTransactionRequest, context: Context
    ) -> messages.GetTransactionResponse:
        """Tells what became of a transaction."""
        standing = await self._seen(request.transaction_id, request.source_service)
        return messages.GetTransactionResponse(
            correlation_id=request.correlation_id, transaction=transaction_message(standing)
        )

    async def ListTransactions(
        self, request: messages.ListTransactionsRequest, context: Context
    ) -> messages.ListTransactionsResponse:
        """Lists the transactions of the databases that the service may read."""
        readable = self._routes.readable(request.source_service)
        page = await self._inquiries.page(readable, selection(request), time_left())
        return messages.ListTransactionsResponse(
            correlation_id=request.correlation_id,
            transactions=map(transaction_message, page.standings),
            next_page_token=page_token(page.standings[-1]) if page.more else "",
            unavailable_databases=page.unavailable,
        )

    async def ResolveTransaction(
        self, request: messages.ResolveTransactionRequest, context: Context
    ) -> messages.ResolveTransactionResponse:
        """Ends a transaction whose home cannot tell how it ended."""
        service = request.source_service
        standing = await self._seen(request.transaction_id, service)
        for database in standing.header.databases:
            self._routes.resolve_writable(service, database)
        forced = await self._forcing.force(
            standing, commit=request.commit, by=service, seconds=time_left()
        )
        return messages.ResolveTransactionResponse(
            correlation_id=request.correlation_id, transaction=transaction_message(forced)
        )

    async def _seen(self, transaction_id: str, source_service: str) -> Standing:
        self._routes.check_service(source_service)
        standing = await self._inquiries.get(transaction_id, time_left())
        if not may_see(self._routes, source_service, standing.header):
            raise TransactionNotFound(
                f"the service {source_service} has no transaction {transaction_id}, and may not "
                "read all of its databases",
                metadata={"transaction_id": transaction_id},
            )
        return standing


def _response(correlation_id: str, done: Done) -> messages.ExecuteTransactionResponse:
    response = messages.ExecuteTransactionResponse(
        correlation_id=correlation_id,
        transaction_id=done.transaction_id,
        replayed=done.replayed,
    )
    for result in done.results:
        added = response.results.add(database=result.database, sequence=result.sequence)
        added.result.CopyFrom(result.result)
    return response


def _seconds(request: messages.ExecuteTransactionRequest) -> float:
    if not request.HasField("timeout"):
        return time_left()
    return min(time_left(), positive_seconds(request.timeout, "timeout"))
