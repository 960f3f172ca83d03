"""How much a statement writes while it runs: temporary files, and the log in front of the file.

SQLite does not bound what a sort, a join or a materialized view spills, and unlinks the files as
it opens them. But a connection has a thread of its own, and Linux counts what a thread writes. A
system that does not is left without this bound.
"""

import os
import threading
from pathlib import Path

from storage.core.operation import Operation


class WrittenBytes:
    """Counts for the thread that it is made in; asked from any."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._file = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/io")
        self._counted: Operation | None = None
        self._before = 0
        self.over = False

    def begin(self) -> None:
        """A new operation begins."""
        self._counted = None
        self.over = False

    def look(self, operation: Operation) -> bool:
        """True if this operation has written too much, since it was looked at first."""
        written = self._written()
        if self._counted is not operation:
            self._counted, self._before = operation, written
        self.over = self.over or written - self._before > self._limit
        return self.over

    def _written(self) -> int:
        try:
            text = self._file.read_text()
        except OSError:
            return 0
        for line in text.splitlines():
            name, _, count = line.partition(": ")
            if name == "wchar":
                return int(count)
        return 0
