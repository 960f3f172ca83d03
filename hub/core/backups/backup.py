"""What a backup is, put together from what the storage servers have of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple

from messagehub.errors import BackupCorrupt, BackupNotFound, HubError


class BackupState(Enum):
    """Where a backup stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    VERIFIED = "verified"
    FAILED = "failed"


class BackedUp(NamedTuple):
    """One database of a backup; `record` is what the storage server keeps of it, passed unseen."""

    database: str
    sequence: int = 0
    epoch: str = ""
    schema_version: str = ""
    checksum: str = ""
    size_bytes: int = 0
    compressed_bytes: int = 0
    rows: int = 0
    record: Any = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup is; times are in microseconds, since 1970 or long."""

    backup_id: str
    source_service: str
    correlation_id: str
    create_time_us: int
    databases: tuple[BackedUp, ...] = ()
    duration_us: int = 0
    tool_version: str = ""
    schedule: str = ""


class Activity(NamedTuple):
    """What is done with a backup at the moment, and how far that is, in bytes of work."""

    kind: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A backup as one storage server has it; `here` are the databases whose files are there.

    `verified_us` is 0 as long as it was never verified; `problems` is what that found.
    """

    manifest: Manifest
    here: tuple[str, ...] = ()
    whole: bool = False
    damage: str = ""
    verified_us: int = 0
    problems: tuple[str, ...] = ()
    activity: Activity | None = None


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup as its callers see it.

    `places` are the storage servers by database, `addresses` all that have a part of it.
    """

    manifest: Manifest
    state: BackupState
    activity: Activity | None = None
    verified_us: int = 0
    problems: tuple[str, ...] = ()
    error: HubError | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()

    @property
    def backup_id(self) -> str:
        """Its name."""
        return self.manifest.backup_id

    @property
    def databases(self) -> tuple[str, ...]:
        """The databases in it, or to be in it."""
        return tuple(one.database for one in self.manifest.databases)

    @property
    def size_bytes(self) -> int:
        """Its compressed size."""
        return sum(one.compressed_bytes for one in self.manifest.databases)

    @property
    def progress(self) -> float:
        """How far it is, between 0 and 1."""
        if self.activity is not None:
            return self.activity.done_bytes / max(1, self.activity.total_bytes)
        return 0.0 if self.state is BackupState.RUNNING else 1.0

    @property
    def is_whole(self) -> bool:
        """True if it may be restored as far as is known."""
        return self.state in (BackupState.COMPLETED, BackupState.VERIFIED)

    def check_restorable(self) -> None:
        """Raises `BackupNotFound` while it is not whole, `BackupCorrupt` if it is damaged."""
        if self.state is BackupState.RUNNING:
            raise BackupNotFound(f"the backup {self.backup_id} is not finished yet: wait for it")
        if self.error is not None:
            raise self.error


def merged(parts: Mapping[str, Stored]) -> Backup:
    """Puts a backup together from what each storage server, by address, has of it."""
    whole = {address: part for address, part in parts.items() if part.whole}
    shown = whole or parts
    known = next((p for p in shown.values() if not p.damage), next(iter(shown.values())))
    places: dict[str, str] = {}
    for address, part in whole.items():
        for database in part.here:
            places.setdefault(database, address)
    proofs = [part for part in whole.values() if part.verified_us]
    backup = Backup(
        manifest=known.manifest,
        state=BackupState.RUNNING,
        activity=_activity(part.activity for part in parts.values()),
        verified_us=min((part.verified_us for part in proofs), default=0),
        problems=tuple(problem for part in proofs for problem in part.problems),
        places=places,
        addresses=tuple(sorted(whole)),
    )
    return _judged(backup, list(whole.values()), proofs)


def _judged(backup: Backup, whole: Sequence[Stored], proofs: Sequence[Stored]) -> Backup:
    if not whole:
        return backup
    absent = [one for one in backup.databases if one not in backup.places]
    found = [part.damage for part in whole if part.damage]
    if absent and not found:
        found = [f"no storage server that answers has the files of {', '.join(absent)}"]
    if problems := [*found, *backup.problems]:
        error = BackupCorrupt(f"the backup {backup.backup_id} is damaged: {'; '.join(problems)}")
        return replace(backup, state=BackupState.FAILED, problems=tuple(problems), error=error)
    proven = len(proofs) == len(whole)
    return replace(backup, state=BackupState.VERIFIED if proven else BackupState.COMPLETED)


def _activity(activities: Iterable[Activity | None]) -> Activity | None:
    found = [one for one in activities if one is not None]
    if not found:
        return None
    return Activity(
        found[0].kind, sum(one.done_bytes for one in found), sum(one.total_bytes for one in found)
    )
