"""Backups in a directory: one directory each, which gets its name when it is whole.

`.making-NAME` is locked by the process that writes it; one that can be locked is a leftover. A
backup that is deleted is renamed first, so that half of one never looks like a backup.
"""

import errno
import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO, Final, cast

from messagehub.errors import BackupNotFound, RequestIdReused
from storage.core.scratch import lock, remove_leftovers

MAKING: Final = ".making-"
DELETING: Final = ".deleting-"
_NAME: Final = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z_-]{0,127}")


class _File:
    """A file that is on disk when it is closed."""

    def __init__(self, path: Path) -> None:
        self._inner = path.open("xb")

    def write(self, data: bytes) -> int:
        return self._inner.write(data)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *failure: object) -> None:
        try:
            if failure[0] is None:
                self._inner.flush()
                os.fsync(self._inner.fileno())
        finally:
            self._inner.close()


class DirectoryDraft:
    """See `storage.core.backups.shelf.Draft`."""

    def __init__(self, place: Path, target: Path, descriptor: int) -> None:
        self._place = place
        self._target = target
        self._descriptor = descriptor
        self._ended = False

    def create(self, name: str) -> BinaryIO:
        """See the port."""
        return cast("BinaryIO", _File(self._place / name))

    def complete(self) -> None:
        """See the port."""
        os.fsync(self._descriptor)
        self._place.rename(self._target)
        self._end()
        _flush(self._target.parent)

    def discard(self) -> None:
        """See the port."""
        if not self._ended:
            shutil.rmtree(self._place, ignore_errors=True)
            self._end()

    def _end(self) -> None:
        self._ended = True
        os.close(self._descriptor)


class DirectoryShelf:
    """See `storage.core.backups.shelf.Shelf`; the directory is made when it is needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def begin(self, backup_id: str) -> DirectoryDraft:
        """See the port."""
        target = self._place(backup_id)
        self._directory.mkdir(parents=True, exist_ok=True)
        self.tidy()
        place = self._directory / f"{MAKING}{backup_id}"
        if target.exists():
            raise _taken(backup_id)
        try:
            place.mkdir()
        except FileExistsError:
            raise _taken(backup_id) from None
        descriptor = lock(place)
        if descriptor is None or not place.exists():
            raise OSError(errno.EAGAIN, f"{place.name} was taken for a leftover")
        return DirectoryDraft(place, target, descriptor)

    def names(self) -> list[str]:
        """See the port."""
        if not self._directory.exists():
            return []
        return sorted(p.name for p in self._directory.iterdir() if _NAME.fullmatch(p.name))

    def open(self, backup_id: str, name: str) -> BinaryIO:
        """See the port."""
        return (self._place(backup_id) / name).open("rb")

    def put(self, backup_id: str, name: str, content: bytes) -> None:
        """See the port."""
        place = self._place(backup_id)
        new = place / f".new-{name}"
        new.unlink(missing_ok=True)
        with _File(new) as file:
            file.write(content)
        new.replace(place / name)
        _flush(place)

    def delete(self, backup_id: str) -> None:
        """See the port."""
        self.tidy()
        gone = self._directory / f"{DELETING}{backup_id}"
        try:
            self._place(backup_id).rename(gone)
        except FileNotFoundError:
            raise BackupNotFound(f"there is no backup {backup_id}") from None
        _flush(self._directory)
        shutil.rmtree(gone, ignore_errors=True)  # what stays is a leftover

    def tidy(self) -> None:
        """See the port."""
        if self._directory.exists():
            remove_leftovers(self._directory, MAKING, DELETING)

    def _place(self, backup_id: str) -> Path:
        """Where a backup is; a name comes from the wire and must not lead out of here."""
        if not _NAME.fullmatch(backup_id):
            raise BackupNotFound(f"{backup_id!r} is no name of a backup")
        return self._directory / backup_id


def _taken(backup_id: str) -> RequestIdReused:
    return RequestIdReused(f"a backup {backup_id} is there already, or is being made")


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
