"""The followers of a live tail that have everything, by what would interest them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from hub.core.events.event_filter import EventFilter
from hub.core.events.journal import JournalEvent, Position


class Follower(Protocol):
    """A reader of one database for one subscription."""

    event_filter: EventFilter

    def unpark(self, position: Position) -> None:
        """Gives a parked follower its position back; there is more to read, or to find out."""

    def wake(self) -> None:
        """Something changed."""


class Parking:
    """Finds the followers that want one of some events without asking each of them.

    Followers with equal filters are asked once, and those that want one correlation id only when
    it comes, so that thousands who each wait for an answer of their own cost nothing meanwhile.
    """

    def __init__(self) -> None:
        # By correlation id ("" = any), then by filter.
        self._parked: dict[str, dict[EventFilter, set[Follower]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, follower: Follower) -> None:
        """Takes a follower that is not there."""
        event_filter = follower.event_filter
        groups = self._parked.setdefault(event_filter.correlation_id, {})
        groups.setdefault(event_filter, set()).add(follower)
        self._count += 1

    def discard(self, follower: Follower) -> None:
        """Forgets a follower, if it is there."""
        event_filter = follower.event_filter
        groups = self._parked.get(event_filter.correlation_id, {})
        group = groups.get(event_filter, set())
        if follower in group:
            group.remove(follower)
            self._count -= 1
            if not group:
                self._drop(event_filter)

    def take_interested(self, events: Sequence[JournalEvent]) -> Iterable[Follower]:
        """Removes and gives the followers that want at least one of the events."""
        interested = [
            event_filter
            for correlation_id, kinds in _kinds(events).items()
            for event_filter in self._parked.get(correlation_id, ())
            if any(event_filter.matches(event) for event in kinds)
        ]
        return [follower for event_filter in interested for follower in self._drop(event_filter)]

    def take_all(self) -> Iterable[Follower]:
        """Removes and gives every follower."""
        filters = [event_filter for groups in self._parked.values() for event_filter in groups]
        return [follower for event_filter in filters for follower in self._drop(event_filter)]

    def _drop(self, event_filter: EventFilter) -> set[Follower]:
        groups = self._parked[event_filter.correlation_id]
        group = groups.pop(event_filter)
        self._count -= len(group)
        if not groups:
            del self._parked[event_filter.correlation_id]
        return group


def _kinds(events: Sequence[JournalEvent]) -> Mapping[str, Collection[JournalEvent]]:
    """One event of each kind that filters can tell apart, by correlation id and under "" too.

    The many events of a burst are of few kinds, and every distinct filter looks at each.
    """
    kinds: dict[str, dict[tuple[str, str], JournalEvent]] = {"": {}}
    for event in events:
        kind = event.type, event.source
        kinds[""].setdefault(kind, event)
        if event.correlation_id:
            kinds.setdefault(event.correlation_id, {}).setdefault(kind, event)
    return {correlation_id: found.values() for correlation_id, found in kinds.items()}
