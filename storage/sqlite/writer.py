"""The writing side of one file: group commit.

A group of operations runs in one transaction, each behind a savepoint, and is made durable by one
commit together with its journal entries. What ends the whole transaction (a full disk, an
interrupted write, a constraint that is only checked at the commit) loses the group's work, not its
callers: the operations then run again, in parts, until the one that fails is alone. Nothing of a
lost attempt was answered or journalled, so running again is safe.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from messagehub.errors import Cancelled, DeadlineExceeded, HubError, PredecessorMissing
from messagehub.schema.ranges import check_version
from messagehub.v1.statement_pb2 import ResultSet
from storage.core.operation import Applied, Operation, Outcome
from storage.core.subscriptions import Change
from storage.core.transactions.engine_part import Whole
from storage.sqlite import failures, journal
from storage.sqlite.changes import Changes
from storage.sqlite.failures import FAILURES
from storage.sqlite.schema import history
from storage.sqlite.statements import Runner, inserts
from storage.sqlite.subscriptions import Subscriptions
from storage.sqlite.transactions.in_group import GroupTransactions


class _GroupLostError(Exception):
    """The transaction is gone; `place` is the operation that took it along, if one did."""

    def __init__(self, place: int | None, error: HubError) -> None:
        super().__init__(error.message)
        self.place = place
        self.error = error


@dataclass(slots=True)
class _Attempt:
    """What one transaction holds so far."""

    sequence: int
    outcomes: list[Outcome] = field(default_factory=list)
    entries: list[journal.Entry] = field(default_factory=list)
    by_id: dict[bytes, journal.Entry] = field(default_factory=dict)

    def add(self, entries: Sequence[journal.Entry]) -> None:
        """Takes lines, whose sequences follow those before."""
        for entry in entries:
            self.sequence = entry.sequence
            self.entries.append(entry)
            if entry.request_id is not None:
                self.by_id[entry.request_id] = entry


def _is_interruption(error: HubError) -> bool:
    """True if an operation had its time: it must not run again, whatever came before it."""
    return isinstance(error, Cancelled | DeadlineExceeded)


def _apart(group: Sequence[Operation], place: int | None) -> list[Sequence[Operation]]:
    """Cuts a lost group around the one that took it along, or in halves if nobody knows it.

    So one bad operation costs its group a few commits more, not one for each of the others.
    """
    edges = (place, place + 1) if place is not None else (len(group) // 2,)
    cuts = pairwise((0, *edges, len(group)))
    return [group[begin:end] for begin, end in cuts if begin < end]


class Writer:
    """Applies groups on the writing connection; every method is called in its thread.

    `clock` gives the time of `Operation.deadline`, `wall_clock_us` microseconds since 1970 UTC.
    At most `subscriptions_max` named subscriptions are kept.
    """

    def __init__(
        self,
        runner: Runner,
        clock: Callable[[], float],
        wall_clock_us: Callable[[], int],
        *,
        database: str,
        group_seconds_max: float,
        subscriptions_max: int,
    ) -> None:
        self._clock = clock
        self._wall_clock_us = wall_clock_us
        self._database = database
        self._group_seconds_max = group_seconds_max
        self._subscriptions_max = subscriptions_max
        position = journal.position(runner.raw)
        self.epoch = position.epoch
        self.sequence = position.sequence
        self.version = history.current(runner.raw)
        self.shape = 0
        self.use(runner)

    def use(self, runner: Runner) -> None:
        """Goes on with another connection to the same file."""
        self._runner = runner
        self._raw = runner.raw
        self._changes = Changes(runner)
        self.subscriptions = Subscriptions(
            self._raw,
            database=self._database,
            epoch=self.epoch,
            wall_clock_us=self._wall_clock_us,
        )
        self._transactions = GroupTransactions(
            self._raw,
            self._changes,
            database=self._database,
            epoch=self.epoch,
            wall_clock_us=self._wall_clock_us,
            version=lambda: self.version,
        )

    @property
    def spent(self) -> bool:
        """True if another connection has to be used from now on; see `Runner.spent`."""
        return self._runner.spent and not self._raw.in_transaction

    def apply(self, group: Sequence[Operation]) -> Applied:
        """Runs a group in one commit, or, if that cannot be, in parts; see `_apart`."""
        applied = Applied(sequence=self.sequence)
        until = self._clock() + self._group_seconds_max
        interrupted: dict[Operation, HubError] = {}
        spent: dict[Operation, float] = {}
        parts = deque([group])
        while parts and not (applied.outcomes and self._clock() >= until):
            part = parts.popleft()
            began = self._clock()
            try:
                done = self._commit_or_give_up(part, until, interrupted.get(part[0]))
            except _GroupLostError as lost:
                parts.extendleft(reversed(_apart(part, lost.place)))
                if lost.place is not None:
                    spent[part[lost.place]] = self._clock() - began
                if lost.place is not None and _is_interruption(lost.error):
                    interrupted[part[lost.place]] = lost.error
                continue
            except HubError:
                if not applied.outcomes:
                    raise
                break  # what is done must be told; the rest has not begun
            for operation, outcome in zip(part, done.outcomes, strict=False):
                outcome.seconds += spent.get(operation, 0.0)
            applied.outcomes += done.outcomes
            applied.events += done.events
            applied.sequence = done.sequence
            if len(done.outcomes) < len(part):
                break
        return applied

    def _commit_or_give_up(
        self, part: Sequence[Operation], until: float, interruption: HubError | None
    ) -> Applied:
        """Raises `_GroupLostError` if there is a smaller part to try."""
        if len(part) == 1 and interruption is not None:
            return self._give_up(part[0], interruption)
        try:
            return self._commit(part, until)
        except _GroupLostError as lost:
            if len(part) > 1:
                raise
            return self._give_up(part[0], lost.error)

    def _commit(self, group: Sequence[Operation], until: float) -> Applied:
        attempt = _Attempt(self.sequence)
        self._begin()
        self._changes.begin()
        try:
            now = self._clock()
            for place, operation in enumerate(group):
                if place and now >= until:
                    break
                outcome = self._run(attempt, place, operation)
                attempt.outcomes.append(outcome)
                began, now = now, self._clock()
                outcome.seconds = now - began
            self._end(attempt)
        finally:
            self._roll_back()
        return self._applied(attempt)

    def _begin(self) -> None:
        try:
            self._raw.execute("BEGIN IMMEDIATE")
        except FAILURES as failure:
            raise failures.translate(failure) from failure

    def _end(self, attempt: _Attempt) -> None:
        """Makes the attempt durable, or leaves nothing of it."""
        self.shape += self._changes.shaped
        try:
            if attempt.entries:
                journal.append(self._raw, attempt.entries)
            self._raw.execute("COMMIT")
        except FAILURES as failure:
            raise _GroupLostError(None, failures.verify(failure)) from failure
        except HubError as failure:
            raise _GroupLostError(None, failure) from failure
        finally:
            self.shape += self._changes.shaped
        self.sequence = attempt.sequence

    def _applied(self, attempt: _Attempt) -> Applied:
        events = [journal.event(e, self.epoch, self._database) for e in attempt.entries]
        for outcome in attempt.outcomes:
            outcome.schema_version = self.version
        return Applied(attempt.outcomes, events, self.sequence)

    def _roll_back(self) -> None:
        """Leaves nothing of a transaction that did not come to its end."""
        if self._raw.in_transaction:
            self._raw.execute("ROLLBACK")

    def _give_up(self, operation: Operation, error: HubError) -> Applied:
        """The operation cannot be done. If it never can, that is its outcome, and is recorded."""
        if not failures.is_permanent(error):
            return Applied([Outcome(error=error)], [], self.sequence)
        attempt = _Attempt(self.sequence)
        self._begin()
        attempt.outcomes.append(self._record(attempt, operation, Outcome(error=error)))
        try:
            self._end(attempt)
        except _GroupLostError as lost:
            return Applied([Outcome(error=lost.error)], [], self.sequence)
        finally:
            self._roll_back()
        return self._applied(attempt)

    def _run(self, attempt: _Attempt, place: int, operation: Operation) -> Outcome:
        if operation.subscription is not None:
            return self._change(attempt, place, operation, operation.subscription)
        try:
            decided = self._decided(attempt, operation)
            if decided is not None:
                return decided
            self._check_predecessor(attempt, operation)
            # Only whoever holds the file as this transaction does changes the version.
            check_version(operation.schema_version, self.version, self._database)
            self._runner.begin(operation, self._runner.limits.write_seconds_max)
            if operation.transaction is not None:
                return self._transact(attempt, operation)
            result = ResultSet()
            if operation.statement is not None:
                if inserts(operation.statement):
                    self._changes.forget_rowid()
                result = self._changes.run_behind_savepoint(operation.statement)
        except HubError as refusal:
            if not self._raw.in_transaction:
                raise _GroupLostError(place, refusal) from refusal
            return self._fail(attempt, operation, refusal)
        except FAILURES as failure:
            failures.verify(failure)
            error = self._explain(operation, failure)
            if not self._raw.in_transaction:
                raise _GroupLostError(place, error) from failure
            return self._fail(attempt, operation, error)
        finally:
            self._runner.end()
        return self._record(attempt, operation, Outcome(result=result))

    def _change(
        self, attempt: _Attempt, place: int, operation: Operation, change: Change
    ) -> Outcome:
        """Changes a named subscription, which leaves no entry in the journal."""
        try:
            if (overdue := operation.overdue(self._clock())) is not None:
                raise overdue
            kept = self.subscriptions.change(
                change, attempt.sequence, count_max=self._subscriptions_max
            )
        except HubError as refusal:
            if not self._raw.in_transaction:
                raise _GroupLostError(place, refusal) from refusal
            return Outcome(error=refusal)
        return Outcome(subscription=kept, sequence=attempt.sequence)

    def _transact(self, attempt: _Attempt, operation: Operation) -> Outcome:
        """Runs a whole transaction, or writes the end of one."""
        outcome, made = self._transactions.run(
            operation, attempt.sequence, lambda request_id: self._line(attempt, request_id)
        )
        attempt.add(made)
        return outcome

    def _decided(self, attempt: _Attempt, operation: Operation) -> Outcome | None:
        """Gives the outcome that is recorded, or that a refusal makes; None = it has to run."""
        known = self._line(attempt, operation.request_id)
        if known is not None:
            return journal.replay(known, operation, self.epoch, self._database)
        if operation.refusal is not None:
            return self._record(attempt, operation, Outcome(error=operation.refusal))
        return None

    def _check_predecessor(self, attempt: _Attempt, operation: Operation) -> None:
        """Raises `PredecessorMissing` unless what the operation follows has an outcome.

        The journal is asked within the transaction, so that both become durable or neither does.
        """
        key = journal.id_bytes(operation.follows)
        if key is None or key in attempt.by_id:
            return
        try:
            found = journal.has(self._raw, key)
        except FAILURES as failure:
            raise failures.verify(failure) from failure
        if not found:
            raise PredecessorMissing(
                f"{self._database} has no record of {operation.follows}, which comes before this "
                "operation: send them again, in their order"
            )

    def _line(self, attempt: _Attempt, request_id: str) -> journal.Entry | None:
        key = journal.id_bytes(request_id)
        if key is None:
            return None
        try:
            return attempt.by_id.get(key) or journal.find(self._raw, key)
        except FAILURES as failure:
            raise failures.verify(failure) from failure

    def _fail(self, attempt: _Attempt, operation: Operation, error: HubError) -> Outcome:
        if failures.is_permanent(error):
            return self._record(attempt, operation, Outcome(error=error))
        return Outcome(error=error)

    def _record(self, attempt: _Attempt, operation: Operation, outcome: Outcome) -> Outcome:
        if isinstance(operation.transaction, Whole) and outcome.error is not None:
            outcome.error.metadata["operation"] = str(self._transactions.place)
            outcome, made = self._transactions.failed(
                operation.transaction, outcome.error, attempt.sequence
            )
            attempt.add(made)
            return outcome
        sequence = attempt.sequence + 1
        attempt.add([journal.entry(operation, outcome, sequence, self._wall_clock_us())])
        outcome.sequence = attempt.sequence
        outcome.event_id = f"{self._database}/{self.epoch}/{attempt.sequence}"
        return outcome

    def _explain(self, operation: Operation, failure: sqlite3.Error | MemoryError) -> HubError:
        if failures.is_interrupt(failure):
            return self._runner.why_interrupted(operation)
        return failures.translate(failure, self._runner.guard)
