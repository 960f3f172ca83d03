"""A breaker against a model of it: calls begin and end in any order, the clock goes on, databases
come and go, an operator meddles."""

import math
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hub.core.circuits.breaker import Breaker, CircuitState, Passage
from messagehub.errors import CircuitOpen, ConstraintViolation, InternalError, QueueFull
from tests.unit.hub.circuits.circuit_parts import FAILURES_MAX, LIMITS, SERVER, Clock, breaker

TRIALS_TO_CLOSE = 2
# The period of calls that do not count any more.
BEFORE = -1
CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


class BreakerModel(RuleBasedStateMachine):
    """What a breaker should do, in the plainest way to say it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.told: list[CircuitState] = []
        self.breaker: Breaker = breaker(
            self.clock,
            trials_to_close=TRIALS_TO_CLOSE,
            moved=lambda one: self.told.append(one.state),
        )
        self.calls: list[tuple[Passage, int]] = []
        self.state = CLOSED
        self.states = [CLOSED]
        self.healthy = True
        self.server = SERVER
        self.trial_at = -math.inf
        self.held_until = -math.inf
        self.closed_at = -math.inf
        self.pause = LIMITS.open_seconds_min
        self.forget()

    def forget(self) -> None:
        self.row = 0
        self.window: deque[bool] = deque(maxlen=LIMITS.window_calls)
        self.successes = 0

    @property
    def period(self) -> int:
        return len(self.states)

    @property
    def trials(self) -> int:
        return sum(period == self.period for _, period in self.calls)

    @property
    def due(self) -> bool:
        return self.healthy and self.clock.now >= max(self.trial_at, self.held_until)

    def move(self, state: CircuitState) -> None:
        self.state = state
        self.states.append(state)
        self.forget()
        if state is CLOSED:
            self.closed_at = self.clock.now

    def open_for_a_failure(self) -> None:
        if self.state is CLOSED and self.clock.now - self.closed_at >= LIMITS.open_seconds_max:
            self.pause = LIMITS.open_seconds_min
        self.trial_at = self.clock.now + self.pause
        self.pause = min(self.pause * 2, LIMITS.open_seconds_max)
        self.move(OPEN)

    @rule()
    def begin(self) -> None:
        if self.state is OPEN and self.due:
            self.move(HALF_OPEN)
        admits = self.state is CLOSED or (
            self.state is HALF_OPEN and self.trials < LIMITS.trials_max
        )
        if admits:
            self.calls.append((self.breaker.admit(), self.period))
            return
        with pytest.raises(CircuitOpen) as refused:
            self.breaker.admit()
        assert refused.value.retry_after is not None
        assert refused.value.retry_after > 0

    def end(self, data: st.DataObject) -> tuple[Passage, bool]:
        """Takes a call that is under way, and whether it counts."""
        place = data.draw(st.integers(0, len(self.calls) - 1))
        passage, period = self.calls.pop(place)
        return passage, period == self.period

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), refused=st.booleans())
    def succeed(self, data: st.DataObject, *, refused: bool) -> None:
        passage, counts = self.end(data)
        if refused:
            passage.failed(ConstraintViolation("taken"))
        else:
            passage.succeeded()
        if not counts:
            return
        self.row = 0
        self.window.append(False)
        self.successes += 1
        if self.state is HALF_OPEN and self.successes == TRIALS_TO_CLOSE:
            self.move(CLOSED)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        passage, counts = self.end(data)
        passage.failed(InternalError("oops"))
        if not counts:
            return
        self.row += 1
        self.window.append(True)
        enough = len(self.window) >= LIMITS.window_calls_min
        rate = sum(self.window) / len(self.window)
        if (
            self.state is HALF_OPEN
            or self.row == FAILURES_MAX
            or (enough and rate >= LIMITS.failure_rate_max)
        ):
            self.open_for_a_failure()

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), cancelled=st.booleans())
    def end_without_a_word(self, data: st.DataObject, *, cancelled: bool) -> None:
        passage, _ = self.end(data)
        if cancelled:
            passage.withdraw()
        else:
            passage.failed(QueueFull("full"))

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 4.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(available=st.booleans(), server=st.sampled_from([SERVER, "another"]))
    def hear(self, *, available: bool, server: str) -> None:
        due = self.breaker.hear(server, available=available, detail="it said so")
        moved = server != self.server
        news = moved or available != self.healthy
        self.server, self.healthy = server, available
        assert due is (news and available and self.state is not CLOSED)
        if due:
            self.trial_at = self.clock.now
        if news and not available and self.state is not OPEN:
            self.trial_at = self.clock.now
            self.move(OPEN)
        elif moved and available and self.state is CLOSED:
            self.row = 0
            self.window.clear()
            self.lose_calls()
        elif due and self.state is HALF_OPEN:
            self.lose_calls()

    def lose_calls(self) -> None:
        """What is under way says nothing any more."""
        self.calls = [(passage, BEFORE) for passage, _ in self.calls]

    @rule(seconds=st.sampled_from([None, 0.5, 5.0]))
    def open_by_hand(self, seconds: float | None) -> None:
        self.breaker.hold_open("by hand", seconds)
        self.held_until = math.inf if seconds is None else self.clock.now + seconds
        if self.state is not OPEN:
            self.trial_at = self.clock.now
            self.move(OPEN)

    @rule()
    def close_by_hand(self) -> None:
        self.breaker.close("by hand")
        self.held_until = -math.inf
        if self.state is not CLOSED:
            self.move(CLOSED)

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.state is self.state
        assert self.told == self.states[1:]

    @invariant()
    def says_when_the_next_trial_is(self) -> None:
        if self.state is OPEN:
            assert (self.breaker.seconds_to_trial == 0) == self.due


class ManyFailures(BreakerModel):
    """The same, where calls mostly fail, so that windows fill."""

    @rule(times=st.integers(1, 8), failing=st.integers(0, 3))
    def traffic(self, times: int, failing: int) -> None:
        for number in range(times):
            if self.state is not CLOSED:
                return
            passage = self.breaker.admit()
            self.calls.append((passage, self.period))
            if number % 4 < failing and self.row < FAILURES_MAX - 1:
                passage.failed(InternalError("oops"))
                self.calls.pop()
                self.row += 1
                self.window.append(True)
                enough = len(self.window) >= LIMITS.window_calls_min
                if enough and sum(self.window) / len(self.window) >= LIMITS.failure_rate_max:
                    self.open_for_a_failure()
            else:
                passage.succeeded()
                self.calls.pop()
                self.row = 0
                self.window.append(False)


LENGTH = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestBreaker = BreakerModel.TestCase
TestBreaker.settings = LENGTH
TestManyFailures = ManyFailures.TestCase
TestManyFailures.settings = LENGTH
