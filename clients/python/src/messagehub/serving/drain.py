"""The calls under way on a server, and how the last of them end when it stops.

gRPC's own `stop` cancels what is left after its grace, which a caller cannot tell from a failure of
its own, and answers what comes meanwhile without details. Here both are refused with
`ShuttingDown`, so that a client calls again, elsewhere or later, without an error surfacing.
"""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final, Self

from messagehub.errors import ShuttingDown

RETRY_SECONDS: Final = 0.5
# How long a call may take to end once it is told to: its finally clauses, and the answer.
FAREWELL_SECONDS: Final = 1.0


class Drain:
    """Knows the calls under way; `finish` ends them."""

    def __init__(self) -> None:
        self._calls: set[UnderWay] = set()
        self._refusing = False
        self._idle = asyncio.Event()
        self._idle.set()

    def bound(self, behaviour: Any) -> Any:
        """Gives the behaviour of a method with one answer, for calls that end with the server."""

        async def call(request: Any, context: Any) -> Any:
            async with UnderWay(self):
                return await behaviour(request, context)

        return call

    def bound_stream(self, behaviour: Any) -> Any:
        """The same for a method that streams its answers."""

        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            async with UnderWay(self):
                async for response in behaviour(request, context):
                    yield response

        return call

    def refuse(self) -> None:
        """Refuses every new call from now on."""
        self._refusing = True

    async def finish(self, seconds: float) -> None:
        """Refuses new calls, and returns once those under way have ended.

        After `seconds` the rest are refused where they stand, and may take a second for that.
        """
        self.refuse()
        if await self._idle_within(seconds):
            return
        for call in self._calls:
            call.interrupt()
        await self._idle_within(FAREWELL_SECONDS)

    def enter(self, call: "UnderWay") -> None:
        """Takes a call in, or raises `ShuttingDown`."""
        if self._refusing:
            raise _shutting_down()
        self._calls.add(call)
        self._idle.clear()

    def leave(self, call: "UnderWay") -> None:
        """A call has ended."""
        self._calls.discard(call)
        if not self._calls:
            self._idle.set()

    async def _idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


class UnderWay:
    """One call, from its beginning to its end; interrupted, it raises `ShuttingDown`."""

    __slots__ = ("_drain", "_limit")

    def __init__(self, drain: Drain) -> None:
        self._drain = drain
        self._limit = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        self._drain.enter(self)
        await self._limit.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._drain.leave(self)
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError as interrupted:
            raise _shutting_down() from interrupted

    def interrupt(self) -> None:
        """Ends the call where it stands."""
        self._limit.reschedule(asyncio.get_running_loop().time())


def _shutting_down() -> ShuttingDown:
    return ShuttingDown(
        "the server is shutting down: send the same call again, with the same request id",
        retry_after=RETRY_SECONDS,
    )
