"""Pages that are already there are taken together; nothing waits for those that are not."""

import asyncio
from contextlib import aclosing

import pytest

from hub.core.events.bursts import BURST_EVENTS_MAX, bursts
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


def event(number):
    return JournalEvent(number, "a.b", "s", "", "", 1, None)


@pytest.fixture
async def source():
    return Source()


async def next_numbers(gathered):
    return [page.boundary for page in await anext(gathered)]


async def test_without_patience_every_page_comes_alone(source):
    source.put(1, 2, 3)
    async with aclosing(bursts(source.pages(), lambda: 0)) as gathered:
        assert [await next_numbers(gathered) for _ in range(3)] == [[1], [2], [3]]


async def test_with_patience_what_is_there_comes_together(source):
    source.put(1, 2, 3)
    async with aclosing(bursts(source.pages(), lambda: 5)) as gathered:
        assert await next_numbers(gathered) == [1, 2, 3]
        source.put(4)
        assert await next_numbers(gathered) == [4]


async def test_nothing_waits_for_a_page_that_is_not_there(source):
    async with aclosing(bursts(source.pages(), lambda: 5)) as gathered:
        following = asyncio.create_task(next_numbers(gathered))
        await settle()
        source.put(1)
        await settle()
        assert following.done()
        assert following.result() == [1]


async def test_a_burst_has_an_end_under_endless_load(source):
    source.put(*range(10), events=BURST_EVENTS_MAX // 4)
    async with aclosing(bursts(source.pages(), lambda: 5)) as gathered:
        assert await next_numbers(gathered) == [0, 1, 2, 3]


@pytest.mark.parametrize("patience", [0, 5])
async def test_what_came_before_a_failure_is_given_before_it(source, patience):
    source.put(1, 2)
    source.queue.put_nowait(StorageUnavailable("broken"))
    gathered = bursts(source.pages(), lambda: patience)
    received = await next_numbers(gathered)
    if patience == 0:
        received += await next_numbers(gathered)
    assert received == [1, 2]
    with pytest.raises(StorageUnavailable):
        await anext(gathered)
    assert source.closed


@pytest.mark.parametrize("patience", [0, 5])
async def test_the_end_of_the_pages_is_the_end(source, patience):
    source.put(1)
    source.queue.put_nowait(None)
    assert [
        [page.boundary for page in burst]
        async for burst in bursts(source.pages(), lambda: patience)
    ] == [[1]]


async def test_closing_leaves_nothing_behind(source):
    source.put(1)
    pages = source.pages()
    gathered = bursts(pages, lambda: 5)
    await anext(gathered)
    await gathered.aclose()
    await pages.aclose()
    assert source.closed


async def test_a_failure_that_nobody_waits_for_is_not_reported(source):
    source.put(1)
    gathered = bursts(source.pages(), lambda: 0)
    await anext(gathered)
    source.queue.put_nowait(StorageUnavailable("broken"))
    await settle()
    await gathered.aclose()
