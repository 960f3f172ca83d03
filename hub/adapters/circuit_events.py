"""The events that tell of circuits."""

from collections.abc import Callable, Sequence
from typing import Final

from hub.core.announcements import Announcements
from hub.core.circuits.breaker import CircuitState
from hub.core.circuits.circuits import Transition
from messagehub.v1.event_pb2 import CircuitChanged, Event

TYPES: Final = {
    CircuitState.OPEN: "storage.circuit_opened",
    CircuitState.HALF_OPEN: "storage.circuit_half_opened",
    CircuitState.CLOSED: "storage.circuit_closed",
}
TYPED_CONTENT: Final = "application/protobuf"


class CircuitEvents:
    """Announces what circuits do, each in the journal of its own database.

    `storage_server` tells the address of the storage server behind a database's circuit.
    """

    def __init__(
        self, announcements: Announcements, *, storage_server: Callable[[str], str]
    ) -> None:
        self._announcements = announcements
        self._storage_server = storage_server

    def tell(self, transitions: Sequence[Transition]) -> None:
        """Announces circuits that changed."""
        for database, state, cause, failures in transitions:
            event = Event(
                type=TYPES[state],
                data_content_type=TYPED_CONTENT,
                circuit_changed=CircuitChanged(
                    storage_server=self._storage_server(database), cause=cause, failures=failures
                ),
            )
            self._announcements.announce(database, event)
