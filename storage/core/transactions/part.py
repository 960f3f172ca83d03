"""One part of a transaction while it lives: who it is, where it stands, when it is over."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from messagehub.errors import HubError
from messagehub.storage.v1.participant_service_pb2 import (
    ParticipantOperation,
    ParticipantState,
    TransactionDecision,
    TransactionHeader,
    TransactionRecord,
)
from messagehub.v1.event_pb2 import Event
from storage.core.operation import Operation
from storage.core.transactions.answers import Answers
from storage.core.transactions.engine_part import Advanced, Step
from storage.core.transactions.states import State, Verb

ON_THE_WIRE = {
    State.OPEN: ParticipantState.PARTICIPANT_STATE_OPEN,
    State.PREPARED: ParticipantState.PARTICIPANT_STATE_PREPARED,
    State.COMMITTED: ParticipantState.PARTICIPANT_STATE_COMMITTED,
    State.ROLLED_BACK: ParticipantState.PARTICIPANT_STATE_ROLLED_BACK,
}
FROM_THE_WIRE = {wire: state for state, wire in ON_THE_WIRE.items()}


@dataclass(slots=True, frozen=True)
class Asked:
    """What a hub asks of a part. `control` bounds it in time, `wait_until` the wait for its turn.

    Times are of the loop's clock. Without a `header` the part must be there.
    """

    transaction_id: str
    header: TransactionHeader | None
    operations: Sequence[ParticipantOperation]
    step: Step
    events: Sequence[Event]
    decision: TransactionDecision | None
    control: Operation
    wait_until: float


@dataclass(slots=True, frozen=True)
class Resolution:
    """How somebody wants a part to end. `error` says why it is rolled back.

    With a `request_id`, the failure is recorded under it as well.
    """

    header: TransactionHeader
    commit: bool
    error: HubError | None = None
    request_id: str = ""
    fingerprint: bytes = b""
    forced: bool = False

    @property
    def verb(self) -> Verb:
        """What that is in the table of transitions."""
        return Verb.FINISH if self.commit else Verb.ROLL_BACK


@dataclass(slots=True, eq=False)
class Part:
    """A part that may write. Calls for it take turns by `turn`.

    `answers` has what operations with a request id gave, so that none is run twice. `advanced` is
    the answer that made it prepared. `doomed` says why somebody rolls it back who did not wait for
    what is under way.
    """

    header: TransactionHeader
    began_at: float
    since_us: int
    answers: Answers
    state: State = State.ABSENT
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    control: Operation | None = None
    waiting: asyncio.Task[object] | None = None
    doomed: HubError | None = None
    advanced: Advanced | None = None
    timer: asyncio.TimerHandle | None = None
    in_doubt: bool = False

    @property
    def begun(self) -> bool:
        """True once it holds the database, also while its first statements run."""
        return self.state is not State.ABSENT or self.control is not None

    def record(self) -> TransactionRecord:
        """What is known of it while it lives."""
        return TransactionRecord(
            header=self.header,
            state=ON_THE_WIRE.get(self.state, ParticipantState.PARTICIPANT_STATE_OPEN),
            update_time_us=self.since_us,
            sequence=self.advanced.sequence if self.advanced else 0,
        )

    def disarm(self) -> None:
        """Stops the clock that it runs against."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def interrupt(self, why: HubError) -> None:
        """Whoever is about to roll back does not wait for what would be undone."""
        if self.control is not None and self.state is not State.PREPARED:
            self.doomed = why
            self.control.cancelled = True
        if self.waiting is not None:
            self.doomed = why
            self.waiting.cancel()
