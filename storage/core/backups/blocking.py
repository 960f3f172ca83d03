"""Blocking work on files, in threads, with failures that say what to do."""

import asyncio
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from messagehub.errors import DatabaseUnavailable, StorageFull
from storage.core.backups.progress import Progress

Result = TypeVar("Result")

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


async def in_thread(work: Callable[[], Result], progress: Progress) -> Result:
    """Runs `work` in a thread; for a caller that goes away it ends at its next step.

    Nothing runs any more when this ends, so what the work used may be removed then. Raises
    `StorageFull`, or `DatabaseUnavailable` where the files cannot be used.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work))
    with told():
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            progress.cancel()
            await asyncio.wait([running])
            if not running.cancelled():
                running.exception()  # nobody is there to hear of it
            raise


@contextmanager
def told() -> Iterator[None]:
    """Gives what the system refuses as one of our errors."""
    try:
        yield
    except OSError as failure:
        if failure.errno in _NO_ROOM:
            raise StorageFull(
                "there is no room on the disk for it: nothing was changed; make room, for example "
                "by deleting an old backup, then call again"
            ) from failure
        where = f" ({failure.filename})" if failure.filename else ""
        raise DatabaseUnavailable(
            f"the files cannot be used{where}: {failure.strerror or failure}", retry_after=1.0
        ) from failure
