"""`messagehub.v1.HubService`: how the hub stands, and what an operator may do."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from hub.api.checks import RequestChecks, positive_seconds, required_database
from hub.core.circuits.breaker import CircuitState
from hub.core.circuits.circuits import Circuits
from hub.core.ports import Adoption
from hub.core.routing.router import Router
from hub.core.routing.routes import Routes
from hub.core.status import Change, DatabaseState, HubState, StatusBoard, StorageServerState
from hub.core.verification import Verification
from messagehub import __version__
from messagehub.errors import InvalidRequest
from messagehub.serving.interceptor import time_left
from messagehub.v1 import hub_service_pb2 as messages
from messagehub.v1 import hub_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

MICROSECONDS: Final = 1_000_000
CIRCUIT_STATES: Final = {
    CircuitState.CLOSED: messages.CIRCUIT_STATE_CLOSED,
    CircuitState.OPEN: messages.CIRCUIT_STATE_OPEN,
    CircuitState.HALF_OPEN: messages.CIRCUIT_STATE_HALF_OPEN,
}


class HubService(hub_service_pb2_grpc.HubServiceServicer):
    """The status, the circuits by hand, and taking over an existing file.

    `look_at_inbox` brings what the status says of the inbox up to date, `clock` gives the time in
    seconds since 1970.
    """

    def __init__(
        self,
        *,
        routes: Routes,
        status: StatusBoard,
        router: Router,
        circuits: Circuits,
        checks: RequestChecks,
        look_at_inbox: Callable[[], Awaitable[None]],
        verification: Verification,
        clock: Callable[[], float],
    ) -> None:
        self._routes = routes
        self._status = status
        self._router = router
        self._circuits = circuits
        self._checks = checks
        self._look_at_inbox = look_at_inbox
        self._verification = verification
        self._start_time = Timestamp()
        self._start_time.FromMicroseconds(int(clock() * MICROSECONDS))

    async def GetStatus(
        self, request: messages.GetStatusRequest, context: Context
    ) -> messages.GetStatusResponse:
        """Tells how everything stands."""
        await self._look_at_inbox()
        return messages.GetStatusResponse(
            correlation_id=request.correlation_id, status=self._hub(self._status.snapshot())
        )

    async def WatchStatus(
        self, request: messages.WatchStatusRequest, context: Context
    ) -> AsyncIterator[messages.WatchStatusResponse]:
        """Streams the whole status, then changes."""
        async for change in self._status.watch():
            response = self._update(change)
            response.correlation_id = request.correlation_id
            yield response

    async def VerifyDeployment(
        self, request: messages.VerifyDeploymentRequest, context: Context
    ) -> messages.VerifyDeploymentResponse:
        """Checks the invariants of the live databases."""
        findings = await self._verification.run(self._routes.readable(request.source_service))
        return messages.VerifyDeploymentResponse(
            correlation_id=request.correlation_id,
            findings=[messages.Finding(**finding._asdict()) for finding in findings],
        )

    async def OpenCircuit(
        self, request: messages.OpenCircuitRequest, context: Context
    ) -> messages.OpenCircuitResponse:
        """Refuses the calls of a database from now on."""
        database = self._operated(request)
        seconds = None
        if request.HasField("duration"):
            seconds = positive_seconds(request.duration, "duration")
        self._circuits.open(database, by=request.source_service, seconds=seconds)
        return messages.OpenCircuitResponse(
            correlation_id=request.correlation_id, database=self._database(database)
        )

    async def CloseCircuit(
        self, request: messages.CloseCircuitRequest, context: Context
    ) -> messages.CloseCircuitResponse:
        """Lets the calls of a database pass again."""
        database = self._operated(request)
        self._circuits.close(database, by=request.source_service)
        return messages.CloseCircuitResponse(
            correlation_id=request.correlation_id, database=self._database(database)
        )

    async def AdoptDatabase(
        self, request_iterator: AsyncIterator[messages.AdoptDatabaseRequest], context: Context
    ) -> messages.AdoptDatabaseResponse:
        """Fills an empty database with the file that the caller streams."""
        first = await anext(request_iterator, None)
        if first is None:
            raise InvalidRequest("the file is missing: the first message names its database")
        self._checks.file_header(first)
        correlation_id = first.correlation_id
        database, tables = await self._router.adopt(
            Adoption(
                database=first.database,
                correlation_id=correlation_id,
                size_bytes=first.size_bytes,
                checksum=first.checksum,
                chunks=self._chunks(first, request_iterator),
            ),
            source_service=first.source_service,
            seconds=time_left(),
        )
        return messages.AdoptDatabaseResponse(
            correlation_id=correlation_id, database=database, tables=tables
        )

    def _operated(self, request: messages.OpenCircuitRequest | messages.CloseCircuitRequest) -> str:
        """The database whose circuit somebody operates, who may write to it."""
        self._routes.check_service(request.source_service)
        database = required_database(request.database)
        return self._routes.resolve_writable(request.source_service, database).database

    def _database(self, name: str) -> messages.DatabaseStatus:
        return _database(self._status.database(name))

    async def _chunks(
        self,
        first: messages.AdoptDatabaseRequest,
        others: AsyncIterator[messages.AdoptDatabaseRequest],
    ) -> AsyncIterator[bytes]:
        self._checks.chunk(first.chunk)
        yield first.chunk
        async for message in others:
            self._checks.chunk(message.chunk)
            yield message.chunk

    def _update(self, change: Change) -> messages.WatchStatusResponse:
        if isinstance(change, HubState):
            return messages.WatchStatusResponse(snapshot=self._hub(change))
        if isinstance(change, StorageServerState):
            return messages.WatchStatusResponse(storage_server=_storage_server(change))
        return messages.WatchStatusResponse(database=_database(change))

    def _hub(self, state: HubState) -> messages.HubStatus:
        return messages.HubStatus(
            version=__version__,
            start_time=self._start_time,
            ready=state.ready,
            inbox_detail=state.inbox_detail,
            open_access=self._routes.open_access,
            routes=[
                messages.RouteStatus(service=service, database=database)
                for service, database in sorted(self._routes.services.items())
            ],
            storage_servers=map(_storage_server, state.storage_servers),
            databases=map(_database, state.databases),
        )


def _storage_server(state: StorageServerState) -> messages.StorageServerStatus:
    return messages.StorageServerStatus(
        address=state.address,
        connected=state.connected,
        version=state.version,
        engine=state.engine,
    )


def _database(state: DatabaseState) -> messages.DatabaseStatus:
    age = Duration()
    age.FromMicroseconds(int(state.backlog.oldest_seconds * MICROSECONDS))
    return messages.DatabaseStatus(
        database=state.database,
        available=state.usable,
        detail=state.obstacle,
        storage_server=state.storage_server,
        sequence=state.sequence,
        schema_version=state.schema_version,
        circuit=CIRCUIT_STATES[state.circuit],
        inbox_operations=state.backlog.operations,
        inbox_bytes=state.backlog.size,
        inbox_oldest_age=age,
        in_doubt_transaction_id=state.in_doubt.header.transaction_id if state.in_doubt else "",
    )
