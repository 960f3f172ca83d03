"""The journals behind the circuits of their databases."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager

from hub.core.circuits.breaker import Passage
from hub.core.circuits.circuits import Circuits
from hub.core.events.journal import Journal, JournalEnds, JournalPage, Position
from messagehub.errors import HubError


class GuardedJournal:
    """The port `hub.core.events.journal.Journal` over another; also raises `CircuitOpen`.

    A stream counts by how it begins; one that has begun goes on while its circuit is open.
    """

    def __init__(self, journal: Journal, circuits: Circuits) -> None:
        self._journal = journal
        self._breakers = circuits.by_database

    async def tail(self, database: str, after: Position | None) -> AsyncGenerator[JournalPage]:
        """Streams what follows a position, live; see the port."""
        passage = self._breakers[database].admit()
        async with aclosing(self._journal.tail(database, after)) as pages:
            with _settled(passage):
                first = await anext(pages, None)
            if first is not None:
                yield first
            async for page in pages:
                yield page

    async def read(
        self, database: str, after: Position, *, until: int, bytes_max: int
    ) -> Sequence[JournalPage]:
        """Gives the pages that follow a position; see the port."""
        with _settled(self._breakers[database].admit()):
            return await self._journal.read(database, after, until=until, bytes_max=bytes_max)

    async def ends(self, database: str) -> JournalEnds:
        """Tells where a journal begins and ends at this moment."""
        with _settled(self._breakers[database].admit()):
            return await self._journal.ends(database)


@contextmanager
def _settled(passage: Passage) -> Iterator[None]:
    try:
        yield
    except HubError as error:
        passage.failed(error)
        raise
    else:
        passage.succeeded()
    finally:
        passage.withdraw()
