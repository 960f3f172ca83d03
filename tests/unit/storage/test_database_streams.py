"""Queries and followers of one database over a scripted engine."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from messagehub.errors import (
    CursorEpochChanged,
    CursorExpired,
    HubError,
    QueueFull,
    ShuttingDown,
)
from messagehub.v1.event_pb2 import Event
from messagehub.v1.statement_pb2 import ResultSet
from storage.core.following import FollowLimits
from tests.unit.storage.scripted_databases import Setting
from tests.unit.storage.scripted_engine import settle

NOWHERE = Path("nowhere")


async def test_queries_are_bounded_and_one_is_kept_for_others(setting: Setting) -> None:
    """There are two."""

    def query(service: str) -> AsyncGenerator[ResultSet, None]:
        return setting.database.pages(setting.caller.read("q", service=service), 10)

    first, other = query("a"), query("b")
    await anext(first)
    with pytest.raises(QueueFull) as caught:
        await anext(query("a"))
    assert caught.value.retry_after
    await anext(other)
    for service in "abc":
        with pytest.raises(QueueFull):
            await anext(query(service))
    await first.aclose()
    again = query("a")
    await anext(again)
    for pages in (other, again):
        await pages.aclose()


async def test_tails_do_not_take_the_place_of_queries(setting: Setting) -> None:
    tails = [setting.database.follow("", 0) for _ in range(5)]
    for tail in tails:
        await anext(tail)
    pages = setting.database.pages(setting.caller.read("q"), 10)
    await anext(pages)
    for open_one in (pages, *tails):
        await open_one.aclose()


async def test_the_end_interrupts_queries_and_says_why(setting: Setting) -> None:
    pages = setting.database.pages(setting.caller.read("q"), 10)
    await anext(pages)
    setting.disk.paging.shut()
    waiting = asyncio.ensure_future(anext(pages))
    await setting.disk.paging.reached.wait()
    ending = asyncio.ensure_future(setting.database.end())
    await settle()
    setting.disk.paging.open()
    with pytest.raises(ShuttingDown):
        await waiting
    await ending


async def collect(setting: Setting, after: int, count: int) -> list[int]:
    """Follows from a position until so many events have come."""
    found: list[int] = []
    async with aclosing(setting.database.follow("", after)) as parts:
        async for events, position in parts:
            found += [event.sequence for event in events]
            assert position.sequence == (found[-1] if found else after)
            if len(found) >= count:
                return found
    raise AssertionError("the stream ended")


async def test_a_follower_gets_everything_from_any_position_and_then_live(
    setting: Setting,
) -> None:
    setting.write(*(str(n) for n in range(10)))
    await settle()
    following = [asyncio.ensure_future(collect(setting, after, 15 - after)) for after in range(11)]
    await settle()
    setting.write(*(str(n) for n in range(10, 15)))
    for after, found in enumerate(await asyncio.gather(*following)):
        assert found == list(range(after + 1, 16))


async def test_a_follower_beyond_the_window_catches_up_from_the_journal() -> None:
    setting = Setting(tail_bytes_max=1)
    setting.write(*(str(n) for n in range(10)))
    await settle()
    assert await collect(setting, 0, 10) == list(range(1, 11))
    assert setting.disk.calls.count("journal") >= 3, "at most four events at a time"
    await setting.database.end()


async def test_a_commit_is_told_to_followers_only_when_it_is_announced() -> None:
    """The journal may hold one that the write lane does not know of yet, and nobody may name it."""
    setting = Setting(tail_bytes_max=1)
    setting.write("1")
    await settle()
    setting.disk.events.append(Event(sequence=2))
    async with aclosing(setting.database.follow("", 0)) as parts:
        await anext(parts)
        events, position = await anext(parts)
        assert [event.sequence for event in events] == [1]
        assert position.sequence == 1
        following = asyncio.ensure_future(anext(parts))
        await settle(50)
        assert not following.done(), "no heartbeat before its time"
        setting.write("3")
        found: list[int] = []
        while len(found) < 2:
            events, _ = await following
            found += [event.sequence for event in events]
            following = asyncio.ensure_future(anext(parts))
        assert found == [2, 3]
        following.cancel()
        await asyncio.wait([following])
    await setting.database.end()


async def test_a_follower_that_the_trimming_overtakes_is_told() -> None:
    setting = Setting(tail_bytes_max=1)
    setting.write(*(str(n) for n in range(10)))
    await settle()
    async with aclosing(setting.database.follow("", 0)) as parts:
        await anext(parts)
        events, _ = await anext(parts)
        assert [event.sequence for event in events] == [1, 2, 3, 4]
        await setting.database.trim(older_than_us=0, keep_rows=0, at_most=6)
        with pytest.raises(CursorExpired):
            await anext(parts)
    await setting.database.end()


async def test_silence_is_filled_with_heartbeats() -> None:
    setting = Setting(follow=FollowLimits(4, 100_000, 1e-6))
    await setting.database.open()
    async with aclosing(setting.database.follow("", 0)) as parts:
        for _ in range(5):
            events, position = await anext(parts)
            assert events == []
            assert (position.epoch, position.sequence) == ("e1", 0)
    await setting.database.end()


@pytest.mark.parametrize(
    ("epoch", "after", "expected"),
    [
        ("another", 9, CursorEpochChanged),
        ("", 11, CursorEpochChanged),
        ("e1", 11, CursorEpochChanged),
        ("e1", 8, CursorExpired),
        ("", 0, CursorExpired),
        ("", -1, CursorExpired),
    ],
)
async def test_a_position_that_is_not_of_this_journal_is_refused(
    setting: Setting, epoch: str, after: int, expected: type[HubError]
) -> None:
    setting.write(*(str(n) for n in range(10)))
    await settle()
    assert not await setting.database.trim(older_than_us=0, keep_rows=0, at_most=100)
    with pytest.raises(expected) as caught:
        await anext(setting.database.follow(epoch, after))
    assert caught.value.metadata == {
        "database": "items_db",
        "epoch": "e1",
        "oldest_sequence": "9",
    }
    await anext(setting.database.follow("e1", 9))


async def test_a_follower_ends_with_the_database(setting: Setting) -> None:
    await setting.database.open()
    parts = setting.database.follow("", 0)
    await anext(parts)
    following = asyncio.ensure_future(anext(parts))
    await settle()
    await setting.database.end()
    with pytest.raises(ShuttingDown) as caught:
        await following
    assert caught.value.retry_after


async def test_there_may_be_more_to_trim(setting: Setting) -> None:
    assert not await setting.database.trim(older_than_us=0, keep_rows=0, at_most=2)
    assert setting.disk.calls == [], "a closed database is left closed"
    setting.write("1", "2", "3", "4")
    await settle()
    assert await setting.database.trim(older_than_us=0, keep_rows=0, at_most=2)
    assert not await setting.database.trim(older_than_us=0, keep_rows=0, at_most=2)
    assert (await setting.database.position()).oldest_sequence == 3
