"""One attempt to deliver the next operations of a queue: what may be sent, what became of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from hub.core.delivery.entries import HUB, Ending, Entry, Queue, State
from hub.core.delivery.inbox import MICROSECONDS, Inbox
from hub.core.delivery.verdict import Verdict, judge
from hub.core.ports import Operation, Outcome
from hub.core.routing.routes import Routes
from messagehub.errors import DeadlineExceeded, HubError, InvalidRoute, RequestIdReused

# How far the clocks of hub and storage servers may be apart.
CLOCKS_APART_US: Final = 60 * MICROSECONDS


class Destination(Protocol):
    """Where operations are delivered to."""

    async def deliver(
        self, operations: Sequence[Operation], seconds: float
    ) -> Sequence[Outcome | HubError]:
        """Executes operations and gives for each its outcome, or the error that it ended with."""


class Reach(Protocol):
    """How far back the journals reach."""

    async def reaches(self, database: str, time_us: int) -> bool:
        """True if the journal still has everything since a time; raises a `HubError`."""


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """The bounds of the delivery; see `HubConfig` for defaults.

    `attempt_seconds` bounds one attempt; it must be longer than a storage server lets a statement
    run, so that it is the storage server that says that one takes too long. `setbacks_max` is how
    often it may say so before the operation has failed.
    """

    attempt_seconds: float
    setbacks_max: int
    retry_seconds_min: float
    retry_seconds_max: float


class Again(NamedTuple):
    """An attempt that decided nothing."""

    failure: HubError
    verdict: Verdict


class Dispatch:
    """Sends claimed operations. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        inbox: Inbox,
        limits: DeliveryLimits,
        *,
        destination: Destination,
        reach: Reach,
        routes: Routes,
        clock: Callable[[], float],
    ) -> None:
        self._inbox = inbox
        self._limits = limits
        self._destination = destination
        self._reach = reach
        self._routes = routes
        self._clock = clock

    async def attempt(self, batch: Sequence[Entry]) -> Sequence[Ending | Again]:
        """Tries the operations of one queue, of which the first is its head.

        Gives what became of the first ones, at least of the head. Those beyond were not sent: one
        of them must not be, and ends when it is the head.
        """
        head = batch[0]
        try:
            obstacle = self._inbox.too_old(head) or self._refusal(head.queue)
            if obstacle is None:
                batch = await self._remembered(batch)
                if not batch:
                    obstacle = _forgotten(head)
            if obstacle is not None:
                return [await self._fail(head, obstacle, sent=head.state is State.RUNNING)]
        except HubError as failure:
            # A question about the operation has no answer yet; it was not sent.
            return [Again(failure, Verdict.REFUSED)]
        return await self._send(batch)

    def _refusal(self, queue: Queue) -> HubError | None:
        """Why nothing of a queue may be sent; the configuration may have changed meanwhile."""
        owner, database = queue
        try:
            if owner != HUB:
                self._routes.resolve_writable(owner, database)
            else:
                self._routes.check_database(database)
        except HubError as refusal:
            return refusal
        return None

    async def _remembered(self, batch: Sequence[Entry]) -> Sequence[Entry]:
        """Gives the first operations that may be sent again; none if the head may not."""
        stale = (place for place, entry in enumerate(batch) if self._inbox.too_old(entry))
        batch = batch[: next(stale, len(batch))]
        if await self._remembers(batch):
            return batch
        return batch[:1] if await self._remembers(batch[:1]) else ()

    async def _remembers(self, batch: Sequence[Entry]) -> bool:
        """True if the journal still knows about all that may have been executed."""
        since = [entry.update_time_us for entry in batch if entry.state is State.RUNNING]
        if not since:
            return True
        return await self._reach.reaches(batch[0].queue.database, min(since) - CLOCKS_APART_US)

    async def _send(self, batch: Sequence[Entry]) -> Sequence[Ending | Again]:
        operations = []
        follows = ""
        for entry in batch:
            operations.append(_operation(entry, follows))
            follows = entry.request_id
        began = self._clock()
        outcomes = await self._destination.deliver(operations, self._limits.attempt_seconds)
        answered = self._clock() - began < self._limits.attempt_seconds
        results: list[Ending | Again] = []
        for entry, outcome in zip(batch, outcomes, strict=True):
            first = all(isinstance(result, Ending) for result in results)
            told = _recorded(entry, outcome)
            if isinstance(told, Ending):
                results.append(told)
                continue
            is_head = entry is batch[0]
            results.append(
                await self._result(entry, told, answered=answered, is_head=is_head, first=first)
            )
        return results

    async def _result(
        self, entry: Entry, outcome: HubError, *, answered: bool, is_head: bool, first: bool
    ) -> Ending | Again:
        verdict = judge(outcome, answered=answered)
        if verdict is Verdict.SETBACK and not is_head:
            # It had only the time that those before it left.
            verdict = Verdict.LATER
        often = verdict is Verdict.SETBACK and entry.setbacks + 1 >= self._limits.setbacks_max
        if verdict is not Verdict.FINAL and not often:
            return Again(outcome, verdict)
        if not first:
            # A line of its failure would let the next ones go before those that it waits for.
            return Again(outcome, Verdict.LATER)
        try:
            return await self._fail(entry, outcome, sent=True)
        except HubError as silence:
            return Again(silence, Verdict.LATER)

    async def _fail(self, entry: Entry, error: HubError, *, sent: bool) -> Ending:
        """Gives the ending of an operation that cannot succeed any more.

        If it was ever sent, the journal has the last word: the failure is recorded there first, or
        what it has instead is the ending. Raises a `HubError` if that cannot be had.
        """
        known = entry.queue.database in self._routes.databases
        # Another operation with its request id bars it as well.
        if sent and known and not isinstance(error, RequestIdReused):
            recorded = await self._bar(entry, error)
            if recorded is not None:
                return recorded
        elif sent and not known:
            error = _out_of_reach(entry)
        return Ending(
            State.FAILED,
            error=error,
            attempts=entry.attempts + int(sent),
            announced=known and entry.queue.owner != HUB,
        )

    async def _bar(self, entry: Entry, error: HubError) -> Ending | None:
        """Has the journal record a failure, after which no copy of the operation is executed.

        Gives what is recorded; None if the storage server takes nothing of the kind, and so no
        copy of it either. All before the operation must have ended.
        """
        if not await self._remembers([entry]):
            error = _forgotten(entry)
        barring = _operation(entry, "")._replace(refusal=error)
        (outcome,) = await self._destination.deliver([barring], self._limits.attempt_seconds)
        told = _recorded(entry, outcome)
        if isinstance(told, Ending):
            return told
        if judge(told, answered=True) is Verdict.FINAL:
            return None
        raise told


def _recorded(entry: Entry, outcome: Outcome | HubError) -> Ending | HubError:
    """Gives the ending that a line in the journal makes, or the error that no line tells of."""
    attempts = entry.attempts + 1
    if not isinstance(outcome, HubError):
        return Ending(State.COMPLETED, outcome.result, sequence=outcome.sequence, attempts=attempts)
    if outcome.recording is None:
        return outcome
    sequence = outcome.recording.sequence
    return Ending(State.FAILED, error=outcome, sequence=sequence, attempts=attempts)


def _operation(entry: Entry, follows: str) -> Operation:
    return Operation(
        database=entry.queue.database,
        read_only=False,
        source_service=entry.source_service,
        correlation_id=entry.correlation_id,
        request_id=entry.request_id,
        content=entry.content,
        submitted=entry.queue.owner != HUB,
        follows=follows,
    )


def _forgotten(entry: Entry) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the operation may have been executed, and the journal of {entry.queue.database} does not "
        "reach back far enough any more to tell: look at the data before you submit it again",
        metadata={"outcome": "unknown"},
    )


def _out_of_reach(entry: Entry) -> InvalidRoute:
    return InvalidRoute(
        f"the operation may have been executed, and {entry.queue.database} is not configured any "
        "more, so nobody can ask it: look at the data before you submit it again",
        metadata={"outcome": "unknown"},
    )
