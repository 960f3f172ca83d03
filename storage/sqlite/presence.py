"""Whether the files of an open database are still those that stand at their paths.

SQLite writes to the files that it has open, also after somebody removed, renamed or replaced them
(sqlite.org/howtocorrupt.html §1.2, §4.2); such a commit would be gone with the process. So the
paths are looked at after each commit and before it is told, which is three system calls, and in
the background. A file that was overwritten in its place is the same file: that shows only when
SQLite finds it damaged.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from messagehub.errors import DatabaseUnavailable
from storage.core.engine import EngineLost


class Identity(NamedTuple):
    """Which file it is, whatever its name."""

    device: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Identity":
        """The identity of a file whose status was asked for."""
        return cls(status.st_dev, status.st_ino)


_FILE_GONE: Final = (
    "its data are only in what process {pid} has open: copy that file and its -wal from "
    "/proc/{pid}/fd before you stop the storage server, then stop it, put both in place, start it"
)
# What to do, by the end of the file's name.
_REMEDIES: Final[Mapping[str, str]] = {
    "-wal": (
        "stop the storage server with SIGTERM, which writes the log that it has open back into "
        "the database file, then start it; a kill would lose what is only in the log"
    ),
    ".lock": (
        "another storage server may have taken the database over meanwhile: stop all but one, "
        "then start that one again"
    ),
}


class Presence:
    """Remembers the files of a database that was just opened; `lock` is that of its lock file."""

    def __init__(self, file: Path, lock: Identity) -> None:
        log = file.with_name(f"{file.name}-wal")
        self._known = {
            file: Identity.of(file.stat()),
            log: Identity.of(log.stat()),
            file.with_name(f"{file.name}.lock"): lock,
        }

    def check(self) -> None:
        """Raises `EngineLost` if a file is not where it was any more, or another one is there."""
        for path, known in self._known.items():
            try:
                found = Identity.of(path.stat())
            except OSError as failure:
                raise _lost(path, f"cannot be found any more ({failure.strerror})") from failure
            if found != known:
                raise _lost(path, "was replaced by another file")


def _lost(path: Path, how: str) -> EngineLost:
    remedy = next((text for end, text in _REMEDIES.items() if path.name.endswith(end)), _FILE_GONE)
    return EngineLost(
        DatabaseUnavailable(
            f"{path.name} {how} while the storage server had it open, so the database is "
            f"fenced and nothing more is acknowledged: {remedy.format(pid=os.getpid())}"
        )
    )
