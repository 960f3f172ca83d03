"""The ports of several storage servers as those of one: each call goes where its database is."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from hub.core.events.journal import Journal, JournalEnds, JournalPage, Position
from hub.core.ports import (
    Adoption,
    Operations,
    Page,
    Reading,
    Recorded,
    Rehearsal,
    Storage,
)
from hub.core.routing.placement import Placement
from hub.core.subscriptions.subscription_store import (
    Hold,
    Kept,
    Name,
    Opened,
    Opening,
    SubscriptionStore,
)
from hub.core.transactions.ports import Participants
from hub.core.transactions.transaction import Advance, Advanced, Record, Resolution, Resolved
from messagehub.errors import HubError


class StorageServer(NamedTuple):
    """The ports of one storage server."""

    operations: Operations
    storage: Storage
    journal: Journal
    subscriptions: SubscriptionStore
    participants: Participants


class Placed:
    """The storage servers by address, and which of them a database has now."""

    def __init__(self, placement: Placement, servers: Mapping[str, StorageServer]) -> None:
        self._placement = placement
        self._servers = servers

    def server(self, database: str) -> StorageServer:
        """The storage server of a database at this moment."""
        return self._servers[self._placement.server_of(database)]

    def operations(self, database: str) -> Operations:
        """The port for operations of a database at this moment."""
        return self.server(database).operations


class PlacedCalls:
    """The port `Storage`."""

    def __init__(self, placed: Placed) -> None:
        self._placed = placed

    async def query(self, reading: Reading, seconds: float) -> AsyncGenerator[Page]:
        """Streams pages; see `hub.core.ports.Storage`."""
        storage = self._placed.server(reading.database).storage
        async with aclosing(storage.query(reading, seconds)) as pages:
            async for page in pages:
                yield page

    async def look_up(
        self, database: str, request_id: str, *, correlation_id: str, seconds: float
    ) -> Recorded | None:
        """Gives what became of a write; see `hub.core.ports.Storage`."""
        return await self._placed.server(database).storage.look_up(
            database, request_id, correlation_id=correlation_id, seconds=seconds
        )

    async def describe_schema(self, database: str, *, correlation_id: str, seconds: float) -> Any:
        """Tells the schema of a database; see `hub.core.ports.Storage`."""
        return await self._placed.server(database).storage.describe_schema(
            database, correlation_id=correlation_id, seconds=seconds
        )

    async def rehearse_schema(self, rehearsal: Rehearsal, seconds: float) -> Sequence[Any]:
        """Runs changes that leave nothing; see `hub.core.ports.Storage`."""
        return await self._placed.server(rehearsal.database).storage.rehearse_schema(
            rehearsal, seconds
        )

    async def adopt(self, adoption: Adoption, seconds: float) -> Sequence[str]:
        """Fills an empty database; see `hub.core.ports.Storage`."""
        return await self._placed.server(adoption.database).storage.adopt(adoption, seconds)


class PlacedJournal:
    """The port `Journal`. A stream stays with the storage server that it began at."""

    def __init__(self, placed: Placed) -> None:
        self._placed = placed

    async def tail(self, database: str, after: Position | None) -> AsyncGenerator[JournalPage]:
        """Streams what follows a position, live; see the port."""
        async with aclosing(self._placed.server(database).journal.tail(database, after)) as pages:
            async for page in pages:
                yield page

    async def read(
        self, database: str, after: Position, *, until: int, bytes_max: int
    ) -> Sequence[JournalPage]:
        """Gives the pages that follow a position; see the port."""
        return await self._placed.server(database).journal.read(
            database, after, until=until, bytes_max=bytes_max
        )

    async def ends(self, database: str) -> JournalEnds:
        """Tells where a journal begins and ends at this moment."""
        return await self._placed.server(database).journal.ends(database)


class PlacedSubscriptions:
    """The port `SubscriptionStore`."""

    def __init__(self, placed: Placed) -> None:
        self._placed = placed

    async def open(self, database: str, opening: Opening, *, seconds: float) -> Opened:
        """Begins a stream; see the port."""
        return await self._store(database).open(database, opening, seconds=seconds)

    async def hold(
        self, database: str, holds: Sequence[Hold], *, lease_seconds: float, seconds: float
    ) -> Sequence[HubError | None]:
        """Prolongs leases, or gives them up; see the port."""
        return await self._store(database).hold(
            database, holds, lease_seconds=lease_seconds, seconds=seconds
        )

    async def acknowledge(
        self, database: str, name: Name, position: Position, *, seconds: float
    ) -> None:
        """Moves the position on; see the port."""
        await self._store(database).acknowledge(database, name, position, seconds=seconds)

    async def find(self, database: str, service: str, name: str, *, seconds: float) -> list[Kept]:
        """Tells how subscriptions stand; see the port."""
        return await self._store(database).find(database, service, name, seconds=seconds)

    async def delete(self, database: str, name: Name, *, seconds: float) -> None:
        """Forgets a subscription; see the port."""
        await self._store(database).delete(database, name, seconds=seconds)

    def _store(self, database: str) -> SubscriptionStore:
        return self._placed.server(database).subscriptions


class PlacedParticipants:
    """The port `Participants`."""

    def __init__(self, placed: Placed) -> None:
        self._placed = placed

    async def advance(self, advance: Advance, *, seconds: float) -> Advanced:
        """Takes a part on; see the port."""
        return await self._participants(advance.database).advance(advance, seconds=seconds)

    async def resolve(self, resolution: Resolution, *, seconds: float) -> Resolved:
        """Ends a part; see the port."""
        return await self._participants(resolution.database).resolve(resolution, seconds=seconds)

    async def look_up(
        self, database: str, transaction_id: str, *, request_id: str = "", seconds: float
    ) -> Record | None:
        """Tells what a database knows; see the port."""
        return await self._participants(database).look_up(
            database, transaction_id, request_id=request_id, seconds=seconds
        )

    async def list(
        self, database: str, *, ended: bool, limit: int, seconds: float
    ) -> Sequence[Record]:
        """Gives the transactions of a database; see the port."""
        return await self._participants(database).list(
            database, ended=ended, limit=limit, seconds=seconds
        )

    async def hold_commits(
        self,
        database: str,
        holder: str,
        *,
        wait_seconds: float,
        lease_seconds: float,
        seconds: float,
    ) -> None:
        """Holds commits back; see the port."""
        await self._participants(database).hold_commits(
            database,
            holder,
            wait_seconds=wait_seconds,
            lease_seconds=lease_seconds,
            seconds=seconds,
        )

    async def release_commits(self, database: str, holder: str, *, seconds: float) -> bool:
        """Lets commits go on; see the port."""
        return await self._participants(database).release_commits(database, holder, seconds=seconds)

    def _participants(self, database: str) -> Participants:
        return self._placed.server(database).participants
