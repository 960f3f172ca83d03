"""The followers that have everything, and who of them is told of what."""

import pytest

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
