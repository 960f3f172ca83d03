"""Operations for later delivery that services ask for by publishing `storage.operation_request`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hub.api.checks import RequestChecks, request_id_or_new, written_for
from hub.core.delivery.submissions import Submissions
from hub.core.routing.router import Draft
from messagehub.errors import HubError, InvalidRequest
from messagehub.v1.event_pb2 import EventDraft, OperationRequest
from messagehub.v1.event_service_pb2 import PublishEventRequest, PublishEventResponse
from messagehub.v1.statement_pb2 import Statement

PATH: Final = "event.operation_request"


class OperationRequests:
    """Makes submissions of published requests; the answer comes as an event of the operation."""

    def __init__(self, *, submissions: Submissions, checks: RequestChecks) -> None:
        self._submissions = submissions
        self._checks = checks

    async def submit(self, request: PublishEventRequest) -> PublishEventResponse:
        """Accepts the operation; the request itself leaves no event, so it has no sequence."""
        draft = request.event
        content = self._check(draft)
        with _fields_below("event", only=("database",)):
            entry, replayed = await self._submissions.submit(
                Draft(
                    draft.database,
                    request_id_or_new(request.request_id),
                    content,
                ),
                source_service=request.source_service,
                correlation_id=request.correlation_id,
            )
        return PublishEventResponse(
            correlation_id=request.correlation_id,
            database=entry.queue.database,
            replayed=replayed,
        )

    def _check(self, draft: EventDraft) -> Statement | OperationRequest:
        if draft.WhichOneof("data") != "operation_request":
            raise InvalidRequest(
                f"{PATH} is required with this type: the statement to run",
                fields={PATH: "is required with this type"},
            )
        with _fields_below(PATH):
            self._checks.statement(draft.operation_request.statement)
            asked = draft.operation_request
            return written_for(asked.statement, asked.schema_version)


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
