"""How the hub, its storage server and its databases stand: one board, told to everybody else.

The storage adapter writes to it, health and `WatchStatus` read from it. It never says that
something can be used before it was seen to work.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from messagehub.errors import QueueFull


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """How one database stands; `sequence` is the newest position that the hub has seen."""

    database: str
    available: bool = False
    detail: str = ""
    sequence: int = 0
    schema_version: str = ""


@dataclass(frozen=True, slots=True)
class StorageServerState:
    """How the storage server stands."""

    address: str
    connected: bool = False
    version: str = ""
    engine: str = ""


@dataclass(frozen=True, slots=True)
class HubState:
    """Everything at one moment."""

    ready: bool
    storage_server: StorageServerState
    databases: tuple[DatabaseState, ...]


Change = HubState | StorageServerState | DatabaseState


class _Watcher:
    """The changes that one watch has not taken yet; past its bound, only that there are some."""

    def __init__(self, changes_max: int) -> None:
        self.changes: deque[Change] = deque()
        self.behind = True
        self.wake = asyncio.Event()
        self._changes_max = changes_max

    def add(self, change: Change) -> None:
        if len(self.changes) < self._changes_max:
            self.changes.append(change)
        else:
            self.lose_track()
        self.wake.set()

    def lose_track(self) -> None:
        self.changes.clear()
        self.behind = True
        self.wake.set()


class StatusBoard:
    """The newest status, its watchers and its listeners.

    `changes_max` bounds the changes that wait for one watcher, `watchers_max` the watchers. A
    listener is called at once on every change, with the whole status; it must not block.
    """

    def __init__(
        self, *, address: str, databases: Iterable[str], changes_max: int, watchers_max: int
    ) -> None:
        self._server = StorageServerState(address)
        self._databases = {
            name: DatabaseState(name, detail=self._disconnected_detail()) for name in databases
        }
        # Apart from the states, because they move with every write.
        self._positions = dict.fromkeys(self._databases, 0)
        self._changes_max = changes_max
        self._watchers_max = watchers_max
        self._watchers: set[_Watcher] = set()
        self._listeners: list[Callable[[HubState], None]] = []
        self._started = False
        self._closed = False

    @property
    def connected(self) -> bool:
        """True while the hub is connected to the storage server."""
        return self._server.connected

    @property
    def storage_address(self) -> str:
        """Where the storage server is."""
        return self._server.address

    def snapshot(self) -> HubState:
        """Gives the whole status."""
        ready = self._started and not self._closed and self._server.connected
        states = self._databases.values()
        databases = tuple(replace(s, sequence=self._positions[s.database]) for s in states)
        return HubState(ready, self._server, databases)

    def listen(self, listener: Callable[[HubState], None]) -> None:
        """Calls the listener now and on every change."""
        self._listeners.append(listener)
        listener(self.snapshot())

    def start(self) -> None:
        """The hub takes calls from now on."""
        self._started = True
        self._tell_whole()

    def close(self) -> None:
        """The hub is not ready any more; every watch gets the status once more and ends."""
        self._closed = True
        self._tell_whole()

    def connect(self, *, version: str, engine: str, databases: Sequence[DatabaseState]) -> None:
        """The storage server answered with all of its databases."""
        told = {state.database: state for state in databases}
        for name in self._databases:
            silent = DatabaseState(name, detail="the storage server does not know this database")
            self._databases[name] = told.get(name, silent)
            self._positions[name] = self._databases[name].sequence
        self._server = StorageServerState(
            self._server.address, connected=True, version=version, engine=engine
        )
        self._tell(self._server, *self._databases.values())

    def change(self, databases: Sequence[DatabaseState]) -> None:
        """The storage server says how some databases stand now."""
        known = [state for state in databases if state.database in self._databases]
        for state in known:
            self._databases[state.database] = state
            self._positions[state.database] = state.sequence
        self._tell(*known)

    def disconnect(self) -> None:
        """The connection to the storage server is gone, and with it every database."""
        if not self._server.connected:
            return
        self._server = replace(self._server, connected=False)
        detail = self._disconnected_detail()
        for name, state in self._databases.items():
            self._databases[name] = replace(
                state, available=False, detail=detail, sequence=self._positions[name]
            )
        self._tell(self._server, *self._databases.values())

    def saw(self, database: str, sequence: int) -> None:
        """Remembers a journal position; positions alone are not told to watchers."""
        self._positions[database] = max(self._positions[database], sequence)

    async def watch(self) -> AsyncIterator[Change]:
        """Gives the whole status first, then each change from exactly there.

        A watcher that falls behind by more than the bound gets the whole status again instead.
        Raises `QueueFull` when there are too many watchers.
        """
        if len(self._watchers) >= self._watchers_max:
            raise QueueFull(
                f"{self._watchers_max} callers watch the status already: call GetStatus instead",
                metadata={"limit": str(self._watchers_max)},
            )
        watcher = _Watcher(self._changes_max)
        self._watchers.add(watcher)
        try:
            while True:
                if watcher.behind:
                    watcher.behind = False
                    watcher.changes.clear()
                    yield self.snapshot()
                elif watcher.changes:
                    yield watcher.changes.popleft()
                elif self._closed:
                    return
                else:
                    watcher.wake.clear()
                    await watcher.wake.wait()
        finally:
            self._watchers.discard(watcher)

    def _disconnected_detail(self) -> str:
        return f"the hub is not connected to the storage server at {self._server.address}"

    def _tell(self, *changes: Change) -> None:
        for watcher in self._watchers:
            for change in changes:
                watcher.add(change)
        self._notify()

    def _tell_whole(self) -> None:
        for watcher in self._watchers:
            watcher.lose_track()
        self._notify()

    def _notify(self) -> None:
        state = self.snapshot()
        for listener in self._listeners:
            listener(state)
