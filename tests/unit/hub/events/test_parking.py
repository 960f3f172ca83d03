"""The followers that have everything, and who of them is told of what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.events.event_filter import EventFilter
from hub.core.events.journal import JournalEvent
from hub.core.events.parking import Parking


class Follower:
    def __init__(self, **conditions):
        self.event_filter = EventFilter(**conditions)


def event(kind="a.b", correlation_id=""):
    return JournalEvent(1, kind, "s", correlation_id, "", 0, None)


@pytest.fixture
def parking():
    return Parking()


def test_those_who_want_one_of_the_events_are_taken(parking):
    wants_all, wants_a, wants_c = (
        Follower(),
        Follower(event_types=["a.*"]),
        Follower(event_types=["c.*"]),
    )
    for follower in (wants_all, wants_a, wants_c):
        parking.add(follower)
    assert set(parking.take_interested([event("x.y"), event("a.b")])) == {wants_all, wants_a}
    assert len(parking) == 1
    assert set(parking.take_interested([event("c.d")])) == {wants_c}
    assert len(parking) == 0


def test_equal_filters_are_asked_once(parking, monkeypatch):
    followers = {Follower(event_types=["a.*"]) for _ in range(10)}
    for follower in followers:
        parking.add(follower)
    asked = []
    original = EventFilter.matches
    monkeypatch.setattr(
        EventFilter, "matches", lambda self, event: asked.append(self) or original(self, event)
    )
    assert set(parking.take_interested([event()])) == followers
    assert len(asked) == 1


def test_a_burst_of_one_kind_is_one_question(parking, monkeypatch):
    parking.add(Follower(event_types=["c.*"]))
    asked = []
    monkeypatch.setattr(EventFilter, "matches", lambda _, event: asked.append(event))
    assert parking.take_interested([event() for _ in range(100)]) == []
    assert len(asked) == 1


@given(
    st.lists(
        st.builds(
            EventFilter,
            st.lists(st.sampled_from(["a.*", "a.b", "b.c"]), max_size=1),
            st.lists(st.sampled_from(["s", "t"]), max_size=1),
            st.sampled_from(["", "1", "2"]),
        ),
        max_size=6,
    ),
    st.lists(
        st.builds(
            lambda kind, source, correlation_id: JournalEvent(
                1, kind, source, correlation_id, "", 0, None
            ),
            st.sampled_from(["a.b", "a.c", "b.c"]),
            st.sampled_from(["s", "t"]),
            st.sampled_from(["", "1", "2"]),
        ),
        max_size=6,
    ),
)
def test_exactly_those_who_want_one_of_the_events_are_taken(filters, events):
    parking = Parking()
    followers = []
    for event_filter in filters:
        follower = Follower()
        follower.event_filter = event_filter
        followers.append(follower)
        parking.add(follower)
    wanting = {f for f in followers if any(f.event_filter.matches(event) for event in events)}
    assert set(parking.take_interested(events)) == wanting
    assert len(parking) == len(followers) - len(wanting)


def test_who_waits_for_another_correlation_id_is_not_asked(parking, monkeypatch):
    followers = [Follower(correlation_id=str(number)) for number in range(10)]
    for follower in followers:
        parking.add(follower)
    asked = []
    original = EventFilter.matches
    monkeypatch.setattr(
        EventFilter, "matches", lambda self, event: asked.append(self) or original(self, event)
    )
    assert parking.take_interested([event(correlation_id="7")]) == [followers[7]]
    assert len(asked) == 1
    assert len(parking) == 9


def test_who_leaves_is_forgotten(parking):
    one, other = Follower(correlation_id="c"), Follower(correlation_id="c")
    parking.discard(one)
    parking.add(one)
    parking.add(other)
    parking.discard(one)
    parking.discard(one)
    assert len(parking) == 1
    assert parking.take_interested([event(correlation_id="c")]) == [other]
    assert parking._parked == {}


def test_all_are_taken(parking):
    followers = {Follower(), Follower(correlation_id="c"), Follower(event_types=["a.b"])}
    for follower in followers:
        parking.add(follower)
    assert set(parking.take_all()) == followers
    assert (len(parking), parking._parked) == (0, {})
