"""Schema updates that services ask for by publishing `storage.schema_request`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hub.api.schema_checks import SchemaChecks
from hub.core.schema.migrations import Migrations
from messagehub.errors import HubError, InvalidRequest, Retry
from messagehub.serving.interceptor import time_left
from messagehub.v1.event_service_pb2 import PublishEventRequest, PublishEventResponse

PATH: Final = "event.schema_request"


class SchemaRequests:
    """Makes updates of published requests.

    The publisher is answered when the update has ended, so that nothing is lost with this hub. How
    it ended comes as events; only what may be sent again, or is no update at all, is an error.
    """

    def __init__(self, *, checks: SchemaChecks, migrations: Migrations) -> None:
        self._checks = checks
        self._migrations = migrations

    async def run(self, request: PublishEventRequest) -> PublishEventResponse:
        """Runs the updates; the request itself leaves no event, so it has no sequence."""
        draft = request.event
        if draft.WhichOneof("data") != "schema_request":
            raise InvalidRequest(
                f"{PATH} is required with this type: the updates",
                fields={PATH: "is required with this type"},
            )
        with _fields_below(PATH):
            wanted = self._checks.updates(
                request.source_service,
                draft.schema_request.updates,
                correlation_id=request.correlation_id,
                request_id=request.request_id,
            )
        replayed = False
        try:
            replayed = (await self._migrations.run(wanted, time_left())).replayed
        except HubError as failure:
            if failure.retry in (Retry.SAME_CALL, Retry.SLOWER):
                raise
        return PublishEventResponse(
            correlation_id=request.correlation_id,
            database=wanted.databases[-1],
            replayed=replayed,
        )


@contextmanager
def _fields_below(path: str) -> Iterator[None]:
    """Names the fields of a refusal as they stand in the request."""
    try:
        yield
    except HubError as refusal:
        refusal.fields = {f"{path}.{field}": what for field, what in refusal.fields.items()}
        raise
