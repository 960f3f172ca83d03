"""The streamed queries of a database that are open, shared among its callers."""

from messagehub.errors import QueueFull
from storage.core.operation import Operation

RETRY_SECONDS = 1.0


class QueryStreams:
    """At most `streams_max` at a time; the last one is for callers that have none."""

    def __init__(self, streams_max: int) -> None:
        self._streams_max = streams_max
        self._open: set[Operation] = set()

    def begin(self, query: Operation) -> None:
        """Counts a query in, or raises `QueueFull`."""
        limit, count = self._streams_max, len(self._open)
        service = query.source_service
        own = any(other.source_service == service for other in self._open)
        if count >= limit or (own and count + 1 >= limit):
            raise QueueFull(
                f"{count} of {limit} queries of this database are open (queries_max; the last is "
                "for services that have none): read one to its end first",
                retry_after=RETRY_SECONDS,
                metadata={"limit": str(limit)},
            )
        self._open.add(query)

    def end(self, query: Operation) -> None:
        """A query has ended."""
        self._open.discard(query)

    def interrupt(self) -> None:
        """Ends all of them at their next look."""
        for query in self._open:
            query.cancelled = True
