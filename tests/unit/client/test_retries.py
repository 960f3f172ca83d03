import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagehub.errors import TABLE, HubError, InternalError, QueueFull, StorageUnavailable
from messagehub.retries import Retries, may_retry


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Call:
    """Fails in the given ways, then answers; remembers the time it was given."""

    def __init__(self, *failures: HubError) -> None:
        self._failures = list(failures)
        self.given: list[float] = []

    async def __call__(self, seconds: float) -> str:
        self.given.append(seconds)
        if self._failures:
            raise self._failures.pop(0)
        return "answer"


def retries(clock: Clock, **settings: object) -> Retries:
    settings = {"random": lambda: 1.0, **settings}
    return Retries(sleep=clock.sleep, clock=clock, **settings)


def test_exactly_the_unavailable_ones_and_a_full_queue_are_retried() -> None:
    retried = {TABLE[kind].reason for kind in TABLE if may_retry(kind("no"))}
    assert retried == {
        "STORAGE_UNAVAILABLE",
        "CIRCUIT_OPEN",
        "DATABASE_UNAVAILABLE",
        "SHUTTING_DOWN",
        "QUEUE_FULL",
    }


async def test_waits_grow_and_stay_below_their_bound() -> None:
    clock = Clock()
    call = Call(*[StorageUnavailable("gone")] * 5)
    assert await retries(clock, first_delay=1.0, delay_max=5.0).run(call, 60.0) == "answer"
    assert clock.slept == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert call.given == [60.0, 59.0, 57.0, 53.0, 48.0, 43.0]


async def test_the_hubs_wish_is_the_least_wait() -> None:
    clock = Clock()
    call = Call(QueueFull("full", retry_after=3.0))
    await retries(clock, first_delay=1.0).run(call, 60.0)
    assert clock.slept == [4.0]


async def test_no_attempt_begins_after_the_deadline() -> None:
    clock = Clock()
    failure = StorageUnavailable("gone", retry_after=4.0)
    call = Call(*[failure] * 100)
    with pytest.raises(StorageUnavailable) as caught:
        await retries(clock, first_delay=1.0, delay_max=1.0).run(call, 12.0)
    assert caught.value is failure
    assert clock.slept == [5.0, 5.0]


async def test_attempts_can_be_bounded() -> None:
    call = Call(*[StorageUnavailable("gone")] * 100)
    with pytest.raises(StorageUnavailable):
        await retries(Clock(), attempts_max=3).run(call, 1e9)
    assert len(call.given) == 3


async def test_another_error_is_raised_at_once() -> None:
    call = Call(InternalError("defect"))
    with pytest.raises(InternalError):
        await retries(Clock()).run(call, 60.0)
    assert len(call.given) == 1


@given(st.integers(1, 10_000), st.floats(0, 1), st.none() | st.floats(0, 100))
def test_a_wait_is_between_the_wish_and_its_bound(
    failures: int, chance: float, wish: float | None
) -> None:
    delay = Retries(random=lambda: chance, delay_max=2.0).delay(failures, wish)
    assert (wish or 0.0) <= delay <= (wish or 0.0) + 2.0
