"""One hub for each data directory, by an advisory lock on a file in it.

`flock` belongs to the open file description: it is gone the moment the process is, also after
kill -9, and it stays with a process that is only paused. The lock file is never removed, because
two processes could then lock two files of the same name.
"""

import fcntl
import os
from pathlib import Path


class InboxUnusable(OSError):
    """The inbox cannot be opened; the text says why, and what to do."""


class InboxLock:
    """The lock beside the inbox."""

    def __init__(self, inbox: Path) -> None:
        self._path = inbox.with_name(f"{inbox.name}.lock")
        self._descriptor: int | None = None

    def take(self) -> None:
        """Takes the lock, or raises `InboxUnusable` naming the process that has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as failure:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise InboxUnusable(
                f"the data directory {self._path.parent} belongs to another hub (pid "
                f"{owner or 'unknown'}): stop that one, or give this one another --data-dir"
            ) from failure
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def give_up(self) -> None:
        """Releases the lock; nothing happens if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
