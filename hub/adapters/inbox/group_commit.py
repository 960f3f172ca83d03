"""Many changes of one SQLite file in one transaction, so that they share one fsync.

While a group is being committed, what arrives gathers for the next one; nothing waits for a timer.
A change is told of only after the commit that holds it is on disk.
"""

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from messagehub.errors import (
    DatabaseCorrupt,
    DatabaseUnavailable,
    HubError,
    InternalError,
    ShuttingDown,
    StorageFull,
)

PRIMARY_MASK: Final = 0xFF
_FSYNC_FAILED: Final = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class Run(Protocol):
    """Takes a unit of work to the thread of a connection."""

    async def __call__(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Gives what the work returns or raises."""


class _Change(NamedTuple):
    work: Callable[[sqlite3.Connection], Any]
    done: asyncio.Future[Any]


class GroupCommit:
    """The one writer of a file, between its creation and `close`.

    A change that raises a `HubError` must have written nothing before. Any other failure undoes
    the whole group; its changes then run again, each in a transaction of its own. After a failed
    fsync nobody knows what is on disk: then everything is refused until the process restarts, and
    `lost` is told why.
    """

    def __init__(self, run: Run, *, group_max: int, lost: Callable[[HubError], None]) -> None:
        self._run = run
        self._group_max = group_max
        self._lost = lost
        self._waiting: deque[_Change] = deque()
        self._wanted = asyncio.Event()
        self._closing = False
        self._fenced: HubError | None = None
        self._committing = asyncio.create_task(self._commit_all(), name="inbox-commits")

    async def change(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Gives what the work returned, or raises its `HubError`, after the commit is on disk."""
        if self._closing:
            raise ShuttingDown("the hub is stopping, and takes no more operations", retry_after=1.0)
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Change(work, done))
        self._wanted.set()
        return await done

    async def close(self) -> None:
        """Commits what waits, and ends."""
        self._closing = True
        self._wanted.set()
        await self._committing

    async def _commit_all(self) -> None:
        while self._waiting or not self._closing:
            await self._wanted.wait()
            group = [
                self._waiting.popleft() for _ in range(min(self._group_max, len(self._waiting)))
            ]
            if group:
                await self._commit(group)
            elif not self._closing:
                self._wanted.clear()

    async def _commit(self, group: Sequence[_Change]) -> None:
        if self._fenced is not None:
            _fail(group, self._fenced)
            return
        try:
            results = await self._run(lambda raw: _apply(raw, group))
        except sqlite3.Error as failure:
            if getattr(failure, "sqlite_errorcode", 0) in _FSYNC_FAILED:
                self._fenced = translate(failure)
                _log.exception("fenced: the inbox takes nothing until the hub is restarted")
                self._lost(self._fenced)
                _fail(group, self._fenced)
            elif len(group) == 1:
                _log.warning("the inbox could not be changed", extra={"detail": str(failure)})
                _fail(group, translate(failure))
            else:
                await self._commit_one_by_one(group)
        except Exception:  # noqa: BLE001 - a defect must be answered, and must not end the writer
            if len(group) == 1:
                _log.exception("a change of the inbox failed by a defect")
                _fail(group, InternalError("the hub's inbox failed by a defect"))
            else:
                await self._commit_one_by_one(group)
        else:
            for change, result in zip(group, results, strict=True):
                _settle(change, result)

    async def _commit_one_by_one(self, group: Sequence[_Change]) -> None:
        for change in group:
            await self._commit([change])


def _apply(raw: sqlite3.Connection, group: Sequence[_Change]) -> list[Any]:
    results: list[Any] = []
    raw.execute("BEGIN IMMEDIATE")
    try:
        for change in group:
            try:
                results.append(change.work(raw))
            except HubError as refusal:
                results.append(refusal)
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise
    return results


def _settle(change: _Change, result: Any) -> None:
    if change.done.done():
        return
    if isinstance(result, HubError):
        change.done.set_exception(result)
    else:
        change.done.set_result(result)


def _fail(group: Sequence[_Change], error: HubError) -> None:
    for change in group:
        _settle(change, error)


def translate(failure: sqlite3.Error) -> HubError:
    """Gives our error for one of SQLite's about the inbox."""
    code = getattr(failure, "sqlite_errorcode", 0)
    primary = code & PRIMARY_MASK
    if code in _FSYNC_FAILED:
        return DatabaseUnavailable(
            "fsync failed, so nobody knows what is on disk: the hub's inbox takes nothing any "
            "more; check the disk, then restart the hub"
        )
    if primary == sqlite3.SQLITE_FULL:
        return StorageFull("the disk of the hub's inbox is full: make room, then call again")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DatabaseCorrupt(
            "the file of the hub's inbox is damaged: stop the hub and keep the file for analysis"
        )
    return DatabaseUnavailable(f"the hub's inbox cannot be used ({failure})", retry_after=1.0)
