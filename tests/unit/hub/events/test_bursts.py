"""Pages gather while many are told of the last ones; nothing waits while few are."""

import asyncio
import time
from contextlib import aclosing

import pytest

from hub.core.events.bursts import (
    BURST_EVENTS_MAX,
    REST_PER_TELLING,
    TELLING_SECONDS_MIN,
    Pace,
    bursts,
)
from hub.core.events.journal import JournalEvent, JournalPage
from messagehub.errors import StorageUnavailable
from tests.unit.hub.events.journal_model import settle


class Source:
    """Pages as they are put in; a failure or None ends them."""

    def __init__(self):
        self.queue = asyncio.Queue()
        self.closed = False

    def put(self, *numbers, events=1):
        for number in numbers:
            self.queue.put_nowait(JournalPage("e", [event(number)] * events, number))

    async def pages(self):
        try:
            while (page := await self.queue.get()) is not None:
                if isinstance(page, Exception):
                    raise page
                yield page
        finally:
            self.closed = True


class Clock:
    """Stands still unless the test moves it."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Resting(Pace):
    """After every burst there is a rest, longer than any test looks."""

    def rest(self, telling):
        return 1_000.0


def resting():
    return Resting(Clock(), 1_000.0)


def event(number):
    return JournalEvent(number, "a.b", "s", "", "", 1, None)


@pytest.fixture
async def source():
    return Source()


async def next_numbers(gathered):
    return [page.boundary for page in await anext(gathered)]


async def test_without_a_rest_every_page_comes_alone_and_at_once(source):
    source.put(1, 2, 3)
    async with aclosing(bursts(source.pages(), Pace(Clock(), 10.0))) as gathered:
        assert [await next_numbers(gathered) for _ in range(3)] == [[1], [2], [3]]


async def test_after_long_telling_pages_gather_until_the_rest_is_over(source):
    clock = Clock()
    async with aclosing(bursts(source.pages(), Pace(clock, 10.0))) as gathered:
        source.put(1)
        assert await next_numbers(gathered) == [1]
        clock.now += 1.0  # so long took the telling
        following = asyncio.create_task(next_numbers(gathered))
        for number in (2, 3, 4):
            source.put(number)
            await settle()
        assert not following.done()
        clock.now += 1.0 * REST_PER_TELLING
        source.put(5)
        await settle()
        assert following.result() == [2, 3, 4, 5]
        source.put(6, 7)
        assert await next_numbers(gathered) == [6]


async def test_a_page_that_comes_after_the_rest_waits_for_nothing(source):
    clock = Clock()
    async with aclosing(bursts(source.pages(), Pace(clock, 10.0))) as gathered:
        source.put(1)
        await next_numbers(gathered)
        clock.now += 1.0
        following = asyncio.create_task(next_numbers(gathered))
        await settle()
        clock.now += 1.0 * REST_PER_TELLING
        source.put(2)
        await settle()
        assert following.result() == [2]


def test_a_rest_is_in_proportion_and_bounded_and_short_telling_needs_none():
    pace = Pace(Clock(), 0.1)
    assert pace.rest(TELLING_SECONDS_MIN / 2) == 0
    assert pace.rest(0.01) == 0.01 * REST_PER_TELLING
    assert pace.rest(5.0) == 0.1


async def test_a_rest_ends_by_itself(source):
    pace = Pace(asyncio.get_running_loop().time, 0.01)
    async with aclosing(bursts(source.pages(), pace)) as gathered:
        source.put(1)
        await next_numbers(gathered)
        time.sleep(0.01)  # noqa: ASYNC251 - telling keeps the loop busy
        source.put(2)
        assert await next_numbers(gathered) == [2]


async def test_a_burst_has_an_end_under_endless_load(source):
    source.put(*range(10), events=BURST_EVENTS_MAX // 4)
    async with aclosing(bursts(source.pages(), resting())) as gathered:
        assert await next_numbers(gathered) == [0]
        assert await next_numbers(gathered) == [1, 2, 3, 4]


async def test_what_came_before_a_failure_is_given_before_it(source):
    source.put(1, 2, 3)
    source.queue.put_nowait(StorageUnavailable("broken"))
    gathered = bursts(source.pages(), resting())
    assert [await next_numbers(gathered) for _ in range(2)] == [[1], [2, 3]]
    with pytest.raises(StorageUnavailable):
        await anext(gathered)
    assert source.closed


@pytest.mark.parametrize("rest", [False, True])
async def test_the_end_of_the_pages_is_the_end(source, rest):
    source.put(1)
    source.queue.put_nowait(None)
    pace = resting() if rest else Pace(Clock(), 10.0)
    assert [[page.boundary for page in burst] async for burst in bursts(source.pages(), pace)] == [
        [1]
    ]


async def test_closing_leaves_nothing_behind(source):
    source.put(1)
    pages = source.pages()
    gathered = bursts(pages, resting())
    await anext(gathered)
    await gathered.aclose()
    await pages.aclose()
    assert source.closed


async def test_a_failure_that_nobody_waits_for_is_not_reported(source):
    source.put(1)
    gathered = bursts(source.pages(), Pace(Clock(), 10.0))
    await anext(gathered)
    source.queue.put_nowait(StorageUnavailable("broken"))
    await settle()
    await gathered.aclose()
