"""Time and randomness for statements that may have to run again: from a recorded clock and seed.

SQLite's own functions are replaced on one connection. What they do with a time that is given stays
SQLite's: only the words that mean "now" are replaced, and the rest is computed by SQLite on a
connection of its own. Randomness follows from the seed of the transaction and the number of the
statement in it, so that a statement that failed before does not shift it.
"""

import random
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final

MICROSECONDS: Final = 1_000_000
MILLISECOND_US: Final = 1000
INTEGER_BITS: Final = 64
# SQLite's limit for randomblob is the limit of a value; below 1 it gives one byte.
_NOW: Final = "now"
_CURRENT: Final = {
    "current_timestamp": "datetime",
    "current_date": "date",
    "current_time": "time",
}
# Where the time value stands among the arguments.
_TIMES: Final = {
    "date": 0,
    "time": 0,
    "datetime": 0,
    "julianday": 0,
    "unixepoch": 0,
    "strftime": 1,
}
_SUBSECOND: Final = frozenset({"subsec", "subsecond"})


class RecordedChance:
    """The functions of one connection; used in its thread.

    `bytes_max` is the longest value that a function may build.
    """

    def __init__(self, raw: sqlite3.Connection, bytes_max: int) -> None:
        self._plain = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._raw = raw
        self._bytes_max = bytes_max
        self._now = ""
        self._seed = b""
        self._random = random.Random()  # noqa: S311 - as random as the seed, which is the hub's
        self._changes = 0
        for name, place in _TIMES.items():
            self._replace(name, -1, self._time_function(name, place))
        for name, function in _CURRENT.items():
            self._replace(name, 0, self._current_function(function))
        raw.create_function("random", 0, self._integer)
        raw.create_function("randomblob", 1, self._blob)
        raw.create_function("total_changes", 0, self._total_changes)

    def begin(self, clock_us: int, seed: bytes) -> None:
        """From here on it is that time, and chance follows from that seed."""
        moment = datetime.fromtimestamp(clock_us // MICROSECONDS, UTC)
        milliseconds = clock_us % MICROSECONDS // MILLISECOND_US
        self._now = f"{moment:%Y-%m-%d %H:%M:%S}.{milliseconds:03d}"
        self._seed = seed
        self._changes = self._raw.total_changes

    @property
    def changes(self) -> int:
        """How many rows were changed since `begin`, as the statements see it."""
        return self._raw.total_changes - self._changes

    @changes.setter
    def changes(self, count: int) -> None:
        self._changes = self._raw.total_changes - count

    def statement(self, number: int, reads: int = 0) -> None:
        """The statement with this number begins; `reads` only read since the one before."""
        drawn = self._seed + number.to_bytes(8, "big") + reads.to_bytes(8, "big")
        digest = blake2b(drawn, digest_size=32).digest()
        self._random.seed(digest)

    def close(self) -> None:
        """Lets the other connection go."""
        self._plain.close()

    def _replace(self, name: str, arguments: int, function: Callable[..., Any]) -> None:
        # Deterministic within a statement, as SQLite's own are, and so allowed in an index.
        self._raw.create_function(name, arguments, function, deterministic=True)

    def _time_function(self, name: str, place: int) -> Callable[..., Any]:
        def function(*arguments: Any) -> Any:
            given = list(arguments)
            if len(given) == place:
                given.append(_NOW)
            if len(given) > place and isinstance(given[place], str | bytes):
                # SQLite takes the bytes of a blob for text.
                text = given[place]
                word = (text if isinstance(text, str) else text.decode("latin-1")).lower()
                if word in _SUBSECOND:
                    given.insert(place, self._now)
                elif word == _NOW:
                    given[place] = self._now
            places = ", ".join("?" * len(given))
            return self._plain.execute(f"SELECT {name}({places})", given).fetchone()[0]

        return function

    def _current_function(self, name: str) -> Callable[..., Any]:
        def function() -> Any:
            return self._plain.execute(f"SELECT {name}(?)", (self._now,)).fetchone()[0]

        return function

    def _integer(self) -> int:
        return self._random.getrandbits(INTEGER_BITS) - (1 << INTEGER_BITS - 1)

    def _blob(self, size: object) -> bytes:
        wanted = int(size) if isinstance(size, int | float) else 1
        if wanted > self._bytes_max:
            raise ValueError("string or blob too big")
        return self._random.randbytes(max(1, wanted))

    def _total_changes(self) -> int:
        return self.changes
