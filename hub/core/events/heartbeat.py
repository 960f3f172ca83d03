"""One clock for the heartbeats of every subscription."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Protocol


class Pulsed(Protocol):
    """Something that must not stay silent for long."""

    def beat(self) -> None:
        """It has been silent for one interval; it is not timed again before it says so."""


class HeartbeatClock:
    """Beats whatever was armed and not armed again for `seconds`.

    All wait equally long, so those that were armed first are due first, and arming is O(1).
    """

    def __init__(
        self,
        *,
        seconds: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._sleep = sleep
        self._due: OrderedDict[Pulsed, float] = OrderedDict()
        self._armed = asyncio.Event()

    def arm(self, pulsed: Pulsed) -> None:
        """Times it from now on."""
        self._due[pulsed] = self._clock() + self._seconds
        self._due.move_to_end(pulsed)
        self._armed.set()

    def disarm(self, pulsed: Pulsed) -> None:
        """Forgets it."""
        self._due.pop(pulsed, None)

    async def run(self) -> None:
        """Beats until it is cancelled."""
        while True:
            while self._due and next(iter(self._due.values())) <= self._clock():
                pulsed, _ = self._due.popitem(last=False)
                pulsed.beat()
            if self._due:
                await self._sleep(next(iter(self._due.values())) - self._clock())
            else:
                self._armed.clear()
                await self._armed.wait()
