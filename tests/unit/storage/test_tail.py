"""The newest events in memory."""

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from messagehub.v1.event_pb2 import Event
from storage.core.tail import Tail
from tests.unit.storage.scripted_engine import settle

ENOUGH = 1_000_000


def event(sequence: int, payload: int = 0) -> Event:
    return Event(sequence=sequence, custom=b"x" * payload)


def sequences(events: Sequence[Event] | None) -> list[int] | None:
    return None if events is None else [event.sequence for event in events]


async def test_what_was_appended_is_given_from_any_position_of_the_window() -> None:
    tail = Tail(1_000_000, 5)
    tail.append([event(6), event(7)], 7)
    tail.append([event(8)], 8)
    assert tail.sequence == 8
    assert sequences(tail.after(5, 100, ENOUGH)) == [6, 7, 8]
    assert sequences(tail.after(6, 100, ENOUGH)) == [7, 8]
    assert sequences(tail.after(6, 1, ENOUGH)) == [7]
    assert sequences(tail.after(8, 100, ENOUGH)) == []
    assert sequences(tail.after(9, 100, ENOUGH)) == [], "a position that the journal told first"


async def test_a_position_before_the_window_is_not_answered_from_it() -> None:
    tail = Tail(1_000_000, 5)
    tail.append([event(6)], 6)
    assert tail.after(4, 100, ENOUGH) is None


async def test_the_window_is_bounded_and_stays_without_a_gap() -> None:
    tail = Tail(250, 0)
    for number in range(1, 20):
        tail.append([event(number, 96)], number)
    assert tail.after(0, 100, ENOUGH) is None
    window = next(n for n in range(20) if tail.after(n, 100, ENOUGH) is not None)
    assert sequences(tail.after(window, 100, ENOUGH)) == list(range(window + 1, 20))
    assert 1 <= 19 - window <= 2


async def test_an_event_larger_than_the_window_leaves_it_empty_but_not_wrong() -> None:
    tail = Tail(50, 0)
    tail.append([event(1), event(2, 500)], 2)
    assert tail.sequence == 2
    assert tail.after(0, 100, ENOUGH) is None
    assert tail.after(1, 100, ENOUGH) is None
    assert sequences(tail.after(2, 100, ENOUGH)) == []
    tail.append([event(3)], 3)
    assert sequences(tail.after(2, 100, ENOUGH)) == [3]


async def test_a_commit_without_events_moves_nothing() -> None:
    tail = Tail(100, 7)
    tail.append([], 7)
    assert tail.sequence == 7
    assert sequences(tail.after(7, 1, ENOUGH)) == []


async def test_whoever_waits_is_woken_by_each_commit_and_by_the_end() -> None:
    tail = Tail(1000, 0)
    woken: list[str] = []

    async def wait(name: str) -> None:
        await tail.more()
        woken.append(name)

    waiters = [asyncio.ensure_future(wait(name)) for name in "ab"]
    await settle()
    assert woken == []
    tail.append([event(1)], 1)
    await settle()
    assert woken == ["a", "b"]
    waiters.append(asyncio.ensure_future(wait("c")))
    await settle()
    assert woken == ["a", "b"], "it waits for the next one"
    tail.end()
    await asyncio.gather(*waiters)
    await tail.more()


@given(
    st.lists(st.lists(st.integers(0, 120), min_size=1, max_size=4), max_size=25),
    st.integers(1, 500),
    st.integers(0, 60),
    st.integers(1, 10),
)
def test_what_the_window_answers_has_no_gap(
    commits: list[list[int]], bytes_max: int, after: int, limit: int
) -> None:
    async def run() -> None:
        tail = Tail(bytes_max, 0)
        newest = 0
        for commit in commits:
            events = [event(newest + 1 + place, size) for place, size in enumerate(commit)]
            newest += len(events)
            tail.append(events, newest)
        found = sequences(tail.after(after, limit, ENOUGH))
        if found is not None:
            assert found == list(range(after + 1, newest + 1))[:limit]
        assert tail.after(newest, limit, ENOUGH) is not None

    asyncio.run(run())


async def test_a_piece_is_bounded_in_bytes_but_never_empty() -> None:
    tail = Tail(ENOUGH, 0)
    events = [Event(sequence=n, custom=b"x" * 1000) for n in range(1, 6)]
    tail.append(events, 5)
    assert sequences(tail.after(0, 100, 2500)) == [1, 2]
    assert sequences(tail.after(2, 100, 1)) == [3]
