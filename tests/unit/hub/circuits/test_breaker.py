"""The policy of a circuit, over the real state machine of pybreaker and a clock set by hand."""

import math
from dataclasses import replace

import pytest

from hub.core.circuits.breaker import CircuitState
from hub.core.circuits.evidence import Evidence, judge
from messagehub import errors
from messagehub.errors import (
    CircuitOpen,
    ConstraintViolation,
    DatabaseUnavailable,
    DeadlineExceeded,
    InternalError,
    QueueFull,
    Recording,
    StorageUnavailable,
)
from tests.unit.hub.circuits.circuit_parts import (
    DATABASE,
    FAILURES_MAX,
    LIMITS,
    SERVER,
    Clock,
    breaker,
    is_open,
    refusal_of,
)

BROKEN = StorageUnavailable("gone")
FAILURES = {"StorageUnavailable", "DatabaseUnavailable", "DatabaseCorrupt", "InternalError"}
NO_EVIDENCE = {
    "Cancelled",
    "CircuitOpen",
    "DeadlineExceeded",
    "PredecessorMissing",
    "QueueFull",
    "ShuttingDown",
    "StorageFull",
}


@pytest.fixture
def clock():
    return Clock()


def fail(made, times=FAILURES_MAX, error=BROKEN):
    for _ in range(times):
        made.admit().failed(error)


def opened(clock, **settings):
    made = breaker(clock, **settings)
    fail(made)
    assert is_open(made)
    return made


# What counts.


@pytest.mark.parametrize("error", errors.TABLE, ids=lambda error: error.__name__)
def test_every_error_is_judged(error):
    name = error.__name__
    wanted = Evidence.SUCCESS
    if name in FAILURES:
        wanted = Evidence.FAILURE
    elif name in NO_EVIDENCE:
        wanted = Evidence.NONE
    assert judge(error("x")) is wanted


def test_the_time_that_was_over_counts_only_if_the_storage_server_was_silent():
    assert judge(DeadlineExceeded("x"), silent=True) is Evidence.FAILURE
    assert judge(DeadlineExceeded("x")) is Evidence.NONE
    recorded = InternalError("x")
    recorded.recording = Recording(7, "", replayed=True)
    assert judge(recorded) is Evidence.SUCCESS
    assert judge(ConstraintViolation("x"), silent=True) is Evidence.SUCCESS


# Closed.


def test_failures_in_a_row_open(clock):
    made = breaker(clock)
    fail(made, FAILURES_MAX - 1)
    assert made.state is CircuitState.CLOSED
    fail(made, 1)
    assert is_open(made)
    assert made.failures == FAILURES_MAX
    assert f"{FAILURES_MAX} failures in a row" in made.cause
    assert "STORAGE_UNAVAILABLE: gone" in made.cause


def test_a_success_between_failures_keeps_it_closed(clock):
    made = breaker(clock)
    for _ in range(4):
        fail(made, FAILURES_MAX - 1)
        for _ in range(FAILURES_MAX * 2):
            made.admit().succeeded()
    assert made.state is CircuitState.CLOSED


def test_a_failure_rate_opens_although_no_row_is_long(clock):
    made = breaker(clock)
    for call in range(1, 100):
        passage = made.admit()
        if call % 2:
            passage.succeeded()
        else:
            passage.failed(BROKEN)
        if is_open(made):
            break
    assert call == LIMITS.window_calls_min
    assert "50% of the last calls failed" in made.cause
    assert made.failures == LIMITS.window_calls_min // 2


def test_old_calls_leave_the_window(clock):
    made = breaker(clock)
    # 9 of 27 all in all, at the worst 9 of the last 20, and never half of them.
    for _ in range(9):
        fail(made, 1)
        made.admit().succeeded()
        made.admit().succeeded()
    for _ in range(LIMITS.window_calls):
        made.admit().succeeded()
    for _ in range(9):
        fail(made, 1)
        made.admit().succeeded()
    assert made.state is CircuitState.CLOSED
    fail(made, 1)
    assert is_open(made)


def test_the_window_has_exactly_so_many_calls(clock):
    made = breaker(clock)
    failing = {1, 4, 7, 10, 12, 14, 16, 18, 20, LIMITS.window_calls + 1}
    for call in range(1, LIMITS.window_calls + 2):
        if call in failing:
            fail(made, 1)
        else:
            made.admit().succeeded()
    # 10 of all, 9 of the last 20.
    assert made.state is CircuitState.CLOSED


def test_a_storm_of_constraint_violations_never_opens(clock):
    made = breaker(clock)
    for _ in range(10_000):
        made.admit().failed(ConstraintViolation("taken"))
    assert made.state is CircuitState.CLOSED
    assert made.count_calls() == 10_000


@pytest.mark.parametrize("error", [QueueFull("x"), DeadlineExceeded("x")])
def test_what_says_nothing_neither_opens_nor_ends_a_row(clock, error):
    made = breaker(clock)
    for _ in range(100):
        made.admit().failed(error)
    assert (made.state, made.count_calls()) == (CircuitState.CLOSED, 0)
    fail(made, FAILURES_MAX - 1)
    made.admit().failed(error)
    made.admit().withdraw()
    fail(made, 1)
    assert is_open(made)


def test_a_silent_storage_server_opens(clock):
    made = breaker(clock)
    for _ in range(FAILURES_MAX):
        made.admit().failed(DeadlineExceeded("x"), silent=True)
    assert is_open(made)


# Open.


def test_open_refuses_at_once_with_the_time_until_the_trial(clock):
    made = opened(clock)
    clock.now += 0.25
    refusal = refusal_of(made)
    assert refusal.retry_after == pytest.approx(0.75)
    assert refusal.metadata == {"database": DATABASE}
    assert "gone" in refusal.message
    assert is_open(made)


def test_a_trial_is_due_after_the_pause(clock):
    made = opened(clock)
    clock.now += 0.999
    assert refusal_of(made) is not None
    clock.now += 0.001
    passage = made.admit()
    assert made.state is CircuitState.HALF_OPEN
    passage.succeeded()
    assert made.state is CircuitState.CLOSED
    assert made.failures == 0


def test_pauses_double_as_long_as_trials_fail(clock):
    made = opened(clock)
    pauses = []
    for _ in range(6):
        pauses.append(made.seconds_to_trial)
        clock.now += pauses[-1]
        made.admit().failed(BROKEN)
        assert is_open(made)
    assert pauses == [1, 2, 4, 8, 8, 8]


def test_pauses_begin_anew_only_after_a_long_time_closed(clock):
    made = opened(clock)
    clock.now += 1
    made.admit().succeeded()
    clock.now += LIMITS.open_seconds_max - 0.1
    fail(made)
    assert made.seconds_to_trial == 2
    clock.now += 2
    made.admit().succeeded()
    clock.now += LIMITS.open_seconds_max
    fail(made)
    assert made.seconds_to_trial == 1


# Half-open.


def test_half_open_admits_exactly_so_many_at_once(clock):
    made = opened(clock)
    clock.now += 1
    admitted, refused = [], []
    for _ in range(50):
        try:
            admitted.append(made.admit())
        except CircuitOpen as refusal:
            refused.append(refusal)
    assert (len(admitted), len(refused)) == (LIMITS.trials_max, 50 - LIMITS.trials_max)
    assert {refusal.retry_after for refusal in refused} == {LIMITS.retry_seconds}
    admitted[0].withdraw()
    admitted.append(made.admit())
    assert refusal_of(made) is not None
    admitted[1].succeeded()
    assert made.state is CircuitState.CLOSED


def test_one_failed_trial_opens_whatever_the_others_say(clock):
    made = opened(clock, limits=replace(LIMITS, trials_max=3), trials_to_close=2)
    clock.now += 1
    first, second, third = made.admit(), made.admit(), made.admit()
    first.succeeded()
    assert made.state is CircuitState.HALF_OPEN
    second.failed(DatabaseUnavailable("no"))
    assert is_open(made)
    assert "a trial failed" in made.cause
    third.succeeded()
    assert is_open(made)


def test_it_takes_as_many_successes_as_configured(clock):
    made = opened(clock, trials_to_close=3)
    clock.now += 1
    for _ in range(2):
        made.admit().succeeded()
        assert made.state is CircuitState.HALF_OPEN
    made.admit().failed(ConstraintViolation("taken"))
    assert made.state is CircuitState.CLOSED


@pytest.mark.parametrize("error", [None, QueueFull("x"), DeadlineExceeded("x")])
def test_a_trial_that_says_nothing_gives_its_place_back(clock, error):
    made = opened(clock)
    clock.now += 1
    for _ in range(10):
        passages = [made.admit() for _ in range(LIMITS.trials_max)]
        for passage in passages:
            if error is None:
                passage.withdraw()
            else:
                passage.failed(error)
    assert made.state is CircuitState.HALF_OPEN
    made.admit().succeeded()
    assert made.state is CircuitState.CLOSED


def test_a_trial_counts_once(clock):
    made = opened(clock, trials_to_close=2)
    clock.now += 1
    passage = made.admit()
    passage.succeeded()
    passage.succeeded()
    passage.failed(BROKEN)
    assert made.state is CircuitState.HALF_OPEN


# Late news.


def test_late_failures_of_calls_before_a_change_say_nothing(clock):
    made = breaker(clock)
    early = [made.admit() for _ in range(20)]
    fail(made)
    pause = made.seconds_to_trial
    for passage in early[:10]:
        passage.failed(BROKEN)
    assert made.seconds_to_trial == pause
    clock.now += pause
    made.admit().succeeded()
    assert made.state is CircuitState.CLOSED
    for passage in early[10:]:
        passage.failed(BROKEN)
    assert made.state is CircuitState.CLOSED
    fail(made, FAILURES_MAX - 1)
    early[0].succeeded()
    fail(made, 1)
    assert is_open(made)


def test_late_news_of_a_trial_says_nothing(clock):
    made = opened(clock)
    clock.now += 1
    late, failing = made.admit(), made.admit()
    failing.failed(BROKEN)
    clock.now += 2
    made.admit().withdraw()
    assert made.state is CircuitState.HALF_OPEN
    late.succeeded()
    assert made.state is CircuitState.HALF_OPEN
    late.failed(BROKEN)
    assert made.state is CircuitState.HALF_OPEN


# What the storage server says.


def test_a_database_that_is_not_available_opens_at_once_and_waits(clock):
    made = breaker(clock)
    made.hear(SERVER, available=False, detail="disk gone")
    assert is_open(made)
    assert "disk gone" in made.cause
    assert made.seconds_to_trial == math.inf
    clock.now += 1_000_000
    assert refusal_of(made).retry_after == LIMITS.retry_seconds
    made.hear(SERVER, available=True, detail="")
    assert is_open(made)
    made.admit().succeeded()
    assert made.state is CircuitState.CLOSED


def test_a_return_of_the_database_does_not_wait_for_the_pause(clock):
    made = opened(clock)
    assert made.seconds_to_trial == 1
    made.hear(SERVER, available=False, detail="gone")
    made.hear(SERVER, available=True, detail="")
    assert made.seconds_to_trial == 0


def test_trials_end_when_the_database_goes(clock):
    made = opened(clock)
    clock.now += 1
    trial = made.admit()
    made.hear(SERVER, available=False, detail="gone again")
    assert is_open(made)
    trial.succeeded()
    assert is_open(made)


def test_before_anything_was_heard_it_is_closed_and_opens_by_failures(clock):
    made = breaker(clock, healthy=False)
    assert made.healthy is None
    fail(made)
    clock.now += 100
    assert refusal_of(made).retry_after == LIMITS.retry_seconds
    made.hear(SERVER, available=True, detail="")
    made.admit().succeeded()
    assert made.state is CircuitState.CLOSED


def test_a_first_word_that_it_is_not_available_opens(clock):
    made = breaker(clock, healthy=False)
    made.hear(SERVER, available=False, detail="is damaged")
    assert is_open(made)


# Another storage server.

OTHER_SERVER = "127.0.0.1:50062"


def test_after_a_move_calls_to_the_former_storage_server_say_nothing(clock):
    made = breaker(clock)
    fail(made, FAILURES_MAX - 1)
    late = [made.admit() for _ in range(20)]
    assert not made.hear(OTHER_SERVER, available=True, detail="")
    for passage in late:
        passage.failed(BROKEN)
    fail(made, FAILURES_MAX - 1)
    assert made.state is CircuitState.CLOSED
    assert made.count_calls() == 2 * (FAILURES_MAX - 1)
    fail(made, 1)
    assert is_open(made)


def test_after_a_move_a_trial_is_due_at_once(clock):
    made = opened(clock)
    assert made.hear(OTHER_SERVER, available=True, detail="")
    late = made.admit()
    assert made.hear(SERVER, available=True, detail="")
    late.failed(BROKEN)
    assert made.state is CircuitState.HALF_OPEN
    made.admit().succeeded()
    assert made.state is CircuitState.CLOSED


def test_nobody_who_has_it_is_no_better_than_somebody_who_has_not(clock):
    made = breaker(clock)
    made.hear(OTHER_SERVER, available=False, detail="is owned by another process")
    assert is_open(made)
    assert not made.hear(SERVER, available=False, detail="gone")
    assert made.seconds_to_trial == math.inf


# By hand.


def test_opened_by_hand_it_stays_open_until_it_is_closed_by_hand(clock):
    made = breaker(clock)
    made.hold_open("maintenance", None)
    clock.now += 1_000_000
    made.hear(SERVER, available=False, detail="gone")
    made.hear(SERVER, available=True, detail="")
    refusal = refusal_of(made)
    assert refusal.retry_after == LIMITS.open_seconds_max
    assert "maintenance" in refusal.message
    made.close("done")
    assert (made.state, made.cause) == (CircuitState.CLOSED, "done")
    made.admit().succeeded()


def test_opened_by_hand_for_a_while_it_is_tried_after_it(clock):
    made = breaker(clock)
    made.hold_open("maintenance", 60)
    clock.now += 20
    made.hear(SERVER, available=False, detail="gone")
    made.hear(SERVER, available=True, detail="")
    assert refusal_of(made).retry_after == pytest.approx(40)
    clock.now += 40
    made.admit().succeeded()
    assert made.state is CircuitState.CLOSED


def test_an_open_circuit_can_be_held_and_let_go(clock):
    made = opened(clock)
    made.hold_open("maintenance", None)
    clock.now += 100
    assert "maintenance" in refusal_of(made).message
    made.hold_open("nearly done", 5)
    assert refusal_of(made).retry_after == pytest.approx(5)
    made.close("done")
    fail(made)
    assert made.seconds_to_trial < 5


def test_trials_end_when_it_is_opened_by_hand(clock):
    made = opened(clock)
    clock.now += 1
    trial = made.admit()
    made.hold_open("maintenance", None)
    trial.succeeded()
    assert is_open(made)


def test_closing_what_is_closed_changes_nothing(clock):
    changes = []
    made = breaker(clock, moved=changes.append)
    fail(made, FAILURES_MAX - 1)
    made.close("why not")
    fail(made, 1)
    assert is_open(made)
    assert len(changes) == 1


# What is told.


def test_every_change_is_told_once_with_its_cause(clock):
    told = []
    made = breaker(clock, moved=lambda one: told.append((one.state, one.cause, one.failures)))
    fail(made, error=InternalError("oops"))
    clock.now += 1
    made.admit().succeeded()
    made.hear(SERVER, available=False, detail="gone")
    states = [state for state, _, _ in told]
    assert states == [
        CircuitState.OPEN,
        CircuitState.HALF_OPEN,
        CircuitState.CLOSED,
        CircuitState.OPEN,
    ]
    causes = [cause for _, cause, _ in told]
    assert "INTERNAL: oops" in causes[0]
    assert causes[1:3] == ["a trial is due", "a trial succeeded"]
    assert "gone" in causes[3]
    assert [failures for _, _, failures in told] == [3, 3, 0, 0]


def test_calls_are_counted_over_all_periods(clock):
    made = breaker(clock)
    for _ in range(7):
        made.admit().succeeded()
    fail(made)
    clock.now += 1
    made.admit().succeeded()
    made.admit().succeeded()
    assert made.count_calls() == 11
