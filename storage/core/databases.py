"""All databases of a storage server, by name: made on first use, closed when idle, trimmed."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from messagehub.errors import HubError, InvalidRequest, QueueFull, ShuttingDown
from storage.core.database import Database, DatabaseLimits, State
from storage.core.engine import Engine

_log = logging.getLogger(__name__)

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
OPENED_AT_ONCE_MAX: Final = 8
MICROSECONDS: Final = 1_000_000


@dataclass(slots=True, frozen=True)
class Upkeep:
    """When databases are closed and journals trimmed; times in seconds."""

    databases_open_max: int
    idle_close_seconds: float
    every_seconds: float
    journal_age_seconds_max: float
    journal_rows_max: int
    trim_rows_max: int


class Databases:
    """The registry. `wall_clock` gives seconds since 1970 UTC; `told` learns of each change."""

    def __init__(
        self,
        make_engine: Callable[[str], Engine],
        limits: DatabaseLimits,
        upkeep: Upkeep,
        wall_clock: Callable[[], float],
        told: Callable[[Database], None],
        reached: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._make_engine = make_engine
        self._limits = limits
        self._upkeep = upkeep
        self._wall_clock = wall_clock
        self._told = told
        self._reached = reached
        self._databases: dict[str, Database] = {}
        self._changes = 0
        self._bell = asyncio.Event()
        self._ended = False
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    def get(self, name: str) -> Database:
        """Gives a database, without opening it."""
        if self._ended:
            raise ShuttingDown("the storage server is stopping", retry_after=1.0)
        database = self._databases.get(name)
        if database is None:
            if not NAME.fullmatch(name):
                raise InvalidRequest(
                    f"{name!r} is no database name: use at most 63 of a-z, 0-9 and _, "
                    "beginning with a letter",
                    fields={"database": "is malformed"},
                )
            database = Database(
                name, lambda: self._open_engine(name), self._limits, self._tell, self._reached
            )
            self._databases[name] = database
        return database

    async def watch(self, names: Iterable[str]) -> AsyncGenerator[list[Database], None]:
        """Opens the named databases and yields all of them, then those that changed.

        A database that cannot be opened is tried again as long as somebody watches.
        """
        watched = [self.get(name) for name in names]
        gate = asyncio.Semaphore(OPENED_AT_ONCE_MAX)

        async def try_open(database: Database) -> None:
            async with gate:
                with suppress(HubError):  # it is told by `available` and `failure`
                    await database.open()

        await asyncio.gather(*(try_open(database) for database in watched))
        told = {database: _standing(database) for database in watched}
        yield watched
        while not self._ended:
            await self._next_change()
            failed = [database for database in watched if database.state is State.FAILED]
            await asyncio.gather(*(try_open(database) for database in failed))
            changed = [one for one in watched if _standing(one) != told[one]]
            if changed:
                told |= {database: _standing(database) for database in changed}
                yield changed

    async def end(self, seconds: float | None = None) -> None:
        """Finishes what is under way in every database and closes all of them.

        Writes that are not done after so many seconds are interrupted, and leave nothing.
        """
        self._ended = True
        self._ring()
        self._keeper.cancel()
        await asyncio.gather(*(database.end(seconds) for database in self._databases.values()))
        await asyncio.gather(self._keeper, return_exceptions=True)

    def _open_engine(self, name: str) -> Engine:
        in_use = [d for d in self._databases.values() if d.state in (State.OPEN, State.OPENING)]
        limit = self._upkeep.databases_open_max
        if len(in_use) > limit:  # the one that is being opened among them
            raise QueueFull(
                f"{limit} databases are open, which is the limit (databases_open_max): try again "
                "when one is idle",
                retry_after=self._upkeep.every_seconds,
            )
        return self._make_engine(name)

    def _tell(self, database: Database) -> None:
        self._told(database)
        self._ring()

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()

    async def _next_change(self) -> None:
        with suppress(TimeoutError):  # time to look whether a failed database has recovered
            async with asyncio.timeout(self._limits.reopen_seconds):
                await self._bell.wait()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._upkeep.every_seconds)
            try:
                for database in list(self._databases.values()):
                    await self._trim(database)
                await self._close_idle()
            except Exception:  # noqa: BLE001 - a defect that one round meets must not end the rounds
                _log.exception("upkeep failed")

    async def _trim(self, database: Database) -> None:
        horizon = self._wall_clock() - self._upkeep.journal_age_seconds_max
        more = True
        try:
            while more:
                more = await database.trim(
                    older_than_us=int(horizon * MICROSECONDS),
                    keep_rows=self._upkeep.journal_rows_max,
                    at_most=self._upkeep.trim_rows_max,
                )
        except HubError as failure:
            _log.warning(
                "cannot trim", extra={"database": database.name, "detail": failure.message}
            )

    async def _close_idle(self) -> None:
        now = asyncio.get_running_loop().time()
        idle = sorted(
            (since, database.name, database)
            for database in self._databases.values()
            if (since := database.idle_since()) is not None
        )
        in_use = sum(d.state is State.OPEN for d in self._databases.values())
        surplus = in_use - self._upkeep.databases_open_max // 2
        for place, (since, _, database) in enumerate(idle):
            if now - since > self._upkeep.idle_close_seconds or place < surplus:
                await database.close()


def _standing(database: Database) -> tuple[str, str, str, str]:
    """What watchers hear of: whether it can be used, its life, its doubts, and its schema."""
    in_doubt = database.in_doubt
    doubtful = in_doubt.header.transaction_id if in_doubt else ""
    return database.detail, database.epoch, doubtful, database.schema_version
