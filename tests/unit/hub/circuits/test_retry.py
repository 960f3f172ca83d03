"""Which failures the hub retries, how soon, and under which budget."""

import pytest

from hub.core.circuits.retry import Attempts, RetryBudget, RetryLimits, may_pass, to_tell
from messagehub import errors
from messagehub.errors import (
    CircuitOpen,
    ConstraintViolation,
    DatabaseUnavailable,
    DeadlineExceeded,
    QueueFull,
    StorageUnavailable,
)
from tests.unit.hub.circuits.circuit_parts import Clock

LIMITS = RetryLimits(
    attempts_max=4,
    seconds_min=0.1,
    seconds_max=0.3,
    budget_share=0.1,
    budget_per_second=1.0,
    budget_max=5.0,
)
PASSING = {"StorageUnavailable", "DatabaseUnavailable", "ShuttingDown"}


@pytest.fixture
def clock():
    return Clock()


class Calls:
    """How many calls a database has had."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        return self.count


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def budget(clock, calls):
    return RetryBudget(LIMITS, clock=clock, calls=calls)


def taken(budget):
    count = 0
    while budget.take():
        count += 1
    return count


@pytest.mark.parametrize("error", errors.TABLE, ids=lambda error: error.__name__)
def test_only_what_may_be_over_in_a_moment_is_retried(error):
    assert may_pass(error("x")) is (error.__name__ in PASSING)


def test_an_outcome_is_no_failure():
    assert not may_pass(object())


def test_a_budget_is_full_at_first_and_then_empty(budget):
    assert taken(budget) == 5
    assert taken(budget) == 0


def test_a_budget_grows_with_calls_and_with_time_up_to_its_bound(budget, calls, clock):
    taken(budget)
    calls.count += 19
    assert taken(budget) == 1
    calls.count += 1
    assert taken(budget) == 1
    clock.now += 2.5
    assert taken(budget) == 2
    clock.now += 1000
    calls.count += 1000
    assert taken(budget) == 5


def test_retries_are_a_small_part_of_the_calls(budget, calls):
    """However many calls fail: a tenth, and what was saved up."""
    retries = 0
    for _ in range(10_000):
        calls.count += 1
        retries += taken(budget)
    assert retries <= 10_000 * LIMITS.budget_share + LIMITS.budget_max


def test_what_never_left_is_paid_back(budget):
    taken(budget)
    budget.give_back()
    assert taken(budget) == 1


def attempts(clock, budget, *, seconds=100.0, attempts_max=4, random=1.0):
    return Attempts(
        LIMITS,
        budget,
        attempts_max=attempts_max,
        deadline=clock.now + seconds,
        clock=clock,
        random=lambda: random,
    )


@pytest.mark.parametrize(("random", "delays"), [(1.0, [0.1, 0.2, 0.3]), (0.0, [0.05, 0.1, 0.15])])
def test_delays_grow_with_jitter_up_to_a_bound(clock, budget, random, delays):
    some = attempts(clock, budget, random=random)
    assert [some.delay() for _ in range(3)] == pytest.approx(delays)
    assert some.delay() is None


def test_one_attempt_is_no_retry(clock, budget):
    assert attempts(clock, budget, attempts_max=1).delay() is None


def test_no_retry_begins_after_the_deadline(clock, budget):
    some = attempts(clock, budget, seconds=0.25)
    assert some.delay() == pytest.approx(0.1)
    clock.now += 0.1
    assert some.seconds_left == pytest.approx(0.15)
    assert some.delay() is None
    clock.now += 10
    assert some.seconds_left == 0


UNKNOWN = StorageUnavailable("broke", metadata={"request_id": "id"})
NOT_SENT = StorageUnavailable("not connected; nothing was sent")


@pytest.mark.parametrize(
    ("first", "later", "told"),
    [
        (NOT_SENT, "outcome", "later"),
        (UNKNOWN, "outcome", "later"),
        (NOT_SENT, CircuitOpen("x"), "first"),
        (NOT_SENT, QueueFull("x"), "first"),
        (UNKNOWN, CircuitOpen("x"), "first"),
        (UNKNOWN, QueueFull("x"), "first"),
        (UNKNOWN, NOT_SENT, "first"),
        (UNKNOWN, DatabaseUnavailable("x"), "first"),
        (NOT_SENT, UNKNOWN, "later"),
        (NOT_SENT, DatabaseUnavailable("x"), "later"),
        (UNKNOWN, ConstraintViolation("x"), "later"),
        (UNKNOWN, DeadlineExceeded("x"), "later"),
    ],
)
def test_an_unknown_outcome_never_looks_undone(first, later, told):
    assert to_tell(first, later) is (first if told == "first" else later)


def test_a_retry_that_was_refused_costs_nothing(clock, budget):
    some = attempts(clock, budget)
    assert taken(budget) == 5
    assert some.told(NOT_SENT, CircuitOpen("x")) is NOT_SENT
    assert taken(budget) == 1
    some.told(NOT_SENT, QueueFull("x"))
    assert taken(budget) == 0
