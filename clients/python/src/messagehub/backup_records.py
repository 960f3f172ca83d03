"""What the hub tells of a backup, as the client gives it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from messagehub.errors import HubError
from messagehub.status import from_status
from messagehub.v1 import backup_service_pb2 as messages

__all__ = ["BackedUpDatabase", "Backup", "BackupState", "Restore", "RestoredDatabase", "record_of"]


class BackupState(Enum):
    """Where a backup stands; `UNKNOWN` is a state that this client does not know yet."""

    UNKNOWN = 0
    RUNNING = 1
    COMPLETED = 2
    VERIFIED = 3
    FAILED = 4


@dataclass(frozen=True, slots=True)
class BackedUpDatabase:
    """One database of a backup: the cut in its journal, and its file, sizes in bytes."""

    database: str
    sequence: int
    epoch: str
    schema_version: str
    checksum: str
    size_bytes: int
    compressed_bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup.

    `progress` is between 0 and 1; `activity` says what is done with it at the moment, empty is
    nothing. `problems` is what its last verification, at `verified`, found; `error` is why it
    FAILED.
    """

    id: str
    state: BackupState
    service: str
    correlation_id: str
    databases: tuple[BackedUpDatabase, ...]
    size_bytes: int
    created: datetime
    duration_seconds: float
    progress: float
    activity: str
    verified: datetime | None
    problems: tuple[str, ...]
    error: HubError | None
    tool_version: str
    schedule: str

    @property
    def ended(self) -> bool:
        """True if nothing is done with it any more."""
        return self.state is not BackupState.RUNNING and not self.activity


@dataclass(frozen=True, slots=True)
class RestoredDatabase:
    """A database that was replaced, and the new life of its journal.

    `dropped_transaction_id` was prepared in what was replaced, and is forgotten with it.
    """

    database: str
    epoch: str
    sequence: int
    dropped_transaction_id: str


@dataclass(frozen=True, slots=True)
class Restore:
    """What a restore did; `torn_transactions` were torn apart because that was allowed."""

    backup_id: str
    databases: tuple[RestoredDatabase, ...]
    torn_transactions: tuple[str, ...]


def record_of(backup: messages.Backup) -> Backup:
    """Gives a backup of the wire."""
    known = backup.state in BackupState._value2member_map_
    verified = backup.HasField("verify_time")
    return Backup(
        id=backup.backup_id,
        state=BackupState(backup.state) if known else BackupState.UNKNOWN,
        service=backup.source_service,
        correlation_id=backup.correlation_id,
        databases=tuple(map(_database, backup.databases)),
        size_bytes=backup.size_bytes,
        created=backup.create_time.ToDatetime(tzinfo=UTC),
        duration_seconds=backup.duration.ToTimedelta().total_seconds(),
        progress=backup.progress,
        activity=backup.activity,
        verified=backup.verify_time.ToDatetime(tzinfo=UTC) if verified else None,
        problems=tuple(backup.problems),
        error=from_status(backup.error) if backup.HasField("error") else None,
        tool_version=backup.tool_version,
        schedule=backup.schedule,
    )


def restored(databases: Sequence[messages.RestoredDatabase]) -> tuple[RestoredDatabase, ...]:
    """Gives the databases that were replaced."""
    return tuple(
        RestoredDatabase(one.database, one.epoch, one.sequence, one.dropped_transaction_id)
        for one in databases
    )


def _database(one: messages.BackedUpDatabase) -> BackedUpDatabase:
    return BackedUpDatabase(
        database=one.database,
        sequence=one.sequence,
        epoch=one.epoch,
        schema_version=one.schema_version,
        checksum=one.checksum,
        size_bytes=one.size_bytes,
        compressed_bytes=one.compressed_bytes,
        rows=one.rows,
    )
