"""Places for files on their way, and what a process that was killed left of its own.

A place is a directory that is locked as long as its process uses it. `flock` is gone the moment
the process is, so whatever can be locked is a leftover, also where several servers share a data
directory. It is the directory that is locked, not the file in it: closing a descriptor of a file
that has become a database would drop SQLite's own locks on it (sqlite.org/howtocorrupt.html §2.2).
"""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ADOPTING: Final = ".adopting-"
RESTORING: Final = ".restoring-"
COPYING: Final = ".copying-"
# In a place whose files must come to where they belong: no leftover, however its process ended.
DECIDED: Final = "decided"

_log = logging.getLogger(__name__)


@contextmanager
def scratch(directory: Path, prefix: str) -> Iterator[Path]:
    """A new directory below a directory, gone afterwards with all that is in it.

    One that is `DECIDED` stays as long as there is something in it.
    """
    place, descriptor = _make(directory, prefix)
    try:
        yield place
    finally:
        if not (place / DECIDED).exists():
            shutil.rmtree(place, ignore_errors=True)
        os.close(descriptor)


def remove_leftovers(directory: Path, *prefixes: str) -> None:
    """Removes the places that processes left behind which did not come to their end."""
    for place in (place for prefix in prefixes for place in directory.glob(f"{prefix}*")):
        descriptor = lock(place)
        if descriptor is None:
            continue  # somebody's, or gone meanwhile
        if (place / DECIDED).exists():
            os.close(descriptor)
            continue
        try:
            shutil.rmtree(place)
        except OSError as failure:
            _log.warning(
                "a leftover cannot be removed: remove it by hand",
                extra={"file": str(place), "detail": failure.strerror},
            )
        else:
            _log.info("removed what an interrupted piece of work left", extra={"file": str(place)})
        finally:
            os.close(descriptor)


def _make(directory: Path, prefix: str) -> tuple[Path, int]:
    while True:
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
        descriptor = lock(place)
        if descriptor is None:
            continue  # another process took it for a leftover before it was locked
        if place.exists():
            return place, descriptor
        os.close(descriptor)


def lock(place: Path) -> int | None:
    """Locks a directory; None if another process has it, or it is none."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
