"""The bounded queue that serves its callers in turn."""

import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagehub.errors import MessageTooLarge, QueueFull
from storage.core.fair_queue import (
    DEBT_US_MAX,
    MICROSECONDS,
    QUANTUM_US,
    REMEMBERED_CALLERS,
    FairQueue,
    QueueLimits,
)
from storage.core.operation import Operation
from tests.unit.storage.scripted_engine import Caller


def make(**limits: Any) -> FairQueue:
    defaults: dict[str, Any] = {
        "operations_max": 1000,
        "bytes_max": 1_000_000,
        "caller_operations_max": 1000,
        "caller_bytes_max": 1_000_000,
        "retry_after_seconds": 0.02,
    }
    return FairQueue(QueueLimits(**(defaults | limits)))


def of(service: str, name: str = "x", size: int = 1) -> Operation:
    return Caller().operation(name, service=service, size_bytes=size)


def put(queue: FairQueue, *names: str) -> None:
    """`a1` is an operation of the caller `a`."""
    for name in names:
        queue.put(of(name[0], name))


def taken(queue: FairQueue) -> list[str]:
    return [operation.correlation_id for operation in queue.take_all()]


def test_one_caller_is_served_in_order() -> None:
    queue = make()
    put(queue, "a1", "a2", "a3")
    assert taken(queue) == ["a1", "a2", "a3"]
    assert len(queue) == 0
    assert queue.take() is None


def test_callers_are_served_in_turn_however_much_one_of_them_sends() -> None:
    queue = make()
    put(queue, *(f"a{n}" for n in range(500)), "b0", "b1", "c0")
    assert taken(queue)[:7] == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


def test_a_flood_delays_another_caller_by_one_operation_each_time() -> None:
    queue = make()
    put(queue, *(f"a{n}" for n in range(500)))
    for number in range(20):
        queue.put(of("b", f"b{number}"))
        served = [queue.take(), queue.take()]
        names = [operation.correlation_id for operation in served if operation]
        assert f"b{number}" in names, "it waits for at most one operation of the flood"


def test_a_caller_that_comes_back_goes_to_the_end_of_the_turn() -> None:
    queue = make()
    put(queue, "a1", "b1", "c1")
    assert queue.take() is not None
    put(queue, "a2")
    assert taken(queue) == ["b1", "c1", "a2"]


def test_a_caller_pays_for_the_time_that_it_took() -> None:
    queue = make()
    put(queue, *(f"a{n}" for n in range(5)), *(f"b{n}" for n in range(5)))
    first = queue.take()
    assert first is not None
    queue.charge("a", 3 * QUANTUM_US / MICROSECONDS)
    assert taken(queue)[:6] == ["b0", "b1", "b2", "a1", "b3", "a2"]


def test_what_a_caller_owes_is_bounded() -> None:
    queue = make(operations_max=100_000, caller_operations_max=100_000)
    turns = DEBT_US_MAX // QUANTUM_US
    put(queue, "a0", "a1", *(f"b{n}" for n in range(2 * turns)))
    queue.take()
    queue.charge("a", 3600.0)
    assert taken(queue).index("a1") == pytest.approx(turns, abs=2)


def test_time_in_which_a_caller_was_away_is_not_saved_up() -> None:
    queue = make()
    put(queue, *(f"a{n}" for n in range(100)))
    for _ in range(50):
        queue.take()
    put(queue, *(f"b{n}" for n in range(50)))
    assert taken(queue)[:4] == ["b0", "a50", "b1", "a51"]


def test_a_caller_does_not_shed_its_debt_by_going_away() -> None:
    queue = make()
    put(queue, "a0", "b0", "b1", "b2")
    queue.take()
    queue.charge("a", 4 * QUANTUM_US / MICROSECONDS)
    put(queue, "a1")
    assert taken(queue) == ["b0", "b1", "b2", "a1"]


def test_callers_that_went_away_are_forgotten() -> None:
    queue = make()
    for number in range(10 * REMEMBERED_CALLERS):
        queue.put(of(f"service{number}"))
        queue.take()
        queue.charge(f"service{number}", 1.5 * QUANTUM_US / MICROSECONDS)
        for _ in range(5):
            queue.put(of("others"))
            queue.take()
    assert len(queue._had) <= 2 * REMEMBERED_CALLERS


def test_a_caller_that_may_not_be_served_is_passed_over() -> None:
    queue = make()
    put(queue, "a0", "b0")
    assert queue.offers(lambda name: name == "b")
    served = queue.take(lambda name: name == "b")
    assert served is not None
    assert served.correlation_id == "b0"
    assert not queue.offers(lambda name: name == "b")
    assert queue.take(lambda name: name == "b") is None
    assert taken(queue) == ["a0"]


def test_a_group_is_taken_in_turn_too() -> None:
    queue = make()
    put(queue, "a1", "a2", "a3", "b1")
    assert [o.correlation_id for o in queue.take_group(3)] == ["a1", "b1", "a2"]
    assert len(queue) == 1


def test_what_is_put_back_comes_first_and_in_order() -> None:
    queue = make()
    put(queue, "a1", "b1", "a2", "a3", "b2")
    group = queue.take_group(5)
    put(queue, "c1", "a4")
    queue.put_back(group[1:])
    order = taken(queue)
    for caller in "ab":
        mine = [name for name in order if name[0] == caller]
        assert mine == sorted(mine), "the order within a caller is kept"
    assert order[:2] == [operation.correlation_id for operation in group[1:3]]
    assert sorted(order) == ["a2", "a3", "a4", "b1", "b2", "c1"]


def test_what_is_put_back_is_counted_again() -> None:
    queue = make(operations_max=2, bytes_max=10)
    queue.put(of("a", size=4))
    queue.put(of("b", size=4))
    group = queue.take_group(2)
    queue.put_back(group)
    assert len(queue) == 2
    with pytest.raises(QueueFull):
        queue.put(of("c"))
    assert queue.take_group(2) == group
    queue.put(of("a", size=10))


@pytest.mark.parametrize(
    ("limits", "fitting", "first_over"),
    [
        ({"operations_max": 3}, [("a", 1), ("b", 1), ("c", 1)], ("d", 1)),
        ({"bytes_max": 10}, [("a", 4), ("b", 6)], ("c", 1)),
        ({"caller_operations_max": 3}, [("a", 1)] * 3, ("a", 1)),
        ({"caller_bytes_max": 10}, [("a", 4), ("a", 6)], ("a", 1)),
    ],
    ids=["operations", "bytes", "operations of a caller", "bytes of a caller"],
)
def test_every_bound_holds_at_its_limit_and_not_one_further(
    limits: dict[str, int], fitting: list[tuple[str, int]], first_over: tuple[str, int]
) -> None:
    queue = make(**limits)
    for service, size in fitting:
        queue.put(of(service, size=size))
    with pytest.raises(QueueFull) as caught:
        queue.put(of(*first_over[:1], size=first_over[1]))
    assert caught.value.retry_after == 0.02
    assert caught.value.metadata["limit"] == str(next(iter(limits.values())))
    assert len(queue) == len(fitting), "a refused operation leaves the queue as it was"
    assert queue.take() is not None
    queue.put(of(*first_over[:1], size=first_over[1]))


def test_a_caller_at_its_bound_leaves_room_for_others() -> None:
    queue = make(caller_operations_max=2, caller_bytes_max=100)
    put(queue, "a1", "a2")
    with pytest.raises(QueueFull):
        put(queue, "a3")
    put(queue, "b1", "b2")


@pytest.mark.parametrize("limits", [{"bytes_max": 10}, {"caller_bytes_max": 10}])
def test_what_can_never_fit_is_refused_without_a_time_to_come_back(limits: dict[str, int]) -> None:
    with pytest.raises(MessageTooLarge) as caught:
        make(**limits).put(of("a", size=11))
    assert caught.value.retry_after is None
    assert caught.value.metadata["limit_bytes"] == "10"


steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(0, 5)),
    st.tuples(st.just("group"), st.integers(1, 6), st.integers(0, 6)),
)


@given(st.lists(steps, max_size=60))
def test_any_use_keeps_the_counts_and_the_order_within_callers(
    script: list[tuple[str, Any, int]],
) -> None:
    queue = make(operations_max=12, bytes_max=30, caller_operations_max=6, caller_bytes_max=15)
    waiting: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    put_numbers: Counter[str] = Counter()
    served: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for kind, what, number in script:
        if kind == "put":
            over = (
                waiting.total() + 1 > 12
                or sizes.total() + number > 30
                or waiting[what] + 1 > 6
                or sizes[what] + number > 15
            )
            operation = of(what, str(put_numbers[what]), number)
            try:
                queue.put(operation)
            except QueueFull:
                assert over
                continue
            assert not over
            put_numbers[what] += 1
            waiting[what] += 1
            sizes[what] += number
        else:
            group = queue.take_group(what)
            assert len(group) == min(what, waiting.total())
            begun = max(0, len(group) - number)
            done, back = group[:begun], group[begun:]
            queue.put_back(back)
            for operation in done:
                served[operation.source_service].append(int(operation.correlation_id))
                waiting[operation.source_service] -= 1
                sizes[operation.source_service] -= operation.size_bytes
        assert len(queue) == waiting.total()
    for operation in queue.take_all():
        served[operation.source_service].append(int(operation.correlation_id))
    for service, numbers in served.items():
        assert numbers == list(range(put_numbers[service]))


def test_threads_lose_nothing_and_take_nothing_twice() -> None:
    queue = make(operations_max=100_000, caller_operations_max=100_000)
    found: list[list[str]] = [[] for _ in range(3)]
    filled = threading.Event()

    def drain(mine: list[str]) -> None:
        while True:
            last = filled.is_set()
            operation = queue.take()
            if operation is not None:
                mine.append(operation.correlation_id)
            elif last:
                return

    threads = [threading.Thread(target=drain, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for number in range(2000):
        queue.put(of("abc"[number % 3], str(number)))
    filled.set()
    for thread in threads:
        thread.join()
    assert sorted(int(name) for mine in found for name in mine) == list(range(2000))
    assert len(queue) == 0
