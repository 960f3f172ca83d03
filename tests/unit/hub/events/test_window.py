"""Whole commits, the window over them, and how a message is filled from a run of events."""

import pytest

from hub.core.events.commits import CommitAssembler
from hub.core.events.event_filter import EventFilter
from hub.core.events.journal import JournalEvent, JournalPage, Position
from hub.core.events.window import FORGOTTEN_EVENTS_MAX, Share, Window, take

EPOCH = "e"
ALL = EventFilter()


def event(sequence, transaction_id="", *, size=10, kind="a.b", ends=False):
    return JournalEvent(sequence, kind, "s", "", transaction_id, size, sequence, ends)


def page(*events, boundary=0):
    return JournalPage(EPOCH, events, boundary)


def ends(events):
    return [(one.sequence, one.ends_commit) for one in events]


def share(events=100, size=1000, commit=2000, scanned=1000):
    return Share(events, size, commit, scanned)


def commits(*lengths, start=1, size=10):
    """Events of commits with so many events each."""
    run = []
    for length in lengths:
        first = start + len(run)
        run += [
            event(first + index, f"t{first}", size=size, ends=index == length - 1)
            for index in range(length)
        ]
    return run


# Commits.


def test_an_event_without_transaction_is_a_commit():
    assert ends(CommitAssembler().feed(page(event(1), event(2)))) == [(1, True), (2, True)]


def test_adjacent_events_of_a_transaction_are_one_commit():
    complete = CommitAssembler().feed(page(event(1, "t"), event(2, "t"), event(3, "u"), event(4)))
    assert ends(complete) == [(1, False), (2, True), (3, True), (4, True)]


def test_the_newest_commit_is_held_until_the_boundary_passes_it():
    assembler = CommitAssembler()
    assert ends(assembler.feed(page(event(1), event(2, "t"), boundary=1))) == [(1, True)]
    assert assembler.feed(page(event(3, "t"), boundary=1)) == []
    assert assembler.held_bytes == 20
    assert ends(assembler.feed(page(boundary=3))) == [(2, False), (3, True)]
    assert (assembler.held, assembler.held_bytes) == ([], 0)


def test_the_newest_commit_is_complete_when_another_follows():
    assembler = CommitAssembler()
    assert assembler.feed(page(event(1, "t"))) == []
    assert ends(assembler.feed(page(event(2, "u")))) == [(1, True)]


# Filling a message.


def test_a_message_ends_with_a_commit():
    taken = take(commits(2, 2, 2), 0, ALL, share(events=5))
    assert [one.sequence for one in taken.events] == [1, 2, 3, 4]
    assert (taken.read, taken.boundary) == (4, 4)


def test_bytes_bound_a_message_too():
    taken = take(commits(1, 1, 1, 1), 0, ALL, share(size=25))
    assert [one.sequence for one in taken.events] == [1, 2]


def test_a_large_commit_does_not_join_others():
    taken = take(commits(1, 5), 0, ALL, share(events=3))
    assert [one.sequence for one in taken.events] == [1]
    assert (taken.read, taken.boundary) == (1, 1)


def test_a_large_commit_alone_is_taken_whole():
    taken = take(commits(5, 1), 0, ALL, share(events=3, size=30, commit=60))
    assert [one.sequence for one in taken.events] == [1, 2, 3, 4, 5]
    assert taken.boundary == 5


def test_only_a_commit_over_the_subscribers_bound_comes_in_pieces():
    run = commits(5)
    first = take(run, 0, ALL, share(events=1, size=10, commit=30))
    assert ([one.sequence for one in first.events], first.read, first.boundary) == (
        [1, 2, 3],
        3,
        None,
    )
    second = take(run, 3, ALL, share(events=1, size=10, commit=30))
    assert ([one.sequence for one in second.events], second.read, second.boundary) == ([4, 5], 5, 5)


def test_an_event_larger_than_everything_is_taken_alone():
    taken = take(commits(1, 1, size=9999), 0, ALL, share())
    assert [one.sequence for one in taken.events] == [1]


def test_what_is_not_wanted_is_passed_by():
    run = [event(1, kind="x.y", ends=True), event(2, ends=True), event(3, kind="x.y", ends=True)]
    taken = take(run, 0, EventFilter(["a.*"]), share(events=1))
    assert ([one.sequence for one in taken.events], taken.read, taken.boundary) == ([2], 3, 3)


def test_unwanted_events_before_a_large_commit_count_as_progress():
    run = [event(1, kind="x.y", ends=True), *commits(3, start=2)]
    taken = take(run, 0, EventFilter(["a.*"]), share(events=1))
    assert ([one.sequence for one in taken.events], taken.read) == ([], 1)


def test_looking_ends_with_a_commit_after_enough_events():
    taken = take(commits(1, 3, 3), 0, EventFilter(["x.y"]), share(scanned=2))
    assert (taken.events, taken.read, taken.boundary) == ([], 4, 4)


# The window.


def window(bytes_max=100, at=10):
    return Window(Position(EPOCH, at), bytes_max)


def test_a_new_window_holds_its_position_only():
    fresh = window()
    assert fresh.holds(Position(EPOCH, 10))
    assert not fresh.holds(Position(EPOCH, 9))
    assert not fresh.holds(Position(EPOCH, 11))
    assert not fresh.holds(Position("other", 10))


def test_it_gives_what_follows_a_position_also_one_between_events():
    filled = window()
    filled.append([event(12, ends=True), event(15, ends=True)], 15)
    for after, expected in ((10, [12, 15]), (11, [12, 15]), (12, [15]), (14, [15])):
        taken = filled.take(after, ALL, share())
        assert ([one.sequence for one in taken.events], taken.read) == (expected, 15)


def test_the_oldest_events_go_when_the_bytes_are_over():
    filled = window(bytes_max=30)
    filled.append([event(n, ends=True) for n in range(11, 16)], 15)
    assert (filled.start, filled.end, filled.bytes) == (12, 15, 30)
    assert not filled.holds(Position(EPOCH, 11))
    assert [one.sequence for one in filled.take(12, ALL, share()).events] == [13, 14, 15]


def test_it_never_keeps_more_than_its_bytes_however_long_it_lives():
    filled = window(bytes_max=30)
    for number in range(11, 3 * FORGOTTEN_EVENTS_MAX):
        filled.append([event(number, ends=True)], number)
        assert filled.bytes <= 30
    assert len(filled._events) <= FORGOTTEN_EVENTS_MAX + 4
    assert sum(one.size for one in filled._events) == filled.bytes
    assert [one.sequence for one in filled.take(filled.start, ALL, share()).events] == [
        filled.end - 2,
        filled.end - 1,
        filled.end,
    ]


def test_an_event_larger_than_the_window_leaves_it_empty_at_the_end():
    filled = window(bytes_max=30)
    filled.append([event(11, size=99, ends=True)], 11)
    assert (filled.start, filled.end, filled.bytes) == (11, 11, 0)
    assert filled.holds(Position(EPOCH, 11))


def test_while_a_commit_larger_than_the_window_comes_in_nothing_is_inside():
    filled = window()
    filled.begin_beyond(14)
    assert not any(filled.holds(Position(EPOCH, at)) for at in range(20))
    filled.append([event(15, "t", ends=True)], 15)
    assert filled.holds(Position(EPOCH, 14))
    assert [one.sequence for one in filled.take(14, ALL, share()).events] == [15]


def test_the_end_moves_on_without_events():
    filled = window()
    filled.append([], 20)
    assert filled.holds(Position(EPOCH, 12))
    taken = filled.take(12, ALL, share())
    assert (taken.events, taken.read, taken.boundary) == ([], 20, 20)


@pytest.mark.parametrize("after", [10, 11])
def test_filters_apply(after):
    filled = window()
    filled.append([event(11, kind="x.y", ends=True), event(12, ends=True)], 12)
    assert [one.sequence for one in filled.take(after, EventFilter(["a.*"]), share()).events] == [
        12
    ]
