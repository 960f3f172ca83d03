"""When a failed read is tried again, and when none would help."""

import pytest

from hub.core.backoff import Backoff
from hub.core.events.retries import Retries
from messagehub.errors import (
    CursorEpochChanged,
    CursorExpired,
    DatabaseCorrupt,
    InternalError,
    QueueFull,
    StorageUnavailable,
)


@pytest.fixture
def retries():
    return Retries(Backoff(seconds_min=1, seconds_max=4, random=lambda: 1.0))


def test_an_outage_is_tried_for_ever_with_growing_delays(retries):
    delays = [retries.delay(StorageUnavailable("x")) for _ in range(5)]
    assert delays == [1, 2, 4, 4, 4]
    retries.succeeded()
    assert retries.delay(StorageUnavailable("x")) == 1


@pytest.mark.parametrize("kind", [CursorExpired, CursorEpochChanged])
def test_a_lost_position_is_final_at_once(retries, kind):
    with pytest.raises(kind):
        retries.delay(kind("x"))


@pytest.mark.parametrize("kind", [DatabaseCorrupt, InternalError])
def test_a_refusal_is_final_when_it_comes_twice(retries, kind):
    assert retries.delay(kind("x")) == 1
    with pytest.raises(kind):
        retries.delay(kind("x"))


def test_a_refusal_after_an_outage_or_a_success_is_the_first_again(retries):
    retries.delay(InternalError("x"))
    retries.delay(StorageUnavailable("x"))
    retries.delay(InternalError("x"))
    retries.succeeded()
    retries.delay(InternalError("x"))


def test_who_is_asked_to_slow_down_does(retries):
    assert retries.delay(QueueFull("x", retry_after=30.0)) == 30.0
    assert retries.delay(StorageUnavailable("x", retry_after=30.0)) == 2
