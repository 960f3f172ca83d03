"""`messagehub.v1.SchemaService`: versions of databases, changed in one transaction."""

from typing import Any, Final

import grpc

from hub.api.schema_checks import SchemaChecks
from hub.core.ports import Storage
from hub.core.routing.routes import Routes
from hub.core.schema.changes import Wanted
from hub.core.schema.migrations import Migrations, Outcome
from hub.core.schema.standings import Standing, Standings
from messagehub.errors import HubError
from messagehub.serving.interceptor import time_left
from messagehub.status import to_status
from messagehub.v1 import schema_service_pb2 as messages
from messagehub.v1 import schema_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

FULL_NAME: Final = messages.DESCRIPTOR.services_by_name["SchemaService"].full_name


class SchemaService(schema_service_pb2_grpc.SchemaServiceServicer):
    """Changes schemas, leads them back, and tells how they stand."""

    def __init__(
        self,
        *,
        routes: Routes,
        checks: SchemaChecks,
        migrations: Migrations,
        standings: Standings,
        storage: Storage,
    ) -> None:
        self._routes = routes
        self._checks = checks
        self._migrations = migrations
        self._standings = standings
        self._storage = storage

    async def UpdateSchema(
        self, request: messages.UpdateSchemaRequest, context: Context
    ) -> messages.UpdateSchemaResponse:
        """Applies updates, all or none."""
        wanted = self._checks.updates(
            request.source_service,
            request.updates,
            correlation_id=request.correlation_id,
            request_id=request.request_id,
        )
        outcome = await self._run(wanted, dry_run=request.dry_run)
        return messages.UpdateSchemaResponse(
            correlation_id=request.correlation_id,
            replayed=outcome.replayed,
            results=[step for report in outcome.reports for step in report.steps],
        )

    async def RollbackSchema(
        self, request: messages.RollbackSchemaRequest, context: Context
    ) -> messages.RollbackSchemaResponse:
        """Leads one database back."""
        wanted = self._checks.rollback(request)
        outcome = await self._run(wanted, dry_run=request.dry_run)
        return messages.RollbackSchemaResponse(
            correlation_id=request.correlation_id,
            database=wanted.databases[0],
            replayed=outcome.replayed,
            results=[step for report in outcome.reports for step in report.steps],
        )

    async def GetSchema(
        self, request: messages.GetSchemaRequest, context: Context
    ) -> messages.GetSchemaResponse:
        """Tells the schema of one database."""
        route = self._routes.resolve(request.source_service, request.database)
        found = await self._storage.describe_schema(
            route.database, correlation_id=request.correlation_id, seconds=time_left()
        )
        return messages.GetSchemaResponse(
            correlation_id=request.correlation_id,
            database=route.database,
            version=found.version,
            history=found.history,
            tables=found.tables,
            drifted=found.drifted,
        )

    async def ListSchemas(
        self, request: messages.ListSchemasRequest, context: Context
    ) -> messages.ListSchemasResponse:
        """Compares the schemas that the service may read."""
        readable = self._routes.readable(request.source_service)
        standings = await self._standings.of(
            readable,
            self._checks.required(request),
            correlation_id=request.correlation_id,
            seconds=time_left(),
        )
        return messages.ListSchemasResponse(
            correlation_id=request.correlation_id, schemas=map(_schema, standings)
        )

    async def _run(self, wanted: Wanted, *, dry_run: bool) -> Outcome:
        run = self._migrations.rehearse if dry_run else self._migrations.run
        return await run(wanted, time_left())


def _schema(standing: Standing) -> messages.DatabaseSchema:
    told = messages.DatabaseSchema(
        database=standing.database,
        required_version=standing.required,
        compatible=standing.compatible,
    )
    if isinstance(standing.found, HubError):
        told.error.CopyFrom(to_status(standing.found))
        return told
    told.version = standing.found.version
    told.drifted = standing.found.drifted
    return told
