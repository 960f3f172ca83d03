"""One database, or all of a server, over scripted engines."""

from typing import Any, Final

from storage.core.database import Database, DatabaseLimits, State
from storage.core.databases import Databases, Upkeep
from storage.core.fair_queue import QueueLimits
from storage.core.following import FollowLimits
from storage.core.read_lanes import ReadLimits
from storage.core.transactions.limits import TransactionLimits
from tests.unit.storage.scripted_engine import Caller, Disk

NEVER: Final = 1e9
TRANSACTION_LIMITS: Final = TransactionLimits(
    seconds_max=1e6,
    idle_seconds_max=1e6,
    in_doubt_seconds=1e6,
    snapshots_max=2,
    answers_bytes_max=1_000_000,
    hold_seconds_max=1e6,
    keep_seconds=1e6,
)


def limits(**more: Any) -> DatabaseLimits:
    defaults: dict[str, Any] = {
        "queue": QueueLimits(100, 1_000_000, 100, 1_000_000, 0.02),
        "reads": ReadLimits(lanes_max=2, stall_seconds=0.0),
        "group_operations_max": 100,
        "queries_max": 2,
        "tail_bytes_max": 100_000,
        "follow": FollowLimits(4, 100_000, 1e6),
        "reopen_seconds": 1e6,
        "transactions": TRANSACTION_LIMITS,
    }
    return DatabaseLimits(**(defaults | more))


class Setting:
    """A database, its disk, its caller, and every change that it told."""

    def __init__(self, **more: Any) -> None:
        self.disk = Disk()
        self.caller = Caller()
        self.told: list[tuple[State, str]] = []
        self.on_change: list[Any] = []
        self.database = Database("items_db", self.disk.make, limits(**more), self._changed)

    def _changed(self, database: Database) -> None:
        assert database is self.database
        self.told.append((database.state, database.detail))
        while self.on_change:
            self.on_change.pop(0)()

    def write(self, *names: str, **more: Any) -> None:
        for name in names:
            self.database.submit(self.caller.operation(name, **more))

    def read(self, *names: str, **more: Any) -> None:
        for name in names:
            self.database.submit(self.caller.read(name, **more))

    @property
    def order(self) -> list[str]:
        """The writes in the order in which they took effect."""
        return [operation.correlation_id for group in self.disk.groups for operation in group]


class Server:
    """Databases over scripted engines, whose upkeep runs when the test says so."""

    def __init__(self, *, open_max: int = 100, trim_rows_max: int = 2, **more: Any) -> None:
        self.disks: dict[str, Disk] = {}
        self.caller = Caller()
        self.told: list[tuple[str, str]] = []
        upkeep = Upkeep(
            databases_open_max=open_max,
            idle_close_seconds=NEVER,
            every_seconds=NEVER,
            journal_age_seconds_max=10.0,
            journal_rows_max=1000,
            trim_rows_max=trim_rows_max,
        )
        self.databases = Databases(
            lambda name: self.disk(name).make(),
            limits(**({"reopen_seconds": NEVER} | more)),
            upkeep,
            lambda: 1000.0,
            self._tell,
        )

    def _tell(self, database: Database) -> None:
        self.told.append((database.name, database.detail))

    def disk(self, name: str) -> Disk:
        return self.disks.setdefault(name, Disk())

    def write(self, *names: str) -> None:
        """Writes to the databases of these names; the operation is named as its database."""
        for name in names:
            self.databases.get(name).submit(self.caller.operation(name))

    def states(self) -> dict[str, State]:
        return {name: self.databases.get(name).state for name in self.disks}
