"""How many commits a write-ahead log holds, by its own format.

See sqlite.org/fileformat.html#walformat.

With `synchronous=FULL` every commit is one fsync of the log, so this counts them without a tracer.
"""

import struct
from pathlib import Path
from typing import Final

HEADER: Final = struct.Struct(">8I")
FRAME: Final = struct.Struct(">6I")


def commits(log: Path) -> int:
    """The valid frames that end a transaction."""
    content = log.read_bytes()
    if len(content) < HEADER.size:
        return 0
    _, _, page_bytes, _, *salt, _, _ = HEADER.unpack_from(content)
    count, place = 0, HEADER.size
    while place + FRAME.size + page_bytes <= len(content):
        _, pages_after_commit, first, second, _, _ = FRAME.unpack_from(content, place)
        if [first, second] != salt:
            break
        count += pages_after_commit > 0
        place += FRAME.size + page_bytes
    return count
