"""Operations for later delivery that services ask for by publishing `storage.operation_request`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hub.api.checks import RequestChecks, refuse_unbuilt, request_id_or_new
from hub.core.delivery.submissions import Submissions
from hub.core.routing.router import Draft
from messagehub.errors import HubError, InvalidRequest
from messagehub.v1.event_pb2 import EventDraft
from messagehub.v1.event_service_pb2 import PublishEventRequest, PublishEventResponse

PATH: Final = "event.operation_request"


class OperationRequests:
    """Makes submissions of published requests; the answer comes as an event of the operation."""

    def __init__(self, *, submissions: Submissions, checks: RequestChecks) -> None:
        self._submissions = submissions
        self._checks = checks

    async def submit(self, request: PublishEventRequest) -> PublishEventResponse:
        """Accepts the operation; the request itself leaves no event, so it has no sequence."""
        draft = request.event
        self._check(draft)
        with _fields_below("event", only=("database",)):
            entry, replayed = await self._submissions.submit(
                Draft(
                    draft.database,
                    request_id_or_new(request.request_id),
                    draft.operation_request.statement,
                ),
                source_service=request.source_service,
                correlation_id=request.correlation_id,
            )
        return PublishEventResponse(
            correlation_id=request.correlation_id,
            database=entry.queue.database,
            replayed=replayed,
        )

    def _check(self, draft: EventDraft) -> None:
        if draft.WhichOneof("data") != "operation_request":
            raise InvalidRequest(
                f"{PATH} is required with this type: the statement to run",
                fields={PATH: "is required with this type"},
            )
        with _fields_below(PATH):
            refuse_unbuilt(schema_version=draft.operation_request.schema_version)
            self._checks.statement(draft.operation_request.statement)


@contextmanager
def _fields_below(path: str, only: tuple[str, ...] = ()) -> Iterator[None]:
    """Names the fields of a refusal as they stand in the request."""
    try:
        yield
    except HubError as refusal:
        refusal.fields = {
            f"{path}.{field}" if not only or field in only else field: what
            for field, what in refusal.fields.items()
        }
        raise
