"""Schemas: versions of databases, led up and back by scripts.

    await hub.update_schema([
        SchemaUpdate("1.1.0", "ALTER TABLE heroes ADD level INTEGER", database="character_db"),
        SchemaUpdate("2.0.0", "DROP TABLE rumours", database="campaign_db"),
    ])
    print((await hub.schema("character_db")).version)

All updates of a call are one transaction. With `dry_run` everything is run, reported and undone.
An operation may name the versions that it is written for: `execute(..., schema_version="^1.1")`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from messagehub.caller import Caller
from messagehub.request_ids import new_request_id
from messagehub.v1 import schema_pb2
from messagehub.v1 import schema_service_pb2 as messages
from messagehub.v1.schema_service_pb2_grpc import SchemaServiceStub

__all__ = ["SCHEMA_TIMEOUT_SECONDS", "SchemaUpdate", "Schemas"]

# Scripts over many rows take their time; the hub has a limit of its own.
SCHEMA_TIMEOUT_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class SchemaUpdate:
    """The change of one database to one version; `database` empty = the service's own.

    `baseline` records the version as reached without running its script.
    """

    version: str
    script: str = ""
    rollback_script: str = ""
    description: str = ""
    database: str = ""
    baseline: bool = False

    def message(self) -> schema_pb2.SchemaUpdate:
        """The update for the wire."""
        return schema_pb2.SchemaUpdate(
            database=self.database,
            version=self.version,
            description=self.description,
            script=self.script,
            rollback_script=self.rollback_script,
            baseline=self.baseline,
        )


class Schemas:
    """The part of `Hub` that is about schemas."""

    async def update_schema(
        self: Caller,
        updates: Sequence[SchemaUpdate],
        *,
        dry_run: bool = False,
        request_id: str | None = None,
        correlation_id: str = "",
        timeout: float | None = None,
    ) -> messages.UpdateSchemaResponse:
        """Applies updates, all or none; several of one database in their order.

        The answer has a result for each, with a report for each statement. Raises `InvalidVersion`
        for a version that is not above the current one, `SchemaHistoryConflict` for one that was
        reached with another script, and the error of the statement that failed, with its number
        and text. With `dry_run` a failed statement is told in its report instead.
        """
        request = messages.UpdateSchemaRequest(
            source_service=self.service,
            correlation_id=correlation_id,
            request_id=request_id or new_request_id(),
            updates=[update.message() for update in updates],
            dry_run=dry_run,
        )
        stub = SchemaServiceStub(self.channel)
        answer: messages.UpdateSchemaResponse = await self.call(
            lambda seconds: stub.UpdateSchema(request, timeout=seconds),
            timeout=timeout or SCHEMA_TIMEOUT_SECONDS,
        )
        return answer

    async def rollback_schema(
        self: Caller,
        to_version: str,
        *,
        database: str = "",
        dry_run: bool = False,
        request_id: str | None = None,
        correlation_id: str = "",
        timeout: float | None = None,
    ) -> messages.RollbackSchemaResponse:
        """Leads a database back by its recorded scripts; `0.0.0` = before the first version.

        Raises `InvalidVersion`, before anything runs, where a script is missing.
        """
        request = messages.RollbackSchemaRequest(
            source_service=self.service,
            database=database,
            correlation_id=correlation_id,
            request_id=request_id or new_request_id(),
            to_version=to_version,
            dry_run=dry_run,
        )
        stub = SchemaServiceStub(self.channel)
        answer: messages.RollbackSchemaResponse = await self.call(
            lambda seconds: stub.RollbackSchema(request, timeout=seconds),
            timeout=timeout or SCHEMA_TIMEOUT_SECONDS,
        )
        return answer

    async def schema(
        self: Caller, database: str = "", *, timeout: float | None = None
    ) -> messages.GetSchemaResponse:
        """Tells the version of a database, its history, and its tables as they are."""
        request = messages.GetSchemaRequest(source_service=self.service, database=database)
        stub = SchemaServiceStub(self.channel)
        answer: messages.GetSchemaResponse = await self.call(
            lambda seconds: stub.GetSchema(request, timeout=seconds), timeout=timeout
        )
        return answer

    async def schemas(
        self: Caller,
        required_versions: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
    ) -> messages.ListSchemasResponse:
        """Compares the databases that the service may read with ranges, by database.

        Where none is given, what the hub's configuration requires counts.
        """
        request = messages.ListSchemasRequest(
            source_service=self.service, required_versions=required_versions or {}
        )
        stub = SchemaServiceStub(self.channel)
        answer: messages.ListSchemasResponse = await self.call(
            lambda seconds: stub.ListSchemas(request, timeout=seconds), timeout=timeout
        )
        return answer
