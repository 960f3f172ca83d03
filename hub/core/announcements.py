"""How the hub tells of what happens to itself: circuits that open, databases that move."""

from typing import Any, Protocol


class Announcements(Protocol):
    """Takes the hub's own events."""

    def announce(
        self, database: str, event: Any, *, source: str = "hub", correlation_id: str = ""
    ) -> None:
        """Puts an event into the journal of a database, when that can take it.

        The event has its type, its data and the media type of that; `correlation_id` is that of
        the call which it answers. Returns at once and never raises. The event goes to disk and
        then, in the order of the announcements for this database, to its journal, exactly once,
        also through crashes. What cannot be kept (the bounds of the inbox) is logged.
        """
