"""What a database still needs of a directory, or has to take back."""

from collections.abc import Sequence
from dataclasses import dataclass

from messagehub.errors import InvalidRequest, InvalidVersion, SchemaHistoryConflict
from messagehub.migrations.migration import Migration
from messagehub.schema.versions import NOTHING, SemanticVersion
from messagehub.v1.schema_service_pb2 import GetSchemaResponse, SchemaChange

__all__ = ["Plan", "make"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Leads `database` from `current` up by `updates`, or back by what was recorded.

    `baseline` are recorded as reached, without being run, before the updates. `back` is empty, or
    what is taken back, newest first.
    """

    database: str
    current: str
    baseline: Sequence[Migration] = ()
    updates: Sequence[Migration] = ()
    back: Sequence[SchemaChange] = ()
    target: str = ""

    @property
    def empty(self) -> bool:
        """True if there is nothing to do."""
        return not (self.baseline or self.updates or self.back)


def make(
    database: str,
    migrations: Sequence[Migration],
    known: GetSchemaResponse,
    *,
    to: str = "",
    baseline: str = "",
) -> Plan:
    """Plans the way to the newest version, or to `to`, which may be an earlier one.

    Raises `SchemaHistoryConflict` where a script was edited after it was run, `InvalidVersion`
    for a version that would never be run, because later ones were, and `InvalidRequest` for a
    version that the directory does not have.
    """
    in_effect = [change for change in known.history if not change.HasField("rollback_time")]
    current = SemanticVersion.parse(known.version) if known.version else NOTHING
    _check_edited(database, migrations, in_effect)
    target = _version(to, migrations, in_effect, "--to") if to else None
    if target is not None and target < current:
        return _back(database, known, in_effect, target)
    done = {SemanticVersion.parse(change.version) for change in in_effect}
    below = [one for one in migrations if one.version not in done and one.version < current]
    if below:
        raise InvalidVersion(
            f"{below[0].path} leads to {below[0].version}, but {database} has {current} already: "
            "give it a version above that",
            metadata={"database": database, "version": str(below[0].version)},
        )
    wanted = [
        one
        for one in migrations
        if one.version > current and (target is None or one.version <= target)
    ]
    base = _version(baseline, migrations, [], "--baseline") if baseline else NOTHING
    return Plan(
        database,
        known.version,
        baseline=[one for one in wanted if one.version <= base],
        updates=[one for one in wanted if one.version > base],
    )


def _back(
    database: str,
    known: GetSchemaResponse,
    in_effect: Sequence[SchemaChange],
    target: SemanticVersion,
) -> Plan:
    back = [one for one in in_effect if SemanticVersion.parse(one.version) > target][::-1]
    stuck = [one.version for one in back if not one.reversible]
    if stuck:
        raise InvalidVersion(
            f"{database} cannot be led back to {target}: there is no recorded way back from "
            f"{', '.join(stuck)}",
            metadata={"database": database, "missing": ", ".join(stuck)},
        )
    return Plan(database, known.version, back=back, target=str(target))


def _check_edited(
    database: str, migrations: Sequence[Migration], in_effect: Sequence[SchemaChange]
) -> None:
    recorded = {SemanticVersion.parse(change.version): change.checksum for change in in_effect}
    for migration in migrations:
        checksum = recorded.get(migration.version)
        if checksum is not None and checksum != migration.checksum:
            raise SchemaHistoryConflict(
                f"{migration.path} was edited after it was run on {database}: bring it back to "
                "what it was, and write a new version",
                metadata={"database": database, "version": str(migration.version)},
            )


def _version(
    text: str,
    migrations: Sequence[Migration],
    in_effect: Sequence[SchemaChange],
    option: str,
) -> SemanticVersion:
    """A version that somebody typed; a number alone is that of a numbered migration."""
    version = SemanticVersion.parse(f"{text}.0.0" if text.isdigit() else text, option)
    there = {one.version for one in migrations}
    there |= {SemanticVersion.parse(change.version) for change in in_effect}
    if version in there or version == NOTHING:
        return version
    raise InvalidRequest(
        f"{option} {text}: there is no such version; there are "
        f"{', '.join(map(str, sorted(there))) or 'none'}",
        fields={option: "is not there"},
    )
