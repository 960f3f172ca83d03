"""Waiting for what no event announces."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Final

SECONDS_MAX: Final = 30.0
LOOK_EVERY_SECONDS: Final = 0.02


async def eventually(
    met: Callable[[], bool | Awaitable[bool]], *, seconds: float = SECONDS_MAX
) -> None:
    """Returns once the condition is met; raises `TimeoutError` if it is not after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            answer = met()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(LOOK_EVERY_SECONDS)
