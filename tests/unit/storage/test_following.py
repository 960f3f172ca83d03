"""What a follower of a journal is told: everything in order, by whole commits."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import aclosing

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from messagehub.storage.v1.storage_service_pb2 import JournalRecord
from messagehub.v1.event_pb2 import Event
from storage.core.following import Following, FollowLimits, whole_commits
from storage.core.tail import Tail
from storage.sqlite import journal
from storage.sqlite.journal import Entry
from tests.unit.storage.scripted_engine import settle
from tests.unit.storage.sqlite_parts import EPOCH

ENOUGH = 1_000_000


def commits(*sizes: int, named: bool = True) -> list[list[Event]]:
    """Commits of so many events; a commit of one event may be outside of any transaction."""
    made: list[list[Event]] = []
    sequence = 0
    for number, size in enumerate(sizes):
        transaction = f"t{number}" if size > 1 or named else ""
        made.append(
            [Event(sequence=sequence + n + 1, transaction_id=transaction) for n in range(size)]
        )
        sequence += size
    return made


class Journal:
    """Commits in a journal of which the newest are in memory too."""

    def __init__(self, told: Sequence[Sequence[Event]], window_bytes: int = ENOUGH) -> None:
        self.events: list[Event] = []
        self.tail = Tail(window_bytes, 0)
        self.reads = 0
        for commit in told:
            self.commit(commit)

    def commit(self, commit: Sequence[Event]) -> None:
        self.events += commit
        self.tail.append(list(commit), commit[-1].sequence)

    async def read(self, after: int, limit: int) -> list[Event]:
        self.reads += 1
        return [event for event in self.events if event.sequence > after][:limit]

    def follow(self, limit: int, seconds: float = 1e6) -> Following:
        return Following(self.tail, self.read, FollowLimits(limit, ENOUGH, seconds))


async def told(journal: Journal, limit: int, after: int = 0) -> list[tuple[list[int], int]]:
    """Every message up to the end of the journal."""
    messages: list[tuple[list[int], int]] = []
    async with aclosing(journal.follow(limit, seconds=0.0).parts(after)) as parts:
        async for events, boundary in parts:
            messages.append(([event.sequence for event in events], boundary))
            if not events:
                break
    return messages


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=20),
    st.integers(1, 8),
    st.sampled_from([1, 60, 200, ENOUGH]),
    st.booleans(),
)
@example([3, 3], 3, 1, True)
@example([1, 9, 1], 2, ENOUGH, False)
def test_a_message_ends_with_a_commit_unless_that_alone_is_larger(
    sizes: list[int], limit: int, window_bytes: int, named: bool
) -> None:
    history = commits(*sizes, named=named)
    messages = asyncio.run(told(Journal(history, window_bytes), limit))
    ends = [commit[-1].sequence for commit in history]
    commit_of = {event.sequence: commit for commit in history for event in commit}
    assert [n for events, _ in messages for n in events] == list(range(1, ends[-1] + 1))
    reached = 0
    for events, boundary in messages:
        assert boundary in (0, *ends), "nobody may go on from inside of a commit"
        reached = events[-1] if events else reached
        assert boundary <= reached
        assert len(events) <= limit
        if events and events[-1] not in ends:
            assert len({commit_of[n][0].sequence for n in events}) == 1, "a piece of one commit"
            assert len(commit_of[events[-1]]) > limit
    assert messages[-1] == ([], ends[-1])


async def test_a_commit_that_is_the_newest_is_known_to_be_whole() -> None:
    journal = Journal(commits(3))
    async with aclosing(journal.follow(3).parts(0)) as parts:
        events, boundary = await anext(parts)
    assert ([event.sequence for event in events], boundary) == ([1, 2, 3], 3)


async def test_whoever_comes_back_into_a_commit_gets_the_rest_of_it() -> None:
    journal = Journal(commits(5, 1))
    assert await told(journal, 2, after=2) == [([3, 4], 2), ([5, 6], 6), ([], 6)]


@pytest.mark.parametrize("window_bytes", [1, ENOUGH])
async def test_a_commit_comes_without_a_message_before_it(window_bytes: int) -> None:
    journal = Journal([], window_bytes)
    async with aclosing(journal.follow(10).parts(0)) as parts:
        following = asyncio.ensure_future(anext(parts))
        await settle()
        journal.commit([Event(sequence=1)])
        events, boundary = await following
    assert ([event.sequence for event in events], boundary) == ([1], 1)


async def test_a_position_that_moves_without_an_event_is_told() -> None:
    journal = Journal(commits(1))
    async with aclosing(journal.follow(10).parts(1)) as parts:
        following = asyncio.ensure_future(anext(parts))
        await settle()
        journal.tail.append([], 4)
        assert await following == ([], 4)


async def test_it_ends_with_the_tail() -> None:
    journal = Journal(commits(1))
    async with aclosing(journal.follow(10).parts(1)) as parts:
        following = asyncio.ensure_future(anext(parts))
        await settle()
        journal.tail.end()
        with pytest.raises(StopAsyncIteration):
            await following


def test_events_outside_of_transactions_are_commits() -> None:
    (one,), (two,) = commits(1, 1, named=False)
    assert whole_commits([one, two], 0, 9) == ([one, two], 2)


def write_commit(raw: sqlite3.Connection, commit: Sequence[Event]) -> None:
    """One transaction of SQLite, with a line of the journal for each event."""
    raw.execute("BEGIN IMMEDIATE")
    for event in commit:
        record = JournalRecord(query="x" * 50, transaction_id=event.transaction_id)
        journal.append(raw, [Entry(event.sequence, None, b"", event.sequence, record)])
    raw.execute("COMMIT")


@pytest.mark.parametrize("bytes_max", [1, 200, ENOUGH], ids=["one", "few", "many"])
async def test_a_real_journal_is_read_by_whole_commits(bytes_max: int) -> None:
    raw = sqlite3.connect(":memory:", isolation_level=None)
    journal.set_up(raw, EPOCH)
    history = commits(1, 4, 1, 1, 9, 2, 3, named=False)
    tail = Tail(1, 0)  # forgets at once, so that everything is read from the journal
    for commit in history:
        write_commit(raw, commit)
        tail.append(list(commit), commit[-1].sequence)

    async def read(after: int, limit: int) -> Sequence[Event]:
        return journal.after(raw, after, limit, bytes_max, EPOCH, "items_db")

    ends = {0, *(commit[-1].sequence for commit in history)}
    sequences: list[int] = []
    async with aclosing(Following(tail, read, FollowLimits(5, ENOUGH, 0.0)).parts(0)) as parts:
        async for events, boundary in parts:
            sequences += [event.sequence for event in events]
            assert boundary in ends
            if not events:
                break
    assert sequences == list(range(1, 22))
    assert boundary == sequences[-1]
