"""What the core asks of a storage server, and the little that it looks at in the answers."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, NamedTuple, Protocol

from messagehub.errors import HubError


class Operation(NamedTuple):
    """One operation for one database.

    `content` is a statement, alone or with the schema versions that it is written for, or an event.

    `submitted` = it came through the inbox: it is recorded also if it only reads. `follows` is the
    request id of the operation that must have an outcome first, empty = none. With a `refusal` it
    is not executed: that is recorded as its outcome, unless it has one already.
    """

    database: str
    read_only: bool
    source_service: str
    correlation_id: str
    request_id: str
    content: Any
    submitted: bool = False
    follows: str = ""
    refusal: HubError | None = None


class Outcome(Protocol):
    """What an operation gave; `result` passes through unseen."""

    @property
    def sequence(self) -> int:
        """The position in the database's journal."""

    @property
    def schema_version(self) -> str:
        """The database's schema version."""

    @property
    def replayed(self) -> bool:
        """True if it is a recorded outcome."""

    @property
    def event_id(self) -> str:
        """The id of the event that a write left."""

    @property
    def result(self) -> Any:
        """The result set."""


class Reading(NamedTuple):
    """One reading statement for one database."""

    database: str
    source_service: str
    correlation_id: str
    statement: Any
    page_size: int


class Page(Protocol):
    """A page of rows; `result` passes through unseen."""

    @property
    def sequence(self) -> int:
        """A position in the database's journal that the snapshot includes."""

    @property
    def schema_version(self) -> str:
        """The database's schema version."""

    @property
    def result(self) -> Any:
        """The columns and the rows."""


class Adoption(NamedTuple):
    """A SQLite file on its way into an empty database."""

    database: str
    correlation_id: str
    size_bytes: int
    checksum: str
    chunks: AsyncIterator[bytes]


class Rehearsal(NamedTuple):
    """Changes of the schema of one database that are run, reported, and leave nothing."""

    database: str
    source_service: str
    correlation_id: str
    operations: Sequence[Any]


class Recorded(NamedTuple):
    """A write as its database remembers it; either `result` or `error` is set.

    `time_us` is when it was executed, in microseconds since 1970.
    """

    source_service: str
    correlation_id: str
    time_us: int
    sequence: int
    result: Any
    error: HubError | None


class Operations(Protocol):
    """Executes operations, many at a time."""

    async def run(
        self, operations: Sequence[Operation], seconds: float
    ) -> Sequence[Outcome | HubError]:
        """Gives one outcome or error for each operation, in their order.

        Takes at most `seconds`; what has no outcome by then is a `DeadlineExceeded`. A caller
        that is cancelled meanwhile withdraws its operations.
        """


class Storage(Protocol):
    """What a storage server does beside operations."""

    def query(self, reading: Reading, seconds: float) -> AsyncGenerator[Page]:
        """Streams pages; closing the generator stops the work. Raises a `HubError`."""

    async def look_up(
        self, database: str, request_id: str, *, correlation_id: str, seconds: float
    ) -> Recorded | None:
        """Gives what became of a write; None if nothing is recorded. Raises a `HubError`."""

    async def describe_schema(self, database: str, *, correlation_id: str, seconds: float) -> Any:
        """Tells the version, the history and the shape of a database. Raises a `HubError`."""

    async def rehearse_schema(self, rehearsal: Rehearsal, seconds: float) -> Sequence[Any]:
        """Gives a report for each change that was run. Raises a `HubError`."""

    async def adopt(self, adoption: Adoption, seconds: float) -> Sequence[str]:
        """Fills an empty database, all or nothing, and names its tables. Raises a `HubError`."""
