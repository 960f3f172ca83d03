"""Statements that join an open transaction."""

from collections.abc import Sequence
from typing import Any, Final

from hub.api.checks import request_id_or_new, written_for
from hub.core.routing.routes import Routes
from hub.core.transactions.interactive import Interactive
from hub.core.transactions.transaction import Advanced, PartOperation
from messagehub.serving.interceptor import time_left
from messagehub.v1 import storage_service_pb2 as messages
from messagehub.v1.statement_pb2 import ResultSet, Statement

PAGE_ROWS: Final = 1000


class JoinedStatements:
    """`Execute` and `Query` with a `transaction_id`; their fields were checked before."""

    def __init__(self, *, routes: Routes, interactive: Interactive) -> None:
        self._routes = routes
        self._interactive = interactive

    async def execute(self, request: messages.ExecuteRequest) -> messages.ExecuteResponse:
        """Runs one statement; it sees what the transaction did before."""
        database, answer = await self._run(request, read_only=False)
        response = messages.ExecuteResponse(
            correlation_id=request.correlation_id,
            database=database,
            sequence=answer.sequence,
            schema_version=answer.schema_version,
        )
        response.result.CopyFrom(answer.results[0].result)
        return response

    async def query(self, request: messages.QueryRequest) -> Sequence[messages.QueryResponse]:
        """Runs one statement that only reads; its rows are bounded as those of `Execute` are."""
        database, answer = await self._run(request, read_only=True)
        return [
            messages.QueryResponse(
                correlation_id=request.correlation_id,
                database=database,
                sequence=answer.sequence,
                schema_version=answer.schema_version,
                result=page,
            )
            for page in _pages(answer.results[0].result, request.page_size or PAGE_ROWS)
        ]

    async def _run(self, request: Any, *, read_only: bool) -> tuple[str, Advanced]:
        route = self._routes.resolve(request.source_service, request.database)
        statement: Statement = request.statement
        written_for(statement, request.schema_version)
        answer = await self._interactive.execute(
            request.transaction_id,
            request.source_service,
            route.database,
            PartOperation(
                place=0,
                request_id=request_id_or_new(request.request_id),
                read_only=read_only or route.read_only,
                schema_version=request.schema_version,
                statement=statement,
            ),
            correlation_id=request.correlation_id,
            seconds=time_left(),
        )
        return route.database, answer


def _pages(result: ResultSet, rows_max: int) -> list[ResultSet]:
    if len(result.rows) <= rows_max:
        return [result]
    return [
        ResultSet(columns=result.columns, rows=result.rows[first : first + rows_max])
        for first in range(0, len(result.rows), rows_max)
    ]
