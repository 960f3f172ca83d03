"""How far back the journals of a storage server reach."""

from hub.core.events.journal import Journal
from messagehub.v1.event_pb2 import Event

# A journal that begins here has never been trimmed.
BEGINNING = 0


class JournalReach:
    """Looks at the oldest event that a journal has kept; see `hub.core.delivery.delivery.Reach`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def reaches(self, database: str, time_us: int) -> bool:
        """True if the journal still has everything since a time."""
        oldest = (await self._journal.ends(database)).oldest
        if oldest.sequence == BEGINNING:
            return True
        pages = await self._journal.read(database, oldest, until=oldest.sequence + 1, bytes_max=1)
        for page in pages:
            for first in page.events:
                return Event.FromString(first.payload).time.ToMicroseconds() < time_us
        return False
