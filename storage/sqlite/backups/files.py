"""The port `storage.core.backups.database_files` for SQLite."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from messagehub.storage.v1.backup_service_pb2 import BackedUpDatabase
from storage.core.backups.progress import Progress
from storage.sqlite.backups import checking, replacement


class SqliteFiles:
    """The files of the databases in a directory."""

    def __init__(self, directory: Path, *, suffix: str, reached: Callable[[str], None]) -> None:
        self._directory = directory
        self._suffix = suffix
        self._reached = reached

    def problems(self, file: Path, expected: BackedUpDatabase, progress: Progress) -> list[str]:
        """See the port."""
        return checking.problems(file, expected, progress)

    def missing(self, file: Path, transaction_ids: Sequence[str]) -> list[str]:
        """See the port."""
        return checking.missing(file, transaction_ids)

    def renew(self, file: Path, restore_id: str) -> str:
        """See the port."""
        return replacement.renew(file, restore_id)

    def replace(self, place: Path, databases: Sequence[str]) -> Mapping[str, str]:
        """See the port."""
        return replacement.replace(
            self._directory, place, databases, suffix=self._suffix, reached=self._reached
        )
