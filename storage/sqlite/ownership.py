"""One process per database file, by an advisory lock on a file beside it.

`flock` belongs to the open file description, so it is gone the moment the process is, also after
kill -9, and it stays with a process that is only paused. The lock file is never removed: removing
it would let two processes lock two different files of the same name.
"""

import fcntl
import os
from pathlib import Path

from messagehub.errors import DatabaseUnavailable
from storage.sqlite.presence import Identity


class Ownership:
    """The lock of one database file."""

    def __init__(self, file: Path) -> None:
        self._path = file.with_name(f"{file.name}.lock")
        self._descriptor: int | None = None

    def take(self) -> None:
        """Takes the lock, or raises `DatabaseUnavailable` naming the process that has it.

        Raises `OSError`, also after the lock was taken: then it has to be given up.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failure:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise DatabaseUnavailable(
                f"the database file is owned by another storage process (pid {owner or 'unknown'}):"
                " stop that one, or give this one another data directory",
                retry_after=1.0,
            ) from failure
        self._descriptor = descriptor
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    @property
    def identity(self) -> Identity:
        """Which file is locked; raises `OSError` if the lock is not held."""
        return Identity.of(os.fstat(-1 if self._descriptor is None else self._descriptor))

    def give_up(self) -> None:
        """Releases the lock; nothing happens if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
