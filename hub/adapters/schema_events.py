"""The events that tell of schema updates before and after their transactions."""

import uuid
from collections.abc import Sequence
from typing import Final

from hub.core.announcements import Announcements
from hub.core.ports import Operation
from hub.core.routing.router import Router
from hub.core.schema.changes import Change, Wanted
from hub.core.transactions.together import all_or_first_failure, each
from messagehub.errors import HubError, RequestIdReused
from messagehub.request_ids import new_request_id
from messagehub.status import to_status
from messagehub.v1.event_pb2 import Event, SchemaUpdated

TYPED_CONTENT: Final = "application/protobuf"
REQUESTED: Final = "schema.update_requested"
STARTED: Final = "schema.update_started"
FAILED: Final = "schema.update_failed"


class SchemaEvents:
    """The port `Journals` of `hub.core.schema`: into the journals, or by way of the inbox."""

    def __init__(self, router: Router, announcements: Announcements) -> None:
        self._router = router
        self._announcements = announcements

    async def begin(self, wanted: Wanted, *, seconds: float) -> None:
        """Tells that changes begin; see the port."""
        await all_or_first_failure(
            self._tell_beginning(wanted, database, seconds) for database in wanted.databases
        )

    async def fail(self, wanted: Wanted, failure: HubError, *, seconds: float) -> None:
        """Tells that nothing was changed; see the port."""
        await each(
            self._tell_failure(wanted, database, failure, seconds) for database in wanted.databases
        )

    async def _tell_beginning(self, wanted: Wanted, database: str, seconds: float) -> None:
        for kind in (REQUESTED, STARTED):
            operations = [
                _operation(wanted, change, _event(kind, change), _name(wanted, place, kind))
                for place, change in _in(wanted, database)
            ]
            for outcome in await self._router.deliver(operations, seconds):
                # Another call with this id told it before; whether it is the same the home says.
                if isinstance(outcome, HubError) and not isinstance(outcome, RequestIdReused):
                    raise outcome

    async def _tell_failure(
        self, wanted: Wanted, database: str, failure: HubError, seconds: float
    ) -> None:
        events = [_event(FAILED, change, failure) for _, change in _in(wanted, database)]
        operations = [
            _operation(wanted, change, event, new_request_id())
            for event, (_, change) in zip(events, _in(wanted, database), strict=True)
        ]
        outcomes = await self._router.deliver(operations, seconds)
        for event, outcome in zip(events, outcomes, strict=True):
            if isinstance(outcome, HubError):
                self._announcements.announce(
                    database,
                    event,
                    source=wanted.source_service,
                    correlation_id=wanted.correlation_id,
                )


def _in(wanted: Wanted, database: str) -> Sequence[tuple[int, Change]]:
    return [(p, one) for p, one in enumerate(wanted.changes) if one.database == database]


def _name(wanted: Wanted, place: int, kind: str) -> str:
    """The same for the same call, so that what is told again is told once."""
    return str(uuid.uuid5(uuid.UUID(wanted.request_id), f"{kind}/{place}"))


def _operation(wanted: Wanted, change: Change, event: Event, request_id: str) -> Operation:
    return Operation(
        database=change.database,
        read_only=False,
        source_service=wanted.source_service,
        correlation_id=wanted.correlation_id,
        request_id=request_id,
        content=event,
    )


def _event(kind: str, change: Change, failure: HubError | None = None) -> Event:
    told = SchemaUpdated(
        to_version=change.to_version, description=change.description, checksum=change.checksum
    )
    if failure is not None:
        told.error.CopyFrom(to_status(failure))
    return Event(type=kind, data_content_type=TYPED_CONTENT, schema_updated=told)
