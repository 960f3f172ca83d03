"""What a journal is to the core: events in commit order, and the port that reads them.

A journal belongs to one database. Its epoch changes when the database is restored or replaced;
within an epoch sequences only grow.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol


class Start(Enum):
    """Where a reader without a position begins."""

    EARLIEST = "the oldest event that is kept"
    LATEST = "now"


class Position(NamedTuple):
    """A place in a journal: right after the event with this sequence."""

    epoch: str
    sequence: int


@dataclass(slots=True, eq=False)
class JournalEvent:
    """One event: what filters look at, its size in bytes, and the rest unseen in `payload`.

    `ends_commit` tells whether a cursor may stand after it; a `CommitAssembler` sets it.
    """

    sequence: int
    type: str
    source: str
    correlation_id: str
    transaction_id: str
    size: int
    payload: Any
    ends_commit: bool = False


class JournalPage(NamedTuple):
    """A piece of a journal; without events it only tells where the journal stands.

    `boundary` is the newest sequence of which it is known that its commit is complete.
    """

    epoch: str
    events: Sequence[JournalEvent]
    boundary: int


class JournalEnds(NamedTuple):
    """Where a journal ends now, and the oldest position that can be read from."""

    newest: Position
    oldest: Position


class Journal(Protocol):
    """The journals of a storage server.

    Every method raises a `HubError`; `CursorExpired` and `CursorEpochChanged` carry the
    metadata `epoch` and `oldest_sequence`.
    """

    def tail(self, database: str, after: Position | None) -> AsyncGenerator[JournalPage]:
        """Streams what follows a position, live; None = from now.

        The first page comes at once and has no events; with None its boundary is the position
        that was begun at. Close the generator to end the stream.
        """

    async def read(
        self, database: str, after: Position, *, until: int, bytes_max: int
    ) -> Sequence[JournalPage]:
        """Gives the pages that follow a position, up to the commit with the sequence `until`.

        Ends earlier after `bytes_max`, exceeded by at most one page, and where the journal ends.
        A position that is not of this journal is refused, also when `until` is reached already.
        """

    async def ends(self, database: str) -> JournalEnds:
        """Tells where a journal begins and ends at this moment."""
