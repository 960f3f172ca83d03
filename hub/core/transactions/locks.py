"""Locks on databases in the memory of one hub, so that its transactions wait here.

They make waiting fair and cheap; no promise rests on them, because another hub does not know of
them. Whoever takes several takes them in sorted order, so nobody can wait in a circle.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress

from messagehub.errors import TransactionConflict


class _Lock:
    """First come, first served; any number may share it, one alone may have it."""

    __slots__ = ("sharers", "taken", "waiting")

    def __init__(self) -> None:
        self.taken = False
        self.sharers = 0
        self.waiting: deque[tuple[asyncio.Future[None], bool]] = deque()

    @property
    def unused(self) -> bool:
        return not (self.taken or self.sharers or self.waiting)

    async def take(self, *, shared: bool) -> None:
        if not self.waiting and self._free_for(shared=shared):
            self._grant(shared=shared)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((turn, shared))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(shared=shared)
            else:
                # It may have been passed over already, by who gave the lock back just now.
                with suppress(ValueError):
                    self.waiting.remove((turn, shared))
                self._pass_on()
            raise

    def give_back(self, *, shared: bool) -> None:
        if shared:
            self.sharers -= 1
        else:
            self.taken = False
        self._pass_on()

    def _free_for(self, *, shared: bool) -> bool:
        return not self.taken and (shared or not self.sharers)

    def _grant(self, *, shared: bool) -> None:
        if shared:
            self.sharers += 1
        else:
            self.taken = True

    def _pass_on(self) -> None:
        while self.waiting and self._free_for(shared=self.waiting[0][1]):
            turn, shared = self.waiting.popleft()
            if not turn.cancelled():
                self._grant(shared=shared)
                turn.set_result(None)


class Held:
    """Locks that somebody has; they are given back once, one by one or all."""

    def __init__(self, table: "LockTable", *, shared: bool) -> None:
        self._table = table
        self._shared = shared
        self._databases: set[str] = set()

    @property
    def databases(self) -> frozenset[str]:
        """The databases whose locks are held now."""
        return frozenset(self._databases)

    def add(self, database: str) -> None:
        """One more is held."""
        self._databases.add(database)

    def release(self, database: str) -> None:
        """Gives one back; nothing happens if that was done before."""
        if database in self._databases:
            self._databases.remove(database)
            self._table.give_back(database, shared=self._shared)

    def release_all(self) -> None:
        """Gives back what is left."""
        for database in list(self._databases):
            self.release(database)


class LockTable:
    """One lock for each database."""

    def __init__(self) -> None:
        self._locks: dict[str, _Lock] = {}

    @property
    def idle(self) -> bool:
        """True while nobody has a lock or waits for one."""
        return not self._locks

    async def take(self, databases: Iterable[str], *, seconds: float, shared: bool = False) -> Held:
        """Takes the locks of databases; raises `TransactionConflict` after `seconds`, with none."""
        held = Held(self, shared=shared)
        wanted: Sequence[str] = sorted(set(databases))
        try:
            async with asyncio.timeout(seconds):
                for database in wanted:
                    await self._take(database, shared=shared)
                    held.add(database)
        except TimeoutError:
            busy = next(name for name in wanted if name not in held.databases)
            held.release_all()
            raise TransactionConflict(
                f"{busy} was held by another transaction for {seconds:.1f} s: nothing was changed, "
                "run the whole transaction again",
                metadata={"database": busy},
            ) from None
        except BaseException:
            held.release_all()
            raise
        return held

    def give_back(self, database: str, *, shared: bool) -> None:
        """For `Held`."""
        lock = self._locks[database]
        lock.give_back(shared=shared)
        if lock.unused:
            del self._locks[database]

    async def _take(self, database: str, *, shared: bool) -> None:
        lock = self._locks.setdefault(database, _Lock())
        try:
            await lock.take(shared=shared)
        finally:
            if lock.unused and self._locks.get(database) is lock:
                del self._locks[database]
