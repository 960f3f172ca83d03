"""The port to an engine's side of transactions: what every engine owes a part of one.

**One at a time.** At most one part that may write is open; the core holds the write lane for as
long, so that no other write of this database comes between.

**Atomicity.** What `advance` runs is one local transaction: the data, the lines of the journal and
the record of how it ended are one commit. An operation that fails undoes itself alone while the
part stays open; on the way to PREPARE or COMMIT it undoes the part.

**Prepared means prepared.** After `advance` to PREPARE returned, `commit` works, whatever happens
between: also after a crash, when `recover` has given the part back. What is run again gives what
it gave (time and randomness follow from the header), or the engine raises `EngineLost`.

**The record.** How a transaction ended is written once, with its id, and never changed: a commit
or a roll-back that comes later is answered from it. `look_up` finds it for as long as it is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from messagehub.errors import HubError
from messagehub.storage.v1.backup_service_pb2 import BackedUpDatabase
from messagehub.storage.v1.participant_service_pb2 import (
    ParticipantOperation,
    ParticipantResult,
    TransactionDecision,
    TransactionHeader,
    TransactionRecord,
)
from messagehub.storage.v1.schema_pb2 import SchemaOperation, SchemaReport
from messagehub.v1.event_pb2 import Event
from storage.core.backups.progress import Progress
from storage.core.operation import Applied, Operation


class Step(Enum):
    """How far to take a part."""

    STAY_OPEN = "stay open"
    PREPARE = "prepare"
    COMMIT = "commit"


@dataclass(slots=True)
class Advance:
    """What to do with a part. `control` bounds it in time, and may cancel it.

    `begins` says that the part is not there yet.
    """

    header: TransactionHeader
    begins: bool
    operations: Sequence[ParticipantOperation]
    step: Step
    control: Operation
    events: Sequence[Event] = ()
    decision: TransactionDecision | None = None


@dataclass(slots=True)
class Advanced:
    """How far a part came.

    `applied` is what was committed here. `record` tells how the transaction ended; with `replayed`
    it is that of an earlier one with the same request id, and this one left nothing.
    """

    results: list[ParticipantResult] = field(default_factory=list)
    epoch: str = ""
    sequence: int = 0
    replayed: bool = False
    record: TransactionRecord | None = None
    applied: Applied | None = None
    schema_version: str = ""


@dataclass(slots=True, frozen=True)
class Recovered:
    """A prepared part that outlived the process: held again, as it was."""

    header: TransactionHeader
    advanced: Advanced
    since_us: int


@dataclass(slots=True, frozen=True)
class Ending:
    """The content of an operation that writes down that a transaction is rolled back.

    Its outcome is the record that counts: an earlier one of this transaction or of its request id,
    or else `record`, with `error` as the reason.
    """

    record: TransactionRecord
    error: HubError | None = None
    request_id: str = ""
    fingerprint: bytes = b""


@dataclass(slots=True, frozen=True)
class Whole:
    """The content of an operation that is a whole transaction of one database."""

    header: TransactionHeader
    operations: Sequence[ParticipantOperation]
    events: Sequence[Event]
    decision: TransactionDecision


class Inspected(NamedTuple):
    """An invariant, and why it does not hold; empty = it does."""

    invariant: str
    problem: str


class Snapshot(Protocol):
    """A pinned state of the database, to read from until it is closed."""

    @property
    def sequence(self) -> int:
        """The position in the journal that it shows."""

    async def run(
        self, operations: Sequence[ParticipantOperation], control: Operation
    ) -> list[ParticipantResult]:
        """Runs reading statements; raises the `HubError` of the first that fails."""

    async def size_bytes(self) -> int:
        """The size of the database in this state."""

    async def copy(self, file: Path, progress: Progress) -> BackedUpDatabase:
        """Copies this state into a file, and tells what it holds; it has no name yet."""

    async def inspect(self) -> list[Inspected]:
        """Tells whether the invariants of the database hold in this state."""

    def stop(self) -> None:
        """A copy that is being made ends at its next step; nothing happens if there is none."""

    async def close(self) -> None:
        """Lets it go."""


class TransactionEngine(Protocol):
    """The parts of one open database. Methods are called on the loop, one at a time.

    They raise `EngineLost` when nobody can tell what is on disk.
    """

    async def recover(self) -> Recovered | None:
        """Gives the part that was prepared when the process died, prepared again."""

    async def advance(self, advance: Advance) -> Advanced:
        """Takes the part on. After a `HubError`, `is_open` tells whether it is still there."""

    @property
    def is_open(self) -> bool:
        """True while a part that may write is there."""

    async def commit(self, *, forced: bool) -> Advanced:
        """Commits the prepared part; after a `HubError` it is prepared still.

        `forced` is written into the record: an operator decided, not the home.
        """

    async def roll_back(self) -> None:
        """Undoes the part; a prepared one comes back at the next start unless `forget` follows."""

    async def forget(self) -> None:
        """The prepared part is resolved, and that is on disk."""

    async def look_up(self, transaction_id: str, request_id: str = "") -> TransactionRecord | None:
        """Gives the record of a transaction that ended, by its id or the request id of its call."""

    async def ended(self, limit: int) -> list[TransactionRecord]:
        """Gives the newest records of transactions that ended, without results."""

    async def rehearse(
        self, operations: Sequence[SchemaOperation], control: Operation
    ) -> list[SchemaReport]:
        """Runs changes of the schema in order and leaves nothing; no part is open meanwhile.

        A statement that fails is told in the last report; what else stands against them is raised.
        """

    async def pin(self) -> Snapshot:
        """Pins the state of this moment."""
