"""The events that tell of databases that moved to another storage server."""

from collections.abc import Sequence
from typing import Final

from hub.core.announcements import Announcements
from hub.core.routing.placement import Move
from messagehub.v1.event_pb2 import Event, FailedOver

FAILED_OVER: Final = "storage.failed_over"
TYPED_CONTENT: Final = "application/protobuf"


class FailoverEvents:
    """Announces moves, each in the journal of its own database."""

    def __init__(self, announcements: Announcements) -> None:
        self._announcements = announcements

    def tell(self, moves: Sequence[Move]) -> None:
        """Announces databases that moved."""
        for database, before, after in moves:
            event = Event(
                type=FAILED_OVER,
                data_content_type=TYPED_CONTENT,
                failed_over=FailedOver(from_storage_server=before, to_storage_server=after),
            )
            self._announcements.announce(database, event)
