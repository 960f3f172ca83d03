"""Which calls the hub sends again by itself, how soon, and how many of them.

It bridges what is over in a moment: a connection that broke, a database that was just reopened.
The budget keeps that from becoming the outage: retries are a small part of the calls, whatever
happens, and when it is used up, callers learn of the failure at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from hub.core.backoff import Backoff
from messagehub.errors import (
    CircuitOpen,
    DatabaseUnavailable,
    HubError,
    PredecessorMissing,
    QueueFull,
    ShuttingDown,
    StorageUnavailable,
)

Answer = TypeVar("Answer")

_PASSING: Final = (StorageUnavailable, DatabaseUnavailable, ShuttingDown)
# What only says that this attempt was not even begun.
_NOT_BEGUN: Final = (CircuitOpen, PredecessorMissing, QueueFull)
# A failure with this in its metadata came after the operation had left: it may have been executed.
UNKNOWN_OUTCOME: Final = "request_id"


def may_pass(outcome: object) -> bool:
    """True for a failure after which the same call may succeed in a moment."""
    return isinstance(outcome, _PASSING)


def to_tell(first: HubError, later: Answer | HubError) -> Answer | HubError:
    """Gives what a caller is told after both: an unknown outcome must not look like none."""
    if isinstance(later, _NOT_BEGUN):
        return first
    unknown = UNKNOWN_OUTCOME in first.metadata
    return first if unknown and may_pass(later) else later


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """The bounds of the hub's own retries; see `HubConfig` for defaults. Times are in seconds.

    `attempts_max` counts the first one too. A database's budget grows by `budget_share` with every
    call and by `budget_per_second` with time, up to `budget_max`; every retry costs 1.
    """

    attempts_max: int
    seconds_min: float
    seconds_max: float
    budget_share: float
    budget_per_second: float
    budget_max: float


class RetryBudget:
    """How many retries one database has left; full at the beginning.

    `clock` gives monotonic seconds, `calls` how many calls the database has had. Both are only
    looked at when a retry is wanted, so that a call that succeeds costs nothing here.
    """

    def __init__(
        self, limits: RetryLimits, *, clock: Callable[[], float], calls: Callable[[], int]
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._calls = calls
        self._left = limits.budget_max
        self._seen_calls = calls()
        self._seen_at = clock()

    def take(self) -> bool:
        """Pays for one retry; False if there is nothing left."""
        calls, now = self._calls(), self._clock()
        earned = (calls - self._seen_calls) * self._limits.budget_share
        earned += (now - self._seen_at) * self._limits.budget_per_second
        self._seen_calls, self._seen_at = calls, now
        self._left = min(self._limits.budget_max, self._left + earned)
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def give_back(self) -> None:
        """A retry that was paid for never left the hub."""
        self._left += 1.0


class Attempts:
    """The retries of one call: at most `attempts_max` attempts with the first one, each retry after
    a longer delay, all of them before `deadline`, which is a time of `clock`.

    `random` gives numbers in [0, 1).
    """

    def __init__(
        self,
        limits: RetryLimits,
        budget: RetryBudget,
        *,
        attempts_max: int,
        deadline: float,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.budget = budget
        self._left = attempts_max - 1
        self._deadline = deadline
        self._clock = clock
        self._backoff = Backoff(
            seconds_min=limits.seconds_min, seconds_max=limits.seconds_max, random=random
        )

    @property
    def seconds_left(self) -> float:
        """How long the next attempt may take."""
        return max(0.0, self._deadline - self._clock())

    def delay(self) -> float | None:
        """Gives the seconds before the next attempt; None if there is none."""
        if self._left <= 0:
            return None
        self._left -= 1
        seconds = self._backoff.next()
        return seconds if seconds < self.seconds_left else None

    def told(self, first: HubError, later: Answer | HubError) -> Answer | HubError:
        """Gives what is told of a retry after a failure; one that never left is paid back."""
        if isinstance(later, CircuitOpen):
            self.budget.give_back()
        return to_tell(first, later)
