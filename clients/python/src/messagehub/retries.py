"""When a failed call is sent again, and after how long.

Only two kinds of failure are: what the error table marks as "send the same call again" with the
code UNAVAILABLE, and a full queue; of a whole transaction also a conflict. A write keeps its
request id through all attempts, so that one that had already been done is answered, not done again.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from messagehub.errors import HubError, Retry

__all__ = ["Retries", "may_retry"]

Answer = TypeVar("Answer")


def may_retry(error: HubError) -> bool:
    """True if the same call may succeed later without anybody fixing anything."""
    if error.retry is Retry.SAME_CALL:
        return error.code == "UNAVAILABLE"
    return error.retry is Retry.SLOWER


@dataclass(frozen=True)
class Retries:
    """Exponential backoff with full jitter, within the caller's deadline.

    `first_delay` and `delay_max` are in seconds; the n-th wait is a random part of
    `first_delay * 2 ** (n - 1)`, at most of `delay_max`, after what the hub asked to wait.
    `attempts_max` counts the first attempt too; None = only the deadline counts.
    `random`, `sleep` and `clock` (monotonic seconds) stand here for tests.
    """

    attempts_max: int | None = None
    first_delay: float = 0.05
    delay_max: float = 2.0
    random: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic

    def delay(self, failures: int, retry_after: float | None = None) -> float:
        """Seconds to wait after the n-th failure in a row."""
        doublings = min(failures - 1, 32)
        longest = min(self.delay_max, self.first_delay * 2.0**doublings)
        return (retry_after or 0.0) + self.random() * longest

    async def run(
        self,
        call: Callable[[float], Awaitable[Answer]],
        timeout: float,
        again: Callable[[HubError], bool] = may_retry,
    ) -> Answer:
        """Gives the answer of `call`, which gets the seconds that are left of `timeout`.

        Raises the last error when `again` says no to it, the attempts are used up, or the next
        attempt would begin after the deadline.
        """
        deadline = self.clock() + timeout
        failures = 0
        while True:
            try:
                return await call(max(0.0, deadline - self.clock()))
            except HubError as error:
                failures += 1
                delay = self.delay(failures, error.retry_after)
                if (
                    not again(error)
                    or failures == self.attempts_max
                    or self.clock() + delay >= deadline
                ):
                    raise
            await self.sleep(delay)
