"""Which events a subscription wants. All conditions must hold; one without values holds always."""

from collections.abc import Sequence
from typing import Final

from hub.core.events.journal import JournalEvent

ANY_RUN: Final = "*"


class TypePattern:
    """A type with `*` for any run of characters, also an empty one, at any place.

    Matching takes time proportional to the length of the type, whatever the pattern.
    """

    __slots__ = ("_first", "_last", "_length", "_middle")

    def __init__(self, pattern: str) -> None:
        self._first, *middle, self._last = pattern.split(ANY_RUN)
        self._middle = tuple(part for part in middle if part)
        self._length = len(self._first) + len(self._last)

    def matches(self, event_type: str) -> bool:
        """Tells whether the whole type fits."""
        if len(event_type) < self._length:
            return False
        if not (event_type.startswith(self._first) and event_type.endswith(self._last)):
            return False
        begin, end = len(self._first), len(event_type) - len(self._last)
        for part in self._middle:
            found = event_type.find(part, begin, end)
            if found < 0:
                return False
            begin = found + len(part)
        return True


class EventFilter:
    """Types by pattern, sources and correlation id exactly. Equal conditions make equal filters."""

    __slots__ = ("_conditions", "_hash", "_patterns", "_sources", "_types", "correlation_id")

    def __init__(
        self,
        event_types: Sequence[str] = (),
        sources: Sequence[str] = (),
        correlation_id: str = "",
    ) -> None:
        self._sources = frozenset(sources)
        self._types = frozenset(kind for kind in event_types if ANY_RUN not in kind)
        globs = frozenset(event_types) - self._types
        self._patterns = () if ANY_RUN in globs else tuple(map(TypePattern, sorted(globs)))
        if ANY_RUN in globs:
            self._types = frozenset()
            globs = frozenset()
        self.correlation_id = correlation_id
        self._conditions = (self._types, globs, self._sources, correlation_id)
        self._hash = hash(self._conditions)

    def matches(self, event: JournalEvent) -> bool:
        """Tells whether the subscription wants the event."""
        if self.correlation_id and event.correlation_id != self.correlation_id:
            return False
        if self._sources and event.source not in self._sources:
            return False
        if not self._types and not self._patterns:
            return True
        return event.type in self._types or any(
            pattern.matches(event.type) for pattern in self._patterns
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EventFilter) and self._conditions == other._conditions

    def __hash__(self) -> int:
        return self._hash
