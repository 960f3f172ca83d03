"""What the core moves: an operation in, its outcome out."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from messagehub.errors import Cancelled, DeadlineExceeded, HubError
from messagehub.v1.event_pb2 import Event
from messagehub.v1.statement_pb2 import ResultSet, Statement
from storage.core.subscriptions import Change, Subscription

if TYPE_CHECKING:
    from storage.core.transactions.engine_part import Advanced, Ending, Whole

NO_SEQUENCE: Final = 0


@dataclass(slots=True)
class Outcome:
    """What became of one operation: a result or an error.

    `subscription` is what is kept after a change of one, None where it is gone; `advanced` what
    became of a transaction; `seconds` how long it held the writer.
    """

    result: ResultSet | None = None
    error: HubError | None = None
    sequence: int = NO_SEQUENCE
    schema_version: str = ""
    replayed: bool = False
    event_id: str = ""
    subscription: Subscription | None = None
    advanced: "Advanced | None" = None
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Operation:
    """One statement or event for one database; `deliver` is called exactly once, on the loop.

    A change of a named `subscription` comes the same way, so that it shares the commit of what is
    being written; it leaves no journal entry. So do a whole `transaction` of this one database, and
    the end of one that is rolled back. A `submitted` operation is recorded even if it only reads.
    One that `follows` a request id is not run before the journal has that. One with a `refusal` is
    not run at all: that failure is recorded as its outcome, unless it has one. `schema_version` is
    the range that a statement is written for, empty = any. `deadline` is a time of the loop's
    clock. `cancelled` may be set from the loop while a thread runs the operation.
    """

    source_service: str
    correlation_id: str
    request_id: str
    deadline: float
    deliver: Callable[[Outcome], None]
    statement: Statement | None = None
    event: Event | None = None
    subscription: Change | None = None
    transaction: "Whole | Ending | None" = None
    read_only: bool = False
    submitted: bool = False
    follows: str = ""
    refusal: HubError | None = None
    schema_version: str = ""
    size_bytes: int = 0
    cancelled: bool = False

    def answer(self, outcome: Outcome) -> None:
        """Delivers an outcome; a defect of the receiver goes to the loop's exception handler."""
        try:
            self.deliver(outcome)
        except Exception as defect:  # noqa: BLE001 - others wait for their outcomes behind this one
            asyncio.get_running_loop().call_exception_handler(
                {"message": "an outcome could not be delivered", "exception": defect}
            )

    def refuse(self, error: HubError) -> None:
        """Delivers an error."""
        self.answer(Outcome(error=error))

    def overdue(self, now: float) -> HubError | None:
        """Why the operation must not run, or run on, at `now`; None while it may."""
        if self.cancelled:
            return Cancelled("the caller went away before the operation was done")
        if now >= self.deadline:
            return DeadlineExceeded(
                "the time for this operation is over: set a longer deadline, or do less in one call"
            )
        return None


@dataclass(slots=True)
class Applied:
    """What a group commit did: outcomes for the first operations of the group, and their events.

    Operations beyond `len(outcomes)` were not begun. `schema_version` is the one that it led to,
    None = it did not change.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    sequence: int = NO_SEQUENCE
    schema_version: str | None = None


@dataclass(slots=True, frozen=True)
class Position:
    """Where a journal stands."""

    epoch: str
    sequence: int
    oldest_sequence: int
    schema_version: str


async def ask(submit: Callable[[Operation], None], operation: Operation) -> Outcome:
    """Submits an operation and waits for its outcome; marks it cancelled when the waiter goes."""
    waiting: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def deliver(outcome: Outcome) -> None:
        if not waiting.done():
            waiting.set_result(outcome)

    operation.deliver = deliver
    submit(operation)
    try:
        return await waiting
    except asyncio.CancelledError:
        operation.cancelled = True
        raise
