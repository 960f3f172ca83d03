"""What a transaction is made of, as the hub and the participants speak of it."""

from enum import Enum
from typing import Any, Final, NamedTuple

from messagehub.errors import HubError, InvalidRequest

SEPARATOR: Final = "/"


class Header(NamedTuple):
    """A transaction, as every participant is told of it.

    `databases` are all participants, sorted; the last of them is the home, whose local commit
    decides. `create_time_us` (microseconds since 1970) and `seed` are all that its statements
    learn of time and chance. `idle_seconds` and `seconds` are its limits.
    """

    transaction_id: str
    source_service: str
    correlation_id: str
    databases: tuple[str, ...]
    create_time_us: int
    seed: bytes
    home_epoch: str
    read_only: bool
    idle_seconds: float
    seconds: float

    @property
    def home(self) -> str:
        """The participant whose commit decides."""
        return self.databases[-1]

    @property
    def others(self) -> tuple[str, ...]:
        """The participants that are prepared before the home decides."""
        return self.databases[:-1]


class PartOperation(NamedTuple):
    """One statement, or one change of the schema.

    `place` is where it stands in the caller's request, `request_id` its name.

    `read_only` = the calling service may only read this database.
    """

    place: int
    request_id: str
    read_only: bool
    schema_version: str
    statement: Any


class Work(NamedTuple):
    """What a transaction does in one database: statements in this order, and events."""

    operations: tuple[PartOperation, ...] = ()
    events: tuple[Any, ...] = ()


class PartResult(NamedTuple):
    """What a statement gave; `sequence` is the transaction's position in the journal."""

    place: int
    database: str
    sequence: int
    result: Any


class PreparedPart(NamedTuple):
    """A participant that can commit whatever happens, and where its journal will have it."""

    database: str
    epoch: str
    sequence: int


class Decision(NamedTuple):
    """What the home decides on, and what it keeps with its decision."""

    request_id: str
    fingerprint: bytes
    participants: tuple[PreparedPart, ...]
    results: tuple[PartResult, ...]


class Step(Enum):
    """How far a part is taken."""

    STAY_OPEN = "stay open"
    PREPARE = "prepare"
    COMMIT = "commit"


class Advance(NamedTuple):
    """Takes one part on; with a `header` it may begin here, without one it must be there."""

    database: str
    transaction_id: str
    correlation_id: str
    header: Header | None
    work: Work
    step: Step
    wait_seconds: float
    decision: Decision | None = None


class PartState(Enum):
    """Where a part stands, or how the transaction ended there."""

    OPEN = "open"
    PREPARED = "prepared"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"


class Record(NamedTuple):
    """What one database knows of a transaction.

    `update_time_us` is since when it stands so. `participants` and `results` are a home's.
    """

    header: Header
    state: PartState
    update_time_us: int = 0
    sequence: int = 0
    error: HubError | None = None
    participants: tuple[PreparedPart, ...] = ()
    results: tuple[PartResult, ...] = ()
    forced: bool = False


class Advanced(NamedTuple):
    """How far a part is now.

    `replayed` = the request id was recorded before, nothing was committed, and `record` is what
    happened then.
    """

    results: tuple[PartResult, ...]
    epoch: str
    sequence: int
    schema_version: str = ""
    replayed: bool = False
    record: Record | None = None


class Resolution(NamedTuple):
    """Ends a part; `commit` False asks a home for its decision, and makes there be one.

    With a `request_id` the `error` is recorded under it.
    """

    database: str
    commit: bool
    header: Header
    error: HubError | None = None
    request_id: str = ""
    fingerprint: bytes = b""
    forced: bool = False


class Resolved(NamedTuple):
    """How a transaction ended in truth; `replayed` is what the request id stands for instead."""

    record: Record
    replayed: Record | None = None


class State(Enum):
    """Where a transaction stands, as its caller is told."""

    ACTIVE = "active"
    PREPARING = "preparing"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    IN_DOUBT = "in doubt"


class Standing(NamedTuple):
    """A transaction and where it stands, since `update_time_us`.

    `waiting_for` are the databases whose answer an in-doubt transaction needs.
    """

    header: Header
    state: State
    update_time_us: int
    error: HubError | None = None
    waiting_for: tuple[str, ...] = ()


def transaction_id(home: str, unique: str) -> str:
    """Names a transaction, so that whoever has the name finds the home."""
    return f"{home}{SEPARATOR}{unique}"


def home_of(name: str) -> str:
    """Gives the home of a transaction; raises `InvalidRequest` for what names none."""
    home, separator, unique = name.partition(SEPARATOR)
    if not (home and separator and unique):
        what = "must be the transaction_id of an answer"
        raise InvalidRequest(f"transaction_id {what}", fields={"transaction_id": what})
    return home
