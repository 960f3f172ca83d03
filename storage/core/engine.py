"""The port to a database engine: what every engine owes the core.

**Atomicity.** An operation happens wholly or not at all, whatever its statement does, and its
journal entry (sequence, request id, outcome, event) is part of the same commit. One operation
that fails leaves the others of its group alone.

**Durability.** `apply` returns after the commit is on disk (fsync). An outcome that it returned
survives the loss of power.

**Exactly once.** An operation whose request id is in the journal is not run: its recorded outcome
is given, `replayed`; or `RequestIdReused` if its content differs. Failures that will not go away
by themselves are recorded too; transient ones (deadline, limits, full disk) are not.

**Order.** Operations of a group take effect in the order of the group; sequences grow in that
order, and none is used twice within an epoch. One that follows another is run only if the journal,
with what this commit adds to it, has the request id of that other; else it is `PredecessorMissing`
and leaves nothing. One that is recorded itself is replayed all the same.

**Interruption.** A statement whose operation is overdue or cancelled ends within 100 ms, and the
connection stays usable.

**Named subscriptions.** A change of one is durable like any operation, but it is no event. What
they have not acknowledged, `trim` does not forget while they are within their limits.

**Schema versions.** An operation that is written for a range of them is checked within its own
transaction, and is `SchemaMismatch` outside of it. A change of the schema is one commit with its
line in the history and its events.

**Confinement.** A statement reaches nothing but its own database: no other file, no setting, no
transaction control, nothing of the engine's own tables.

**Errors** are classes of `messagehub.errors`. `EngineLost` means that the engine must not be used
any more.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from messagehub.errors import DatabaseUnavailable
from messagehub.storage.v1.storage_service_pb2 import DescribeSchemaResponse
from messagehub.v1.event_pb2 import Event
from messagehub.v1.statement_pb2 import ResultSet, Statement
from storage.core.operation import Applied, Operation, Outcome, Position
from storage.core.subscriptions import Standing
from storage.core.transactions.engine_part import TransactionEngine


class EngineLost(Exception):
    """The engine cannot vouch for its data any more; it is fenced until it is restarted.

    `error` is what callers are told from now on.
    """

    def __init__(self, error: DatabaseUnavailable) -> None:
        super().__init__(error.message)
        self.error = error


class Access(Enum):
    """What a statement needs."""

    READ = "a reader"
    WRITE = "the writer"
    UNSURE = "a reader, and the writer if the reader says so"


@dataclass(slots=True, frozen=True)
class Recorded:
    """What the journal has of one request id."""

    source_service: str
    correlation_id: str
    query: str
    time_us: int
    submitted: bool
    outcome: Outcome


@dataclass(slots=True, frozen=True)
class Trimmed:
    """How many entries were forgotten, and the oldest position that a follower may name now.

    `cut_off` are the named subscriptions that lost entries by it.
    """

    rows: int
    oldest_sequence: int
    cut_off: Sequence[Standing] = ()


class Engine(Protocol):
    """One open database. Methods are called on the loop; at most one `apply` is under way.

    While a part of a transaction is open that may write, no `apply` or `trim` is.
    """

    @property
    def transactions(self) -> TransactionEngine:
        """Its parts in transactions, once it is open."""

    async def open(self) -> Position:
        """Takes ownership of the database, recovers it, and says where its journal stands.

        Raises `DatabaseUnavailable` if another process owns it or it cannot be opened, and
        `DatabaseCorrupt` if it is damaged.
        """

    async def close(self) -> None:
        """Ends every connection and gives ownership up. May be called after a failed `open`."""

    def access(self, statement: Statement) -> Access:
        """Tells where a statement belongs; a hint for speed, never what safety rests on."""

    async def apply(self, group: Sequence[Operation]) -> Applied:
        """Runs operations in order, in one commit where possible, until the group's time is over.

        Raises `EngineLost` when the commit can be neither confirmed nor denied, also because the
        database's files were taken away meanwhile.
        """

    async def drain(
        self,
        lane: int,
        take: Callable[[], Operation | None],
        deliver: Callable[[Operation, Outcome | None], None],
    ) -> None:
        """Runs what `take` gives on reader number `lane` until it gives None.

        `take` and `deliver` are called in a thread. Everything that was taken is delivered, also
        when the reader fails. An outcome of None says that the operation needs the writer.
        """

    def pages(self, operation: Operation, page_rows: int) -> AsyncGenerator[ResultSet, None]:
        """Streams the rows of a reading statement from one snapshot; close it to stop the work."""

    async def journal(self, after_sequence: int, limit: int) -> list[Event]:
        """Gives at most `limit` events after a position, in order; fewer if they are large.

        Raises `CursorExpired` if some of them are forgotten.
        """

    async def recorded(self, request_id: str) -> Recorded | None:
        """Gives what the journal has of a request id."""

    async def schema(self) -> DescribeSchemaResponse:
        """Tells the schema as it is, and how it came to be, of one moment."""

    async def trim(self, *, older_than_us: int, keep_rows: int, at_most: int) -> Trimmed:
        """Forgets old journal entries, at most so many of them.

        Never forgets the newest entry, so that sequences are never used twice. Named subscriptions
        that are too far behind to be waited for are marked as cut off in the same commit. Raises
        `EngineLost` if the database's files were taken away.
        """

    async def subscriptions(self, source_service: str, name: str) -> list[Standing]:
        """Tells how the named subscriptions of a service stand, or the one with this name."""

    async def restored_by(self) -> str:
        """Names the restore that made the database; empty = none did."""

    async def adopt(self, file: Path) -> list[str]:
        """Replaces an empty database by a copy of `file`; gives the tables that it now holds.

        The journal goes on where it stands, in the same epoch, with every event, recorded outcome
        and named subscription. A process that dies meanwhile leaves the one or the other.

        Raises `DatabaseNotEmpty` if it holds tables, `InvalidRequest` if the file is no database
        with tables, `StorageFull` if both together are over the size limit.
        """
