"""What a call wants to change, and what follows from that alone."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hub.core.transactions.transaction import PartOperation, Work
from messagehub.errors import InvalidVersion
from messagehub.schema.versions import SemanticVersion


class Change(NamedTuple):
    """One change of the schema of one database, whose route is resolved.

    `content` is what the database is told, unseen here. `checksum` is that of the script, empty
    for a rollback, whose scripts the database has.
    """

    database: str
    to_version: str
    description: str
    checksum: str
    content: Any


class Wanted(NamedTuple):
    """All changes of one call. `chosen` = the caller gave the request id itself."""

    source_service: str
    correlation_id: str
    request_id: str
    chosen: bool
    fingerprint: bytes
    changes: Sequence[Change]

    @property
    def databases(self) -> tuple[str, ...]:
        """The databases, each once, sorted."""
        return tuple(sorted({change.database for change in self.changes}))


def check_rising(changes: Sequence[Change]) -> None:
    """Raises `InvalidVersion` unless the versions of each database rise within the call."""
    newest: dict[str, SemanticVersion] = {}
    for place, change in enumerate(changes):
        version = SemanticVersion.parse(change.to_version, f"updates[{place}].version")
        before = newest.get(change.database)
        if before is not None and version <= before:
            raise InvalidVersion(
                f"updates[{place}] leads {change.database} to {version}, an earlier one of the "
                f"same call to {before}: give them in rising order",
                fields={f"updates[{place}].version": f"must be above {before}"},
                metadata={"database": change.database},
            )
        newest[change.database] = version


def work_of(changes: Sequence[Change]) -> Mapping[str, Work]:
    """What the transaction does in each database."""
    operations: dict[str, list[PartOperation]] = {}
    for place, change in enumerate(changes):
        operations.setdefault(change.database, []).append(
            PartOperation(
                place,
                request_id="",
                read_only=False,
                schema_version="",
                statement=change.content,
            )
        )
    return {database: Work(tuple(these)) for database, these in operations.items()}
