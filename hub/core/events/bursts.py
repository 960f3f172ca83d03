"""Pages that come while many are still being told of the last ones, taken together."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

from hub.core.events.journal import JournalPage

# A burst ends here, so that those who wait for it get their turn under endless load.
BURST_EVENTS_MAX: Final = 2_000
# Telling that takes less than this needs no rest after it: a message to a few subscribers.
TELLING_SECONDS_MIN: Final = 0.002
# To tell many takes about once more of the hub's time after its first turn, as gRPC completes
# what it was given. With this rest between, they keep a processor half busy at most.
REST_PER_TELLING: Final = 2.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How telling is measured, and how long a rest after it may be at most."""

    clock: Callable[[], float]
    rest_seconds_max: float

    def rest(self, telling: float) -> float:
        """Gives the seconds to gather after telling took so many; 0 while little is to do."""
        if telling < TELLING_SECONDS_MIN:
            return 0.0
        return min(telling * REST_PER_TELLING, self.rest_seconds_max)


async def bursts(
    pages: AsyncGenerator[JournalPage], pace: Pace
) -> AsyncGenerator[list[JournalPage]]:
    """Gives each page at once, or after a rest together with those that came meanwhile.

    A message costs the hub the same whether it has one event or fifty. When many are told of
    every page, telling takes so long that the next pages wait meanwhile, and told one by one
    they would take all of the hub's time. So after telling took long, pages gather for a time
    in proportion to it. While few are told there is no rest, and nothing waits.
    """
    following: asyncio.Future[JournalPage] | None = None
    rested_at = pace.clock()
    try:
        while True:
            burst = [await anext(pages) if following is None else await following]
            following = asyncio.ensure_future(anext(pages))
            events = len(burst[0].events)
            while events < BURST_EVENTS_MAX and (rest := rested_at - pace.clock()) > 0:
                await asyncio.wait((following,), timeout=rest)
                if following.done():
                    if following.cancelled() or following.exception() is not None:
                        break
                    burst.append(following.result())
                    events += len(burst[-1].events)
                    following = asyncio.ensure_future(anext(pages))
            began = pace.clock()
            yield burst
            # Whoever was woken has its turn before this task has its next one.
            await asyncio.sleep(0)
            told_at = pace.clock()
            rested_at = told_at + pace.rest(told_at - began)
    except StopAsyncIteration:
        return
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
