"""The policy of one circuit: what counts as a failure, when it opens, what passes meanwhile.

             failures in a row, failure rate,
             database not available, by hand           a trial is due
    CLOSED ──────────────────────────────────▶ OPEN ──────────────────▶ HALF_OPEN
      ▲                                         ▲                        │  │
      │                                         └──── a trial fails ─────┘  │
      └──────────────────────── enough trials succeed, by hand ─────────────┘

A call asks for a `Passage` before it begins and says to it how it ended. A passage counts for the
period in which it was given; once the circuit has changed, late news of older calls is no news.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from hub.core.backoff import Backoff
from hub.core.circuits.evidence import Evidence, judge
from messagehub.errors import CircuitOpen, HubError


class CircuitState(Enum):
    """Where a circuit stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """The bounds of a circuit; see `HubConfig` for defaults. Times are in seconds.

    It opens when `failure_rate_max` of the last `window_calls` calls failed, of at least
    `window_calls_min`. The next trial is due after `open_seconds_min`, and after twice as long each
    time that the circuit opens again before it was closed for `open_seconds_max`, up to that. At
    most `trials_max` trials are under way at once. `retry_seconds` is what a caller is told to wait
    while nobody can say when the next trial is.
    """

    window_calls: int
    window_calls_min: int
    failure_rate_max: float
    open_seconds_min: float
    open_seconds_max: float
    trials_max: int
    retry_seconds: float


class Machine(Protocol):
    """The states of a circuit, and how many ends of calls it takes to leave one.

    Closed, it opens after so many failures in a row; half-open, it opens after one failure and
    closes after so many successes. It has no clock, and is never told of a call while it is open.
    """

    state: CircuitState

    @property
    def failures_in_a_row(self) -> int:
        """Failures since the last success, while it is closed."""

    def succeeded(self) -> None:
        """A call succeeded."""

    def failed(self) -> None:
        """A call failed."""

    def open(self) -> None:
        """Opens."""

    def half_open(self) -> None:
        """Lets trials pass."""

    def close(self) -> None:
        """Closes."""


class Passage(Protocol):
    """Leave for one call; its holder says once how the call ended."""

    def succeeded(self) -> None:
        """The database did what was asked."""

    def failed(self, error: HubError, *, silent: bool = False) -> None:
        """The call ended with an error; see `judge`."""

    def withdraw(self) -> None:
        """The call says nothing, as when its caller went away; nothing if it has said it before."""


class ClosedPeriod:
    """The passage of every call that begins between two changes of a circuit, while it is closed.

    A success costs one addition. The window counts calls, not seconds: it needs no clock, and it
    remembers the failures of a database that is seldom called.
    """

    __slots__ = ("_breaker", "_failing", "_window", "_window_calls", "calls")

    def __init__(self, breaker: "Breaker", window_calls: int) -> None:
        self.calls = 0
        self._breaker = breaker
        self._failing = False
        self._window_calls = window_calls
        # The numbers of the calls that failed.
        self._window: deque[int] = deque()

    @property
    def failures(self) -> int:
        """How many of the last calls failed."""
        while self._window and self._window[0] <= self.calls - self._window_calls:
            self._window.popleft()
        return len(self._window)

    @property
    def failure_rate(self) -> float:
        """Which part of the last calls failed."""
        return self.failures / max(1, min(self.calls, self._window_calls))

    def succeeded(self) -> None:
        """See `Passage`."""
        self.calls += 1
        if self._failing:
            self._failing = False
            self._breaker.works_again(self)

    def failed(self, error: HubError, *, silent: bool = False) -> None:
        """See `Passage`."""
        evidence = judge(error, silent=silent)
        if evidence is Evidence.SUCCESS:
            self.succeeded()
        elif evidence is Evidence.FAILURE:
            self.calls += 1
            self._failing = True
            self._window.append(self.calls)
            self._breaker.fails(self, error)

    def withdraw(self) -> None:
        """See `Passage`."""


class Trial:
    """The passage of one call while the circuit is half-open; it has a place of `trials_max`."""

    __slots__ = ("_breaker",)

    def __init__(self, breaker: "Breaker") -> None:
        self._breaker = breaker

    def succeeded(self) -> None:
        """See `Passage`."""
        self._breaker.end_trial(self, None)

    def failed(self, error: HubError, *, silent: bool = False) -> None:
        """See `Passage`."""
        evidence = judge(error, silent=silent)
        if evidence is Evidence.NONE:
            self.withdraw()
        else:
            self._breaker.end_trial(self, error if evidence is Evidence.FAILURE else None)

    def withdraw(self) -> None:
        """See `Passage`."""
        self._breaker.leave_trial(self)


class Breaker:
    """The circuit of one database.

    `clock` gives monotonic seconds; `moved` is called after each change of the state, with the
    breaker. `healthy` is what the storage server says of the database, None before it said
    anything; while it is not, no trial is due.
    """

    def __init__(
        self,
        database: str,
        machine: Machine,
        limits: BreakerLimits,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        moved: Callable[["Breaker"], None],
    ) -> None:
        self.database = database
        self.cause = ""
        self.failures = 0
        self.healthy: bool | None = None
        self._storage_server = ""
        self._machine = machine
        self._limits = limits
        self._clock = clock
        self._moved = moved
        self._backoff = Backoff(
            seconds_min=limits.open_seconds_min, seconds_max=limits.open_seconds_max, random=random
        )
        self._closed: ClosedPeriod | None = self._new_period()
        self._calls_before = 0
        self._closed_at = -math.inf
        self._trials: set[Trial] = set()
        self._trial_at = 0.0
        self._held_until = -math.inf

    @property
    def state(self) -> CircuitState:
        """Where the circuit stands."""
        return self._machine.state

    def count_calls(self) -> int:
        """How many calls had an outcome while the circuit was closed."""
        return self._calls_before + (self._closed.calls if self._closed else 0)

    @property
    def seconds_to_trial(self) -> float:
        """When the next trial is due, 0 at the least; infinite if nobody can say."""
        if not self.healthy:
            return math.inf
        return max(0.0, max(self._trial_at, self._held_until) - self._clock())

    def admit(self) -> Passage:
        """Gives leave for one call; raises `CircuitOpen`."""
        if self._closed is not None:
            return self._closed
        if self.state is CircuitState.OPEN:
            if self.seconds_to_trial > 0.0:
                raise self._refusal()
            self.cause = "a trial is due"
            self._machine.half_open()
            self._moved(self)
        if len(self._trials) >= self._limits.trials_max:
            raise self._refusal()
        trial = Trial(self)
        self._trials.add(trial)
        return trial

    def hear(self, storage_server: str, *, available: bool, detail: str) -> bool:
        """The storage server of the database says how it stands: not available opens at once.

        When it is available again, or at another storage server, a trial is due at once, and the
        answer is True. What calls to the former storage server were like is forgotten.
        """
        moved = storage_server != self._storage_server
        if available is self.healthy and not moved:
            return False
        self.healthy = available
        self._storage_server = storage_server
        if not available:
            if self.state is not CircuitState.OPEN:
                self._open(f"the database is not available: {detail}")
            return False
        if self._closed is not None:
            if moved:
                self._forget(self._closed)
            return False
        self._trials.clear()
        self._trial_at = self._clock()
        return True

    def hold_open(self, cause: str, seconds: float | None) -> None:
        """Opens by hand and stays open, for a while or, with None, until `close`."""
        self._held_until = math.inf if seconds is None else self._clock() + seconds
        if self.state is CircuitState.OPEN:
            self.cause = cause
        else:
            self._open(cause)

    def close(self, cause: str) -> None:
        """Closes by hand."""
        self._held_until = -math.inf
        if self.state is not CircuitState.CLOSED:
            self._machine.close()
            self._begin_period(cause)

    def works_again(self, period: ClosedPeriod) -> None:
        """A call of a period succeeded after one that failed."""
        if period is self._closed:
            self._machine.succeeded()

    def fails(self, period: ClosedPeriod, error: HubError) -> None:
        """A call of a period failed."""
        if period is not self._closed:
            return
        self._machine.failed()
        row = self._machine.failures_in_a_row
        if self.state is CircuitState.OPEN:
            self._opened(_because(f"{row} failures in a row", error), self._pause())
        elif (
            period.calls >= self._limits.window_calls_min
            and period.failure_rate >= self._limits.failure_rate_max
        ):
            rate = f"{period.failure_rate:.0%} of the last calls failed"
            self._open(_because(rate, error), self._pause())

    def end_trial(self, trial: Trial, failure: HubError | None) -> None:
        """A trial succeeded or failed."""
        if trial not in self._trials:
            return
        self._trials.discard(trial)
        if failure is not None:
            self.failures += 1
            self._machine.failed()
            self._opened(_because("a trial failed", failure), self._pause())
            return
        self._machine.succeeded()
        if self.state is CircuitState.CLOSED:
            self._begin_period("a trial succeeded")

    def leave_trial(self, trial: Trial) -> None:
        """A trial ended without saying anything; another may take its place."""
        self._trials.discard(trial)

    def _pause(self) -> float:
        """Gives the seconds until the next trial."""
        if self._closed and self._clock() - self._closed_at >= self._limits.open_seconds_max:
            self._backoff.reset()
        return self._backoff.next()

    def _open(self, cause: str, pause: float = 0.0) -> None:
        self._machine.open()
        self._opened(cause, pause)

    def _opened(self, cause: str, pause: float) -> None:
        if self._closed is not None:
            self.failures = self._closed.failures
            self._calls_before += self._closed.calls
            self._closed = None
        self._trials.clear()
        self._trial_at = self._clock() + pause
        self.cause = cause
        self._moved(self)

    def _begin_period(self, cause: str) -> None:
        self._trials.clear()
        self._closed = self._new_period()
        self._closed_at = self._clock()
        self.failures = 0
        self.cause = cause
        self._moved(self)

    def _forget(self, period: ClosedPeriod) -> None:
        """Begins a new period without a change of the state."""
        self._machine.succeeded()
        self._calls_before += period.calls
        self._closed = self._new_period()

    def _new_period(self) -> ClosedPeriod:
        return ClosedPeriod(self, self._limits.window_calls)

    def _refusal(self) -> CircuitOpen:
        seconds = self.seconds_to_trial if self.state is CircuitState.OPEN else 0.0
        if not 0.0 < seconds < math.inf:
            seconds = self._limits.retry_seconds
        if self._held_until == math.inf:
            seconds = self._limits.open_seconds_max
        what = "open" if self.state is CircuitState.OPEN else "half open, and its trials are used"
        return CircuitOpen(
            f"the circuit of {self.database} is {what} ({self.cause}): nothing was sent, call "
            f"again in {seconds:.1f} s",
            retry_after=seconds,
            metadata={"database": self.database},
        )


def _because(what: str, error: HubError) -> str:
    return f"{what}, the last one with {error.reason}: {error.message}"
