"""What a connection runs, and until when; ends it when its time is over.

SQLite's progress handler looks between instructions. It counts them, and one instruction may take
milliseconds, so the loop looks too, by the clock, and interrupts. An interrupt belongs to a
connection, not to a statement: a lock keeps it within the time in which a caller's statement runs,
and what is set when that ends falls on that operation, or on nothing.
"""

import sqlite3
from collections.abc import Callable
from threading import Lock
from types import TracebackType
from typing import Self

from storage.core.operation import Operation
from storage.sqlite.written_bytes import WrittenBytes


class Watch:
    """The watch of one connection. Only `look` is called from another thread than its own."""

    def __init__(
        self, raw: sqlite3.Connection, clock: Callable[[], float], written: WrittenBytes
    ) -> None:
        self._raw = raw
        self._written = written
        self._clock = clock
        self._lock = Lock()
        self._current: Operation | None = None
        self._until = 0.0
        self._running = False

    def begin(self, operation: Operation, until: float) -> None:
        """From here on, `operation` is what is watched."""
        self._current, self._until = operation, until

    def end(self) -> None:
        """Nothing is being run any more."""
        self._current = None

    @property
    def over(self) -> bool:
        """True if what runs must end."""
        current = self._current
        return current is not None and (current.cancelled or self._clock() >= self._until)

    def __enter__(self) -> Self:
        """A caller's statement begins to run, or goes on."""
        with self._lock:
            self._running = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._running = False

    def look(self) -> None:
        """Interrupts the statement that runs, if its time is over or it wrote too much."""
        with self._lock:
            current = self._current
            if not self._running or current is None:
                return
            if self.over or self._written.look(current):
                self._raw.interrupt()
