"""`messagehub.v1.StorageService`: statements on the databases of services."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from hub.api.batch_messages import batch_response
from hub.api.checks import (
    RequestChecks,
    given_request_id,
    request_id_or_new,
    required_request_id,
    written_for,
)
from hub.api.execute_messages import execute_response
from hub.api.joined_statements import JoinedStatements
from hub.api.operation_messages import (
    entry_message,
    operation_message,
    page_size,
    page_token,
    selection,
)
from hub.api.streamed_operations import StreamedOperations
from hub.core.delivery.submissions import Submissions
from hub.core.routing.router import Draft, Router, Settled
from messagehub.errors import HubError
from messagehub.serving.interceptor import time_left
from messagehub.v1 import storage_service_pb2 as messages
from messagehub.v1 import storage_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class StorageService(storage_service_pb2_grpc.StorageServiceServicer):
    """Statements now, in an open transaction, or later.

    `message_bytes_max` bounds the rows of a whole batch, `query_seconds_max` a query,
    `page_bytes_max` a page of operations.
    """

    def __init__(
        self,
        *,
        router: Router,
        submissions: Submissions,
        joined: JoinedStatements,
        streamed: StreamedOperations,
        checks: RequestChecks,
        message_bytes_max: int,
        query_seconds_max: float,
        page_bytes_max: int,
    ) -> None:
        self._router = router
        self._submissions = submissions
        self._joined = joined
        self._streamed = streamed
        self._checks = checks
        self._message_bytes_max = message_bytes_max
        self._query_seconds_max = query_seconds_max
        self._page_bytes_max = page_bytes_max

    async def Execute(
        self, request: messages.ExecuteRequest, context: Context
    ) -> messages.ExecuteResponse:
        """Runs one statement."""
        self._checks.statement(request.statement)
        content = written_for(request.statement, request.schema_version)
        if request.transaction_id:
            return await self._joined.execute(request)
        correlation_id = request.correlation_id
        executed = await self._router.execute(
            Draft(request.database, request_id_or_new(request.request_id), content),
            source_service=request.source_service,
            correlation_id=correlation_id,
            seconds=time_left(),
        )
        return execute_response(correlation_id, executed)

    async def ExecuteBatch(
        self, request: messages.ExecuteBatchRequest, context: Context
    ) -> messages.ExecuteBatchResponse:
        """Runs independent operations."""
        self._checks.batch_size(len(request.operations))
        settled = await self._router.execute_batch(
            [self._draft(operation) for operation in request.operations],
            source_service=request.source_service,
            correlation_id=request.correlation_id,
            seconds=time_left(),
        )
        return batch_response(request.correlation_id, settled, self._message_bytes_max)

    async def ExecuteStream(
        self, request: messages.ExecuteStreamRequest, context: Context
    ) -> AsyncIterator[messages.ExecuteStreamResponse]:
        """Runs independent operations and tells each outcome when it is there."""
        async with aclosing(self._streamed.run(request)) as responses:
            async for response in responses:
                yield response

    async def Query(
        self, request: messages.QueryRequest, context: Context
    ) -> AsyncIterator[messages.QueryResponse]:
        """Streams the rows of one reading statement."""
        self._checks.statement(request.statement)
        content = written_for(request.statement, request.schema_version)
        self._checks.page_size(request.page_size)
        if request.transaction_id:
            for joined in await self._joined.query(request):
                yield joined
            return
        database, pages = self._router.query(
            Draft(
                request.database,
                given_request_id(request.request_id),
                content,
            ),
            source_service=request.source_service,
            correlation_id=request.correlation_id,
            page_size=request.page_size,
            seconds=min(time_left(), self._query_seconds_max),
        )
        async for page in pages:
            response = messages.QueryResponse(
                correlation_id=request.correlation_id,
                database=database,
                sequence=page.sequence,
                schema_version=page.schema_version,
            )
            response.result.CopyFrom(page.result)
            yield response

    async def GetOperation(
        self, request: messages.GetOperationRequest, context: Context
    ) -> messages.GetOperationResponse:
        """Tells what became of an operation."""
        request_id = required_request_id(request.request_id)
        known = await self._submissions.get(
            request_id,
            source_service=request.source_service,
            database=request.database,
            correlation_id=request.correlation_id,
            seconds=time_left(),
        )
        return messages.GetOperationResponse(
            correlation_id=request.correlation_id, operation=operation_message(request_id, known)
        )

    async def SubmitOperation(
        self, request: messages.SubmitOperationRequest, context: Context
    ) -> messages.SubmitOperationResponse:
        """Accepts an operation for later delivery."""
        self._checks.statement(request.statement)
        content = written_for(request.statement, request.schema_version)
        entry, replayed = await self._submissions.submit(
            Draft(
                request.database,
                request_id_or_new(request.request_id),
                content,
            ),
            source_service=request.source_service,
            correlation_id=request.correlation_id,
        )
        return messages.SubmitOperationResponse(
            correlation_id=request.correlation_id,
            database=entry.queue.database,
            replayed=replayed,
            operation=entry_message(entry),
        )

    async def ListOperations(
        self, request: messages.ListOperationsRequest, context: Context
    ) -> messages.ListOperationsResponse:
        """Lists submitted operations of the service."""
        page = await self._submissions.page(
            selection(request),
            operations_max=page_size(request),
            bytes_max=self._page_bytes_max,
        )
        return messages.ListOperationsResponse(
            correlation_id=request.correlation_id,
            operations=[entry_message(entry) for entry in page.entries],
            next_page_token=page_token(page.before),
        )

    async def CancelOperation(
        self, request: messages.CancelOperationRequest, context: Context
    ) -> messages.CancelOperationResponse:
        """Takes an operation back that was not delivered."""
        entry = await self._submissions.cancel(
            required_request_id(request.request_id), source_service=request.source_service
        )
        return messages.CancelOperationResponse(
            correlation_id=request.correlation_id, operation=entry_message(entry)
        )

    def _draft(self, operation: messages.BatchOperation) -> Draft | Settled:
        try:
            self._checks.statement(operation.statement)
            content = written_for(operation.statement, operation.schema_version)
            request_id = request_id_or_new(operation.request_id)
        except HubError as refusal:
            return Settled(operation.database, refusal)
        return Draft(operation.database, request_id, content)
