"""What the hub asks of storage servers for backups. Addresses name storage servers."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from hub.core.backups.backup import BackedUp, Manifest, Stored
from messagehub.errors import HubError


class Restored(NamedTuple):
    """A database that was replaced; see `RestoredDatabase` in the contract."""

    database: str
    epoch: str
    sequence: int
    dropped_transaction_id: str


class Shared(NamedTuple):
    """A transaction over several databases."""

    transaction_id: str
    databases: tuple[str, ...]


class FileStart(NamedTuple):
    """What is said of a file before its bytes: size, and sha256 in hexadecimal."""

    size_bytes: int
    checksum: str


class Taking(Protocol):
    """A part of a backup on its way; a block that is left before `complete` leaves nothing."""

    async def begun(self) -> None:
        """Waits until the storage server has begun; `RequestIdReused` if the name is taken."""

    async def copied(self) -> Sequence[BackedUp]:
        """Waits until everything is copied."""

    async def complete(self, manifest: Manifest) -> None:
        """Makes the part whole; on disk when this returns."""


class Restoring(Protocol):
    """A part of a restore on its way; a block that is left before `replace` changes nothing."""

    async def staged(self) -> Sequence[Restored]:
        """Waits until all is staged and right; gives what was replaced under this name before."""

    async def close(self, wait_seconds: float) -> None:
        """Closes the live databases; `TransactionConflict` if one stays prepared for so long."""

    async def missing(self, database: str, transaction_ids: Sequence[str]) -> Sequence[str]:
        """Names the transactions that a staged database knows nothing of."""

    async def replace(self) -> Sequence[Restored]:
        """Puts the databases in their places."""


class BackupServers(Protocol):
    """The storage servers. Every call raises a `HubError`."""

    def places(self, databases: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """The databases by the storage server that has them at this moment, in sorted order."""

    def take(
        self, address: str, manifest: Manifest, databases: Sequence[str], transaction_id: str
    ) -> AbstractAsyncContextManager[Taking]:
        """Begins a part of a backup from the snapshots that a transaction pinned."""

    def restore(
        self, address: str, backup_id: str, restore_id: str, databases: Sequence[str]
    ) -> AbstractAsyncContextManager[Restoring]:
        """Begins a part of a restore."""

    async def verify(self, address: str, backup_id: str) -> Stored:
        """Proves the part of a backup that is at a storage server."""

    async def find(self, backup_id: str = "") -> Mapping[str, Sequence[Stored]]:
        """Gives the backups, or one, at every storage server that answers, by address."""

    async def delete(self, address: str, backup_id: str) -> None:
        """Deletes what a storage server has of a backup."""

    def read(
        self, address: str, backup_id: str, database: str
    ) -> AsyncGenerator[FileStart | bytes, None]:
        """Streams one database of a backup: what it is, then its bytes."""

    async def inspect(self, database: str) -> Sequence[tuple[str, str]]:
        """Gives every invariant of a live database, and why it does not hold; empty = it does."""

    async def shared(
        self, database: str, others: Sequence[str], *, since_us: int
    ) -> Sequence[Shared]:
        """Gives the transactions that a database has in common with others, since a time."""


class Snapshots(Protocol):
    """Pins databases at one moment."""

    def pinned(
        self, databases: Sequence[str], *, correlation_id: str
    ) -> AbstractAsyncContextManager["Cut"]:
        """Pins a snapshot of each at one cut; they are let go after the block."""


class Cut(NamedTuple):
    """A moment that is pinned: by which transaction, and when, in microseconds since 1970."""

    transaction_id: str
    time_us: int


class BackupEvents(Protocol):
    """Tells subscribers how backups ended."""

    def completed(self, manifest: Manifest, databases: Sequence[str]) -> None:
        """A backup is whole, and proven if that was asked for."""

    def failed(self, manifest: Manifest, databases: Sequence[str], error: HubError) -> None:
        """A backup could not be made, or is not right."""
