"""The file beside a database that holds its prepared part, until that is resolved.

A header with the length and the digest of what follows tells a whole record from a torn one. A
record that is cleared may come back after a crash: clearing needs no fsync, because by then the
database itself says how the transaction ended.
"""

import os
from hashlib import blake2b
from pathlib import Path
from typing import Final

from messagehub.errors import DatabaseUnavailable
from storage.core.engine import EngineLost

MAGIC: Final = b"MHPREP01"
LENGTH_BYTES: Final = 8
DIGEST_BYTES: Final = 32
HEADER_BYTES: Final = len(MAGIC) + LENGTH_BYTES + DIGEST_BYTES
# A file that once grew beyond this is cut when it is cleared.
KEPT_BYTES_MAX: Final = 1024 * 1024
# Flushes the data and what is needed to read it; not everywhere.
_flush: Final = getattr(os, "fdatasync", os.fsync)


class PreparedFile:
    """The file of one database; the owner of the database is its only user.

    `holds` says that a record was written and is not cleared.
    """

    def __init__(self, database_file: Path) -> None:
        self._path = database_file.with_name(f"{database_file.name}-prepared")
        self._descriptor: int | None = None
        self.holds = False

    def read(self) -> bytes | None:
        """Gives the record; None if there is none, or only the beginning of one."""
        if self._descriptor is None and not self._path.exists():
            return None
        descriptor = self._open()
        header = os.pread(descriptor, HEADER_BYTES, 0)
        if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
            return None
        length = int.from_bytes(header[len(MAGIC) : len(MAGIC) + LENGTH_BYTES], "big")
        content = os.pread(descriptor, min(length, os.fstat(descriptor).st_size), HEADER_BYTES)
        if len(content) != length or _digest(content) != header[-DIGEST_BYTES:]:
            return None
        return content

    def write(self, content: bytes) -> None:
        """Puts a record on disk; raises `OSError` if there is no room.

        Raises `EngineLost` if nobody can tell whether it is there.
        """
        self._look()
        descriptor = self._open()
        header = MAGIC + len(content).to_bytes(LENGTH_BYTES, "big") + _digest(content)
        try:
            _write_all(descriptor, header + content)
        except OSError:
            self.clear()
            raise
        self.holds = True
        try:
            _flush(descriptor)
        except OSError as failure:
            raise EngineLost(
                DatabaseUnavailable(
                    "fsync of a prepared transaction failed, so nobody knows what is on disk: the "
                    "database is fenced; check the disk, then restart the storage server"
                )
            ) from failure

    def clear(self) -> None:
        """Forgets the record."""
        self.holds = False
        if self._descriptor is None and not self._path.exists():
            return
        descriptor = self._open()
        os.pwrite(descriptor, bytes(HEADER_BYTES), 0)
        if os.fstat(descriptor).st_size > KEPT_BYTES_MAX:
            os.ftruncate(descriptor, 0)

    def close(self) -> None:
        """Closes the file; it stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _look(self) -> None:
        """A file that somebody removed or replaced would be gone with the process."""
        if self._descriptor is None:
            return
        opened = os.fstat(self._descriptor)
        if not self._path.exists() or not os.path.samestat(opened, self._path.stat()):
            self.close()

    def _open(self) -> int:
        if self._descriptor is None:
            is_new = not self._path.exists()
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o644)
            if is_new:
                _flush_directory(self._path.parent)
        return self._descriptor


def _write_all(descriptor: int, content: bytes) -> None:
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], written)


def _flush_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=DIGEST_BYTES).digest()
