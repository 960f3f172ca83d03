"""The statements that Python's sqlite3 keeps compiled, bounded by the bytes of their texts.

Python bounds their number only. A compiled statement is several times its text, so a few of a
megabyte each would be hundreds of megabytes on every connection. When long texts have come to a
bound, small statements push everything else out.
"""

import sqlite3
from typing import Final

CACHED_STATEMENTS: Final = 128
CACHED_BYTES_MAX: Final = 1024 * 1024
# Shorter ones are bounded well enough by their number.
SHORT_CHARACTERS: Final = 4096


class StatementCache:
    """The cache of one connection; used in its thread."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw
        self._held_bytes = 0

    def make_room(self, query: str) -> None:
        """Empties the cache before a statement that would take it over its bound."""
        if len(query) <= SHORT_CHARACTERS:
            return
        size = len(query.encode())
        if self._held_bytes and self._held_bytes + size > CACHED_BYTES_MAX:
            for number in range(CACHED_STATEMENTS):
                self._raw.execute(f"SELECT {number}").close()
            self._held_bytes = 0
        self._held_bytes += size
