"""Filters and the names of events."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.events.event_filter import EventFilter, TypePattern
from hub.core.events.event_types import check_pattern, check_published
from hub.core.events.journal import JournalEvent
from messagehub.errors import InvalidRequest


def event(kind="character.levelled_up", source="character", correlation_id="abc"):
    return JournalEvent(1, kind, source, correlation_id, "", 0, None)


@given(
    st.text("ab.*", max_size=12),
    st.text("ab.", max_size=24),
)
def test_a_pattern_matches_as_the_regular_expression_does(pattern, kind):
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), kind) is not None
    if "*" in pattern:
        assert TypePattern(pattern).matches(kind) is expected
    assert EventFilter([pattern] if pattern else []).matches(event(kind)) is (
        expected or not pattern
    )


def test_a_pattern_of_many_stars_takes_no_time():
    assert not TypePattern("a*" * 60 + "b").matches("a" * 100_000)


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        ([], True),
        (["*"], True),
        (["character.levelled_up"], True),
        (["character.*"], True),
        (["*.levelled_up"], True),
        (["*level*"], True),
        (["nothing", "*"], True),
        (["storage.*", "character.levelled_up"], True),
        (["storage.*"], False),
        (["character"], False),
        (["character.levelled"], False),
        (["haracter.*"], False),
    ],
)
def test_one_of_the_patterns_must_match(patterns, wanted):
    assert EventFilter(patterns).matches(event()) is wanted


def test_sources_are_exact():
    assert EventFilter(sources=["auth", "character"]).matches(event())
    assert not EventFilter(sources=["char"]).matches(event())


def test_the_correlation_id_is_exact():
    assert EventFilter(correlation_id="abc").matches(event())
    assert not EventFilter(correlation_id="ab").matches(event())


def test_all_conditions_must_hold():
    everything = EventFilter(["character.*"], ["character"], "abc")
    assert everything.matches(event())
    assert not everything.matches(event(kind="auth.logged_in"))
    assert not everything.matches(event(source="auth"))
    assert not everything.matches(event(correlation_id="x"))


def test_equal_conditions_make_equal_filters():
    assert EventFilter(["a.*", "b.c"], ["x", "y"]) == EventFilter(["b.c", "a.*"], ["y", "x"])
    assert hash(EventFilter(["a.*"])) == hash(EventFilter(["a.*"]))
    assert EventFilter(["*", "a.b"]) == EventFilter()
    assert EventFilter(["a.*"]) != EventFilter(["a.b"])
    assert EventFilter(sources=["a"]) != EventFilter(correlation_id="a")


@pytest.mark.parametrize("pattern", ["*", "storage.*", "a.b", "*.a_1", "a*b*"])
def test_good_patterns(pattern):
    check_pattern(pattern, "event_types[0]")


@pytest.mark.parametrize("pattern", ["", "Storage.*", "a b", "a.b\n", "ä.*", "a?", "a" * 129])
def test_a_pattern_that_can_never_match_is_refused(pattern):
    with pytest.raises(InvalidRequest) as refusal:
        check_pattern(pattern, "event_types[3]")
    assert list(refusal.value.fields) == ["event_types[3]"]


@pytest.mark.parametrize("kind", ["character.levelled_up", "a.b.c", "a1._", "storages.x"])
def test_types_that_services_may_publish(kind):
    check_published(kind)


@pytest.mark.parametrize(
    "kind",
    [
        *("", "character", "character.", ".a", "a..b", "Character.a", "1a.b", "_a.b", "a.b\n"),
        *("a.b c", "a-b.c", "a." + "b" * 127, "*", "a.*"),
        *("storage.operation_completed", "storage.anything", "schema.x", "transaction.x"),
    ],
)
def test_types_that_services_may_not_publish(kind):
    with pytest.raises(InvalidRequest) as refusal:
        check_published(kind)
    assert list(refusal.value.fields) == ["event.type"]
