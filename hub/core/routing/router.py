"""The decision about every operation: where it goes, and whether it may.

Called by the servicers with checked content, calls the storage server's ports.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from hub.core.ports import (
    Adoption,
    Operation,
    Operations,
    Outcome,
    Page,
    Reading,
    Recorded,
    Storage,
)
from hub.core.routing.routes import Routes
from hub.core.status import StatusBoard
from messagehub.errors import HubError, OperationNotFound


class Draft(NamedTuple):
    """One operation as its caller wants it: `content` is a statement or an event."""

    database: str
    request_id: str
    content: Any


class Executed(NamedTuple):
    """The database of an operation, and what became of it there."""

    database: str
    outcome: Outcome


class Settled(NamedTuple):
    """The same for an operation of a batch, where a failure is its own."""

    database: str
    outcome: Outcome | HubError


class Pages(NamedTuple):
    """The database of a query, and its pages as they come."""

    database: str
    pages: AsyncIterator[Page]


class Router:
    """Resolves the route of each operation, hands it on, and remembers how far databases are."""

    def __init__(
        self, *, routes: Routes, operations: Operations, storage: Storage, status: StatusBoard
    ) -> None:
        self._routes = routes
        self._operations = operations
        self._storage = storage
        self._status = status

    async def execute(
        self, draft: Draft, *, source_service: str, correlation_id: str, seconds: float
    ) -> Executed:
        """Executes one operation; raises the `HubError` that it ended with."""
        database, read_only = self._routes.resolve(source_service, draft.database)
        operation = Operation(
            database, read_only, source_service, correlation_id, draft.request_id, draft.content
        )
        (outcome,) = await self.deliver((operation,), seconds)
        if isinstance(outcome, HubError):
            raise outcome
        return Executed(database, outcome)

    async def deliver(
        self, operations: Sequence[Operation], seconds: float
    ) -> Sequence[Outcome | HubError]:
        """Executes operations whose routes were resolved; gives for each its outcome or error."""
        outcomes = await self._operations.run(operations, seconds)
        for operation, outcome in zip(operations, outcomes, strict=True):
            if not isinstance(outcome, HubError):
                self._status.saw(operation.database, outcome.sequence)
        return outcomes

    async def execute_batch(
        self,
        drafts: Sequence[Draft | Settled],
        *,
        source_service: str,
        correlation_id: str,
        seconds: float,
    ) -> list[Settled]:
        """Executes independent operations and gives an outcome or an error for each.

        An operation that was refused before comes settled and leaves the others alone. Raises a
        `HubError` only when the source service itself is refused.
        """
        self._routes.check_service(source_service)
        settled: list[Settled | None] = []
        operations: list[Operation] = []
        for draft in drafts:
            if isinstance(draft, Settled):
                settled.append(draft)
                continue
            database, request_id, content = draft
            try:
                database, read_only = self._routes.resolve(source_service, database)
            except HubError as refusal:
                settled.append(Settled(database, refusal))
                continue
            settled.append(None)
            operations.append(
                Operation(database, read_only, source_service, correlation_id, request_id, content)
            )
        outcomes = await self._operations.run(operations, seconds) if operations else ()
        pairs = zip(operations, outcomes, strict=True)
        return [known or self._settle(*next(pairs)) for known in settled]

    def query(
        self,
        draft: Draft,
        *,
        source_service: str,
        correlation_id: str,
        page_size: int,
        seconds: float,
    ) -> Pages:
        """Begins a query; its pages raise the `HubError` that it ends with."""
        route = self._routes.resolve(source_service, draft.database)
        reading = Reading(route.database, source_service, correlation_id, draft.content, page_size)
        return Pages(route.database, self._storage.query(reading, seconds))

    async def look_up(
        self,
        request_id: str,
        *,
        source_service: str,
        database: str,
        correlation_id: str,
        seconds: float,
    ) -> tuple[str, Recorded]:
        """Gives the database of a write and what became of it.

        Raises `OperationNotFound`, also for a write of another service.
        """
        route = self._routes.resolve(source_service, database)
        recorded = await self._storage.look_up(
            route.database, request_id, correlation_id=correlation_id, seconds=seconds
        )
        if recorded is None or recorded.source_service != source_service:
            raise OperationNotFound(
                f"{route.database} has no record of a write of {source_service} with the request "
                f"id {request_id}: it never arrived, is not executed yet, or is older than what "
                "the journal keeps"
            )
        return route.database, recorded

    async def adopt(
        self, adoption: Adoption, *, source_service: str, seconds: float
    ) -> tuple[str, Sequence[str]]:
        """Fills an empty database that the service may write; gives it and its tables."""
        route = self._routes.resolve_writable(source_service, adoption.database)
        tables = await self._storage.adopt(adoption._replace(database=route.database), seconds)
        return route.database, tables

    def _settle(self, operation: Operation, outcome: Outcome | HubError) -> Settled:
        if not isinstance(outcome, HubError):
            self._status.saw(operation.database, outcome.sequence)
        return Settled(operation.database, outcome)
