"""Backoff: how long the hub waits before it connects again."""

from hypothesis import given
from hypothesis import strategies as st

from hub.core.backoff import Backoff


def test_the_delay_doubles_up_to_its_bound():
    backoff = Backoff(seconds_min=0.1, seconds_max=0.5, random=lambda: 1.0)
    assert [backoff.next() for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_a_success_begins_anew():
    backoff = Backoff(seconds_min=0.1, seconds_max=0.5, random=lambda: 1.0)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.next() == 0.1


@given(
    st.floats(0.001, 1),
    st.floats(1, 10),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=50),
)
def test_jitter_takes_at_most_half_of_a_delay(seconds_min, seconds_max, randoms):
    numbers = iter(randoms)
    backoff = Backoff(
        seconds_min=seconds_min, seconds_max=seconds_max, random=lambda: next(numbers)
    )
    whole = Backoff(seconds_min=seconds_min, seconds_max=seconds_max, random=lambda: 1.0)
    for _ in randoms:
        full = whole.next()
        assert full / 2 <= backoff.next() <= full <= seconds_max
