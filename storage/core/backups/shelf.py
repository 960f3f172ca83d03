"""The port to a place where backups are kept. A directory is one; object storage may be another.

A backup is a few named files that appear together or not at all. The methods may block; they are
called in threads. They raise `OSError`.
"""

from typing import BinaryIO, Protocol


class Draft(Protocol):
    """A backup that is being written; nobody sees it before `complete`."""

    def create(self, name: str) -> BinaryIO:
        """Opens a new file to write; on disk once it is closed."""

    def complete(self) -> None:
        """From now on, and after any crash, the backup is there with all of its files."""

    def discard(self) -> None:
        """Leaves nothing; nothing happens after `complete`."""


class Shelf(Protocol):
    """The backups of a place, by their names."""

    def begin(self, backup_id: str) -> Draft:
        """Begins a backup; raises `RequestIdReused` if one of that name is there or being made."""

    def names(self) -> list[str]:
        """Names the backups that are whole."""

    def open(self, backup_id: str, name: str) -> BinaryIO:
        """Opens a file of a backup to read."""

    def put(self, backup_id: str, name: str, content: bytes) -> None:
        """Adds a small file to a whole backup, or replaces it, at once; on disk afterwards."""

    def delete(self, backup_id: str) -> None:
        """Deletes a backup; after a crash it is there whole, or not at all."""

    def tidy(self) -> None:
        """Removes what processes left that were killed."""
