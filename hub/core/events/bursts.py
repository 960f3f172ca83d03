"""Pages that are already there, taken together."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Final

from hub.core.events.journal import JournalPage

# A burst ends here, so that those who wait for it get their turn under endless load.
BURST_EVENTS_MAX: Final = 2_000


async def bursts(
    pages: AsyncGenerator[JournalPage], patience: Callable[[], int]
) -> AsyncGenerator[list[JournalPage]]:
    """Gives each page at once, together with those that follow it without a pause.

    When many are told of every page, telling takes so long that the next pages wait meanwhile;
    told one by one they would fall behind without end. So before a page is given, it is looked
    `patience()` times, once in each turn of the loop, whether the next is there. With a patience
    in proportion to how many are told, looking costs a small part of telling.
    """
    following: asyncio.Future[JournalPage] | None = None
    try:
        while True:
            burst = [await anext(pages) if following is None else await following]
            following = asyncio.ensure_future(anext(pages))
            events = len(burst[0].events)
            looks = patience()
            while looks and events < BURST_EVENTS_MAX:
                await asyncio.sleep(0)
                looks -= 1
                if following.done():
                    if following.cancelled() or following.exception() is not None:
                        break
                    burst.append(following.result())
                    events += len(burst[-1].events)
                    following = asyncio.ensure_future(anext(pages))
                    looks = patience()
            yield burst
    except StopAsyncIteration:
        return
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
