"""Places for files that arrive, and what a process that was killed left of its own.

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

PREFIX: Final = ".adopting-"

_log = logging.getLogger(__name__)


@contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """A new directory below a directory, gone afterwards with all that is in it."""
    place, descriptor = _make(directory)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(descriptor)


def remove_leftovers(directory: Path) -> None:
    """Removes the places that processes left behind which did not come to their end."""
    for place in directory.glob(f"{PREFIX}*"):
        descriptor = _lock(place)
        if descriptor is None:
            continue  # somebody's, or gone meanwhile
        try:
            shutil.rmtree(place)
        except OSError as failure:
            _log.warning(
                "a leftover cannot be removed: remove it by hand",
                extra={"file": str(place), "detail": failure.strerror},
            )
        else:
            _log.info("removed what an interrupted adoption left", extra={"file": str(place)})
        finally:
            os.close(descriptor)


def _make(directory: Path) -> tuple[Path, int]:
    while True:
        place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
        descriptor = _lock(place)
        if descriptor is None:
            continue  # another process took it for a leftover before it was locked
        if place.exists():
            return place, descriptor
        os.close(descriptor)


def _lock(place: Path) -> int | None:
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
