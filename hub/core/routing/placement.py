"""Which storage server serves a database now, by what each of them says of it.

the current one has it ──▶ it stays, whatever the others say
it lost it, or is gone ──▶ the first in configured order that has it
nobody has it          ──▶ one that is at least connected, so that it can say why
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from hub.core.status import DatabaseState, StorageServerState

_log = logging.getLogger(__name__)


class Move(NamedTuple):
    """A database that was served by one storage server is served by another."""

    database: str
    before: str
    after: str


class Placement:
    """Knows what every storage server says, and chooses one for each database.

    `candidates` are the addresses of the storage servers by database, the preferred one first.
    `show` gets the storage servers and the databases that changed; what it learns of a database
    is what its storage server says.
    """

    def __init__(
        self,
        candidates: Mapping[str, Sequence[str]],
        *,
        show: Callable[[Sequence[StorageServerState], Sequence[DatabaseState]], None],
    ) -> None:
        self._candidates = {name: tuple(addresses) for name, addresses in candidates.items()}
        self._show = show
        addresses = dict.fromkeys(one for each in self._candidates.values() for one in each)
        self._servers = {address: StorageServerState(address) for address in addresses}
        self._said: dict[str, dict[str, DatabaseState]] = {address: {} for address in addresses}
        self._current = {name: addresses[0] for name, addresses in self._candidates.items()}
        # By whom a database was served last; nobody yet, as far as this hub has seen.
        self._served_by: dict[str, str] = {}
        self._listeners: list[Callable[[Sequence[Move]], None]] = []
        self._shown = {name: self.state_of(name) for name in self._candidates}
        show(tuple(self._servers.values()), tuple(self._shown.values()))

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every storage server."""
        return tuple(self._servers)

    def databases_of(self, address: str) -> tuple[str, ...]:
        """The databases that a storage server may serve."""
        return tuple(name for name, these in self._candidates.items() if address in these)

    def server_of(self, database: str) -> str:
        """The storage server that a call for a database goes to."""
        return self._current[database]

    def connected(self, address: str) -> bool:
        """True while the hub is connected to a storage server."""
        return self._servers[address].connected

    def listen(self, listener: Callable[[Sequence[Move]], None]) -> None:
        """Calls the listener with the databases that moved; it must not block."""
        self._listeners.append(listener)

    def connect(
        self, address: str, *, version: str, engine: str, databases: Iterable[DatabaseState]
    ) -> None:
        """A storage server answered with all of its databases."""
        server = StorageServerState(address, connected=True, version=version, engine=engine)
        self._servers[address] = server
        self._said[address] = {state.database: state for state in databases}
        self._decide(address, [server])

    def change(self, address: str, databases: Iterable[DatabaseState]) -> None:
        """A storage server says how some databases stand now."""
        self._said[address] |= {state.database: state for state in databases}
        self._decide(address, [])

    def disconnect(self, address: str) -> None:
        """The connection to a storage server is gone."""
        if self._servers[address].connected:
            server = replace(self._servers[address], connected=False)
            self._servers[address] = server
            self._decide(address, [server])

    def state_of(self, database: str) -> DatabaseState:
        """How a database stands, as its storage server says it."""
        return self._state(self._current[database], database)

    def _decide(self, address: str, servers: Sequence[StorageServerState]) -> None:
        changed: list[DatabaseState] = []
        moves: list[Move] = []
        for name in self.databases_of(address):
            self._current[name] = chosen = self._choose(name)
            state = self._state(chosen, name)
            if state != self._shown[name]:
                self._shown[name] = state
                changed.append(state)
            if state.available:
                served_by = self._served_by.get(name, chosen)
                self._served_by[name] = chosen
                if served_by != chosen:
                    moves.append(Move(name, served_by, chosen))
        self._show(servers, changed)
        for move in moves:
            _log.warning("failed over", extra=move._asdict())
        if moves:
            for listener in self._listeners:
                listener(moves)

    def _choose(self, database: str) -> str:
        current = self._current[database]

        def worth(address: str) -> tuple[bool, bool, bool]:
            state = self._state(address, database)
            return state.available, self.connected(address), address == current

        return max(self._candidates[database], key=worth)

    def _state(self, address: str, database: str) -> DatabaseState:
        said = self._said[address].get(database)
        if not self.connected(address):
            return replace(
                said or DatabaseState(database),
                available=False,
                detail=f"the hub is not connected to the storage server at {address}",
                storage_server=address,
            )
        if said is None:
            return DatabaseState(
                database,
                detail=f"the storage server at {address} does not know this database",
                storage_server=address,
            )
        return replace(said, storage_server=address)
