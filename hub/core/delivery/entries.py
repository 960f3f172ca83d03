"""What the inbox holds, operations accepted for later delivery, and the ports to where it is kept.

    QUEUED ──claimed──▶ RUNNING ──outcome──▶ COMPLETED | FAILED
      │ ▲                  │
      │ └── never sent ────┘
      ├── taken back ──▶ CANCELLED
      └── too old ─────▶ FAILED

RUNNING is on disk before an operation can leave the hub. So what is QUEUED on disk was never sent,
by this process or by an earlier one, and may be taken back; what is RUNNING may have been executed.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from messagehub.errors import HubError, OperationNotCancellable, RequestIdReused

# The owner of what the hub sends on its own account. No service can have this name.
HUB: Final = ""


class State(Enum):
    """Where an operation stands; the numbers are those on disk and on the wire."""

    QUEUED = 1
    RUNNING = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5


class Queue(NamedTuple):
    """What is delivered in order: the operations of one owner for one database."""

    owner: str
    database: str


class Submission(NamedTuple):
    """An operation on its way into the inbox.

    `content` is a statement or an event, `size` what it takes in the inbox, in bytes.
    `source_service` is the source of the event that it leaves.
    """

    queue: Queue
    source_service: str
    correlation_id: str
    request_id: str
    content: Any
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An operation in the inbox; `content` is there until it has ended.

    `position` tells the order of acceptance. `size` is what it takes on disk, in bytes.
    `setbacks` counts the attempts that the database answered without having done it. Times are
    microseconds since 1970; `update_time_us` is that of the last change of its state.
    """

    position: int
    queue: Queue
    source_service: str
    correlation_id: str
    request_id: str
    content: Any
    size: int
    state: State
    attempts: int
    setbacks: int
    sequence: int
    result: Any
    error: HubError | None
    create_time_us: int
    update_time_us: int


class Written(NamedTuple):
    """An operation as it is on disk; `replayed` if it was so before."""

    entry: Entry
    replayed: bool


class Ending(NamedTuple):
    """How an operation ended. `announced` = the database's journal does not tell of its failure,
    so the inbox sends an event that does."""

    state: State
    result: Any = None
    error: HubError | None = None
    sequence: int = 0
    attempts: int = 0
    announced: bool = False


class Selection(NamedTuple):
    """Which operations of an owner a page has: `database` "" = any, no `states` = any.

    `before` is the position that the page ends before; None = from the newest.
    """

    owner: str
    database: str
    states: Collection[State]
    before: int | None


class Kept(NamedTuple):
    """How many operations, and of how many bytes."""

    operations: int
    size: int


class Waiting(NamedTuple):
    """What waits in one queue."""

    queue: Queue
    operations: int
    size: int


class Sweep(NamedTuple):
    """What is too old or too much.

    QUEUED operations accepted before `expire_before_us` fail with `error`. Of those that have
    ended, what ended before `forget_before_us` is forgotten, and the oldest beyond `kept_max`.
    Each at most `operations_max` at a time.
    """

    queues: Collection[Queue]
    expire_before_us: int
    error: HubError
    forget_before_us: int
    kept_max: Kept
    operations_max: int


class Swept(NamedTuple):
    """What a sweep did: operations that failed, events that tell of them, how many it forgot."""

    expired: Sequence[Entry]
    announced: Sequence[Entry]
    forgotten: int


class Records(Protocol):
    """The inbox on disk, as callers use it. Everything is on disk when a method returns."""

    async def accept(self, submission: Submission, *, now_us: int, room: bool) -> Written | None:
        """Keeps an operation; None if it is not known and there is no room for it.

        Raises `RequestIdReused` when its owner used the request id for something else.
        """

    async def cancel(self, owner: str, request_id: str, *, now_us: int) -> Written | None:
        """Takes a QUEUED operation back; None if it is not known. A CANCELLED one stays so.

        Raises `OperationNotCancellable` for any other.
        """

    async def find(self, owner: str, request_id: str) -> Entry | None:
        """Gives an operation."""

    async def page(
        self, selection: Selection, *, operations_max: int, bytes_max: int
    ) -> tuple[Sequence[Entry], bool]:
        """Gives operations, newest first, and whether there are more.

        Ends before results of `bytes_max` are exceeded, but gives at least one operation.
        """

    async def waiting(self) -> Sequence[Waiting]:
        """Tells what waits, by queue."""

    async def oldest_us(self, queues: Collection[Queue]) -> int | None:
        """When the oldest of what waits in these queues was accepted; None if nothing does."""


class Deliveries(Protocol):
    """The inbox on disk, as the delivery uses it. Everything is on disk when a method returns."""

    async def claim(
        self, queue: Queue, *, operations_max: int, bytes_max: int, now_us: int
    ) -> Sequence[Entry]:
        """Makes the next operations of a queue RUNNING and gives them as they were before.

        So one that comes as RUNNING may have been sent before. Gives at least one if there is any.
        """

    async def postpone(
        self, untried: Sequence[Entry], tried: Sequence[Entry], *, setback: bool, now_us: int
    ) -> None:
        """Makes `untried`, which was never begun, QUEUED again, and counts an attempt of `tried`.

        `setback` is held against the first of `tried`.
        """

    async def finish(
        self, ended: Sequence[tuple[Entry, Ending]], *, now_us: int
    ) -> Sequence[Entry]:
        """Records how RUNNING operations ended; gives the events that announce it, if any.

        What the hub sent on its own account is forgotten instead.
        """

    async def sweep(self, sweep: Sweep, *, now_us: int) -> Swept:
        """Fails and forgets what is too old."""


class Store(Records, Deliveries, Protocol):
    """All of the inbox on disk."""


def reused(request_id: str) -> RequestIdReused:
    """Why an operation is refused whose request id its owner used for another one."""
    return RequestIdReused(
        f"the request_id {request_id} was used before for another operation: use a new id for "
        "new content",
        fields={"request_id": "was used before with other content"},
    )


def check_cancellable(request_id: str, state: State) -> None:
    """Raises `OperationNotCancellable` unless an operation has not been sent, and never will be."""
    if state not in (State.QUEUED, State.CANCELLED):
        raise OperationNotCancellable(
            f"the operation {request_id} is {state.name}: only what is QUEUED can be taken back",
            metadata={"state": state.name},
        )
