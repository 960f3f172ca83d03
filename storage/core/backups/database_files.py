"""The port to an engine's database files that nobody has open. The methods run in threads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from messagehub.storage.v1.backup_service_pb2 import BackedUpDatabase
from storage.core.backups.progress import Progress


class DatabaseFiles(Protocol):
    """Files of the engine's kind."""

    def problems(self, file: Path, expected: BackedUpDatabase, progress: Progress) -> list[str]:
        """Tells in what a restored file differs from what was backed up; empty = in nothing.

        Integrity, journal, row counts and content are looked at.
        """

    def missing(self, file: Path, transaction_ids: Sequence[str]) -> list[str]:
        """Names the transactions that a file has no record of."""

    def renew(self, file: Path, restore_id: str) -> str:
        """Begins a new life of the journal in a file and gives its epoch; on disk afterwards.

        The file then remembers which restore made it.
        """

    def replace(self, place: Path, databases: Sequence[str]) -> Mapping[str, str]:
        """Puts the files of a directory in the places of databases that nobody has open.

        All or none, also after a crash; an engine that opens one of them completes it. Gives the
        transactions that were prepared in what was replaced. Raises `DatabaseUnavailable` if
        another process owns one of them.
        """
