"""The schema versions of one file, in a table beside the journal: a line for each change.

A line is written in the commit of its change and never removed; a change that was taken back is
marked. The scripts are kept with their checksums, so that a rollback runs what was agreed on.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from messagehub.errors import InvalidVersion, SchemaHistoryConflict
from messagehub.schema import scripts
from messagehub.schema.versions import NOTHING, SemanticVersion
from messagehub.v1.schema_pb2 import SchemaUpdate
from messagehub.v1.schema_service_pb2 import SchemaChange
from storage.sqlite import journal
from storage.sqlite.guard import RESERVED_PREFIX

_TABLE: Final = f"{RESERVED_PREFIX}schema"
_META: Final = f"{RESERVED_PREFIX}meta"
_CREATE: Final = f"""CREATE TABLE IF NOT EXISTS {_TABLE} (
    number INTEGER PRIMARY KEY,
    version TEXT NOT NULL,
    from_version TEXT NOT NULL,
    description TEXT NOT NULL,
    script TEXT NOT NULL,
    rollback_script TEXT NOT NULL,
    checksum TEXT NOT NULL,
    rollback_checksum TEXT NOT NULL,
    source_service TEXT NOT NULL,
    apply_time_us INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    baseline INTEGER NOT NULL,
    rollback_time_us INTEGER
)"""
_COLUMNS: Final = (
    "number, version, from_version, description, script, rollback_script, checksum,"
    " rollback_checksum, source_service, apply_time_us, duration_us, baseline, rollback_time_us"
)
_CURRENT: Final = (
    f"SELECT version FROM {_TABLE} WHERE rollback_time_us IS NULL ORDER BY number DESC LIMIT 1"
)
_ALL: Final = f"SELECT {_COLUMNS} FROM {_TABLE} ORDER BY number"
_INSERT: Final = (
    f"INSERT INTO {_TABLE} ({_COLUMNS.removeprefix('number, ')})"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)"
)
_TAKE_BACK: Final = f"UPDATE {_TABLE} SET rollback_time_us = ? WHERE number = ?"
_SHAPE: Final = f"SELECT value FROM {_META} WHERE key = 'schema_shape'"
_SET_SHAPE: Final = f"REPLACE INTO {_META} VALUES ('schema_shape', ?)"


@dataclass(slots=True, frozen=True)
class Change:
    """One line of the history; times in microseconds."""

    number: int
    version: str
    from_version: str
    description: str
    script: str
    rollback_script: str
    checksum: str
    rollback_checksum: str
    source_service: str
    apply_time_us: int
    duration_us: int
    baseline: int
    rollback_time_us: int | None

    @property
    def in_effect(self) -> bool:
        """True if it was not taken back."""
        return self.rollback_time_us is None

    @property
    def reversible(self) -> bool:
        """True if there is a script that takes it back."""
        return self.in_effect and not self.baseline and bool(self.rollback_script)

    def check(self, database: str) -> None:
        """Raises `SchemaHistoryConflict` if the line was edited after it was written."""
        if (scripts.checksum(self.script), scripts.checksum(self.rollback_script)) != (
            self.checksum,
            self.rollback_checksum,
        ):
            raise SchemaHistoryConflict(
                f"the recorded script of the version {self.version} of {database} is not what was "
                "run: somebody edited the history; restore the database from a backup",
                metadata={"database": database, "version": self.version},
            )

    def message(self) -> SchemaChange:
        """The line as callers see it."""
        change = SchemaChange(
            version=self.version,
            description=self.description,
            checksum=self.checksum,
            source_service=self.source_service,
            reversible=self.reversible,
            baseline=bool(self.baseline),
        )
        change.apply_time.FromMicroseconds(self.apply_time_us)
        change.duration.FromMicroseconds(self.duration_us)
        if self.rollback_time_us is not None:
            change.rollback_time.FromMicroseconds(self.rollback_time_us)
        return change


def set_up(raw: sqlite3.Connection) -> None:
    """Creates the table if it is not there."""
    raw.execute(_CREATE)


def current(raw: sqlite3.Connection) -> str:
    """The version that the open transaction, or this moment, sees; empty before the first."""
    with journal.as_left():
        row = raw.execute(_CURRENT).fetchone()
    return row[0] if row else ""


def changes(raw: sqlite3.Connection) -> list[Change]:
    """Every change, oldest first."""
    with journal.as_left():
        return [Change(*row) for row in raw.execute(_ALL).fetchall()]


def recorded_shape(raw: sqlite3.Connection) -> str:
    """The fingerprint of the shape that the last change left; empty before the first."""
    with journal.as_left():
        row = raw.execute(_SHAPE).fetchone()
    return row[0] if row else ""


def record_shape(raw: sqlite3.Connection, shape: str) -> None:
    """Writes the shape that a change leaves, within the transaction that is open."""
    raw.execute(_SET_SHAPE, (shape,))


def insert(
    raw: sqlite3.Connection,
    update: SchemaUpdate,
    from_version: str,
    *,
    source_service: str,
    time_us: int,
    duration_us: int,
) -> None:
    """Writes a change, within the transaction that is open."""
    values: tuple[Any, ...] = (
        update.version,
        from_version,
        update.description,
        update.script,
        update.rollback_script,
        scripts.checksum(update.script),
        scripts.checksum(update.rollback_script),
        source_service,
        time_us,
        duration_us,
        update.baseline,
    )
    raw.execute(_INSERT, values)


def take_back(raw: sqlite3.Connection, change: Change, time_us: int) -> None:
    """Marks a change as taken back, within the transaction that is open."""
    raw.execute(_TAKE_BACK, (time_us, change.number))


def check_update(known: Sequence[Change], update: SchemaUpdate, database: str) -> str:
    """Gives the version that an update begins at.

    Raises `InvalidVersion` unless it leads above that, `SchemaHistoryConflict` for a version that
    was reached with another script, and for a history that was edited.
    """
    in_effect = [change for change in known if change.in_effect]
    for change in in_effect:
        change.check(database)
    wanted = SemanticVersion.parse(update.version)
    from_version = in_effect[-1].version if in_effect else ""
    metadata = {"database": database, "version": update.version, "current": from_version}
    for change in in_effect:
        same = SemanticVersion.parse(change.version) == wanted
        if same and change.checksum != scripts.checksum(update.script):
            raise SchemaHistoryConflict(
                f"{database} reached the version {update.version} with another script: never edit "
                "a script that was run, write a new version",
                metadata=metadata,
            )
    if wanted <= (SemanticVersion.parse(from_version) if from_version else NOTHING):
        raise InvalidVersion(
            f"{database} has the version {from_version or 'none'}, and {update.version} is not "
            "above it: versions only rise, RollbackSchema leads back",
            metadata=metadata,
        )
    if update.baseline and any(not change.baseline for change in in_effect):
        raise InvalidVersion(
            f"{database} was updated by scripts up to {from_version}, so {update.version} cannot "
            "be its baseline: run its script",
            metadata=metadata,
        )
    return from_version


def check_rollback(known: Sequence[Change], to_version: str, database: str) -> list[Change]:
    """Gives the changes to take back, newest first.

    Raises `InvalidVersion` unless it leads to an earlier version of the history, or where a script
    is missing, `SchemaHistoryConflict` for a history that was edited.
    """
    wanted = SemanticVersion.parse(to_version, "to_version")
    in_effect = [change for change in known if change.in_effect]
    versions = [SemanticVersion.parse(change.version) for change in in_effect]
    current_version = in_effect[-1].version if in_effect else ""
    metadata = {"database": database, "version": to_version, "current": current_version}
    if not in_effect or wanted >= versions[-1] or (wanted not in versions and wanted != NOTHING):
        earlier = ", ".join([str(NOTHING), *map(str, versions[:-1])]) if versions else "none"
        raise InvalidVersion(
            f"{database} has the version {current_version or 'none'} and can be led back to: "
            f"{earlier}; not to {to_version}",
            metadata=metadata,
        )
    back = [
        change for change, version in zip(in_effect, versions, strict=True) if version > wanted
    ][::-1]
    for change in back:
        change.check(database)
    if stuck := [change.version for change in back if not change.reversible]:
        raise InvalidVersion(
            f"{database} cannot be led back to {to_version}: there is no rollback script for "
            f"{', '.join(stuck)}; nothing was run",
            metadata=metadata | {"missing": ", ".join(stuck)},
        )
    return back
