"""A consumer of a named subscription, as a process of its own that a test may kill.

It says on its standard output what it does, a line each and at once: `handled ID` before it
acknowledges an event, and `acknowledged ID` when the hub has answered.
"""

import asyncio
import sys

from messagehub import Hub


async def consume(target: str, name: str) -> None:
    async with (
        Hub(target, service="character", timeout=60.0) as hub,
        hub.subscribe(subscription=name, start="earliest", consumer="worker-1") as events,
    ):
        async for event in events:
            print("handled", event.id, flush=True)
            await events.acknowledge()
            print("acknowledged", event.id, flush=True)


if __name__ == "__main__":
    asyncio.run(consume(*sys.argv[1:]))
