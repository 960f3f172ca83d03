"""How the hub, its storage server and its databases stand: one board, told to everybody else.

The placement of the databases and the circuits write to it, health and `WatchStatus` read from
it. It never says that something can be used before it was seen to work.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hub.core.circuits.breaker import CircuitState
from hub.core.delivery.inbox import EMPTY, Backlog
from hub.core.transactions.transaction import Record
from messagehub.errors import QueueFull


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """How one database stands; `sequence` is the newest position that the hub has seen.

    `available` and `detail` are what its `storage_server`, an address, says, `circuit` what the
    hub makes of it. `backlog` is what waits for it in the inbox, `epoch` the life of its journal,
    `in_doubt` the transaction that waits in it for its home's decision for too long.
    """

    database: str
    available: bool = False
    detail: str = ""
    storage_server: str = ""
    sequence: int = 0
    schema_version: str = ""
    circuit: CircuitState = CircuitState.CLOSED
    circuit_cause: str = ""
    backlog: Backlog = EMPTY
    epoch: str = ""
    in_doubt: Record | None = None

    @property
    def usable(self) -> bool:
        """True while calls pass."""
        return self.available and self.circuit is CircuitState.CLOSED

    @property
    def obstacle(self) -> str:
        """Why calls do not pass."""
        if self.usable or not self.available:
            return self.detail
        return f"its circuit is {self.circuit.value}: {self.circuit_cause}"


@dataclass(frozen=True, slots=True)
class StorageServerState:
    """How one storage server stands."""

    address: str
    connected: bool = False
    version: str = ""
    engine: str = ""


@dataclass(frozen=True, slots=True)
class HubState:
    """Everything at one moment; `inbox_detail` = why the inbox takes nothing, empty = it does."""

    ready: bool
    storage_servers: tuple[StorageServerState, ...]
    databases: tuple[DatabaseState, ...]
    inbox_detail: str = ""

    @property
    def connected(self) -> bool:
        """True while the hub is connected to at least one storage server."""
        return any(server.connected for server in self.storage_servers)


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

    def __init__(self, *, databases: Iterable[str], changes_max: int, watchers_max: int) -> None:
        self._servers: dict[str, StorageServerState] = {}
        self._databases = {
            name: DatabaseState(name, detail="nothing is known of it yet") for name in databases
        }
        # Apart from the states, because they move with every write.
        self._positions = dict.fromkeys(self._databases, 0)
        self._backlogs = dict.fromkeys(self._databases, EMPTY)
        self._inbox_detail = ""
        self._changes_max = changes_max
        self._watchers_max = watchers_max
        self._watchers: set[_Watcher] = set()
        self._listeners: list[Callable[[HubState], None]] = []
        self._started = False
        self._closed = False

    def snapshot(self) -> HubState:
        """Gives the whole status."""
        servers = tuple(self._servers.values())
        connected = any(server.connected for server in servers)
        # What it cannot promise any more it should not be asked for: another hub can.
        sound = not self._inbox_detail
        ready = self._started and not self._closed and connected and sound
        databases = tuple(self.database(name) for name in self._databases)
        return HubState(ready, servers, databases, self._inbox_detail)

    def database(self, name: str) -> DatabaseState:
        """Gives how one database stands."""
        return replace(
            self._databases[name], sequence=self._positions[name], backlog=self._backlogs[name]
        )

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

    def show(
        self, servers: Sequence[StorageServerState], databases: Sequence[DatabaseState]
    ) -> None:
        """Storage servers and databases stand like this now."""
        for server in servers:
            self._servers[server.address] = server
        known = [state for state in databases if state.database in self._databases]
        for state in known:
            self._put(state)
        self._tell(*servers, *(self.database(state.database) for state in known))

    def circuits(self, changes: Iterable[tuple[str, CircuitState, str]]) -> None:
        """Circuits changed: the database, where its circuit stands, and why."""
        changed = []
        for name, circuit, cause in changes:
            state = replace(self._databases[name], circuit=circuit, circuit_cause=cause)
            self._databases[name] = state
            changed.append(self.database(name))
        self._tell(*changed)

    def saw(self, database: str, sequence: int) -> None:
        """Remembers a journal position; positions alone are not told to watchers."""
        self._positions[database] = max(self._positions[database], sequence)

    def wait_for(self, backlogs: Mapping[str, Backlog]) -> None:
        """So much waits for databases; only watchers are told, of what changed."""
        changed = [name for name, backlog in backlogs.items() if backlog != self._backlogs[name]]
        self._backlogs.update(backlogs)
        self._tell_watchers(*(self.database(name) for name in changed))

    def lose_inbox(self, detail: str) -> None:
        """The inbox takes nothing any more, until the hub is started anew."""
        self._inbox_detail = detail
        self._tell_whole()

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

    def _put(self, state: DatabaseState) -> None:
        """Keeps what the storage server says; the circuit stays as it is."""
        old = self._databases[state.database]
        if state.available:
            # One that cannot use the database may not know its position.
            self._positions[state.database] = state.sequence
        self._databases[state.database] = replace(
            state, circuit=old.circuit, circuit_cause=old.circuit_cause
        )

    def _tell(self, *changes: Change) -> None:
        self._tell_watchers(*changes)
        self._notify()

    def _tell_watchers(self, *changes: Change) -> None:
        for watcher in self._watchers:
            for change in changes:
                watcher.add(change)

    def _tell_whole(self) -> None:
        for watcher in self._watchers:
            watcher.lose_track()
        self._notify()

    def _notify(self) -> None:
        for listener in self._listeners:
            # Anew for each: a listener may have changed it, as circuits do.
            listener(self.snapshot())
