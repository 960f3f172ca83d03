"""Backups that services ask for by publishing `storage.backup_request`."""

from typing import Final

from hub.api.checks import request_id_or_new
from hub.core.backups.backups import Backups, Wanted
from hub.core.routing.routes import Routes
from messagehub.errors import InvalidRequest
from messagehub.v1.event_service_pb2 import PublishEventRequest, PublishEventResponse

PATH: Final = "event.backup_request"


class BackupRequests:
    """Begins backups; how each ended comes as an event with the correlation id of the request."""

    def __init__(self, *, routes: Routes, backups: Backups) -> None:
        self._routes = routes
        self._backups = backups

    async def begin(self, request: PublishEventRequest) -> PublishEventResponse:
        """Begins a backup; the request itself leaves no event, so it has no sequence."""
        draft = request.event
        if draft.WhichOneof("data") != "backup_request":
            raise InvalidRequest(
                f"{PATH} is required with this type: the databases, or none for all",
                fields={PATH: "is required with this type"},
            )
        readable = self._routes.readable(request.source_service)
        wanted = draft.backup_request.databases
        for database in wanted:
            self._routes.resolve(request.source_service, database)
        await self._backups.create(
            Wanted(
                backup_id=request_id_or_new(request.request_id),
                source_service=request.source_service,
                correlation_id=request.correlation_id,
                databases=tuple(sorted(set(wanted))) or readable,
            )
        )
        return PublishEventResponse(
            correlation_id=request.correlation_id,
            database=self._routes.resolve(request.source_service, draft.database).database,
        )
