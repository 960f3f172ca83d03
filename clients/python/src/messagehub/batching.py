"""Concurrent statements of one process share calls to the hub.

A statement that finds nobody before it leaves at once, as an `Execute` of its own. While
`calls_in_flight_max` calls are on their way that the hub has not taken in, what comes gathers, and
leaves together with the next `ExecuteStream`: no timer holds anything back, batches form by
themselves under load.

*One slow statement holds up nobody.* A stream brings each outcome when it is there. And a call is
in flight only until the hub has taken it in, which its first message says, within milliseconds; an
`Execute` cannot say so, and counts for `alone_taken_seconds` at most. So slow ones keep no place.

*Order.* What waits leaves in the order in which it came. Whoever awaits one statement before the
next has them done in that order; calls that overlap have none, as without sharing.

*Whoever goes away* is not sent, or, if it has left already, not waited for: a stream that nobody
waits for any more is cancelled. Each statement has its own deadline, request id and error.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import grpc
from google.protobuf.duration_pb2 import Duration

from messagehub.errors import DeadlineExceeded, HubError, InternalError, QueueFull
from messagehub.status import from_status
from messagehub.v1.storage_service_pb2 import (
    ExecuteRequest,
    ExecuteResponse,
    ExecuteStreamRequest,
    ExecuteStreamResponse,
    StreamedOperation,
)

__all__ = ["Batching", "BatchingLimits"]

NANOSECONDS: Final = 1_000_000_000
# A stream outlives its last operation by this, so that the hub can say that its time is over.
ANSWER_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class BatchingLimits:
    """The bounds of a process's shared calls.

    `calls_in_flight_max` bounds the calls that the hub has not taken in, `streams_max` those that
    have not ended; `operations_max` and `bytes_max` one call; `waiting_operations_max` and
    `waiting_bytes_max` what waits for its turn, beyond which it is told to wait `retry_seconds`.
    A call alone counts as taken in after `alone_taken_seconds`, a stream of a hub that says nothing
    after `stream_taken_seconds`.
    """

    calls_in_flight_max: int = 4
    streams_max: int = 64
    operations_max: int = 256
    bytes_max: int = 1024 * 1024
    waiting_operations_max: int = 10_000
    waiting_bytes_max: int = 64 * 1024 * 1024
    alone_taken_seconds: float = 0.005
    stream_taken_seconds: float = 0.25
    retry_seconds: float = 0.1


class Calls(Protocol):
    """The RPCs that are shared; the methods of a generated stub."""

    def execute(self, request: ExecuteRequest, seconds: float) -> Awaitable[ExecuteResponse]:
        """Begins an `Execute`."""

    def stream(
        self, request: ExecuteStreamRequest, seconds: float
    ) -> AsyncIterable[ExecuteStreamResponse]:
        """Begins an `ExecuteStream`."""


class _Waiting:
    """One statement without an outcome; `deadline` is a time of the loop's clock."""

    __slots__ = ("deadline", "outcome", "request", "size")

    def __init__(
        self,
        request: ExecuteRequest,
        size: int,
        deadline: float,
        outcome: "asyncio.Future[ExecuteResponse]",
    ) -> None:
        self.request = request
        self.size = size
        self.deadline = deadline
        self.outcome = outcome


class _Stream:
    """A group on its way; ends when its last caller has gone."""

    def __init__(self, group: Sequence[_Waiting]) -> None:
        self.group = group
        self.untold = self._unsettled = len(group)
        self.receiving: asyncio.Task[None] | None = None
        for waiting in group:
            waiting.outcome.add_done_callback(self._settle)

    def _settle(self, _: "asyncio.Future[ExecuteResponse]") -> None:
        self._unsettled -= 1
        # What was told to the end ends by itself.
        if not self._unsettled and self.untold and self.receiving is not None:
            self.receiving.cancel()


class _Place:
    """One of the calls in flight, until it is taken in."""

    __slots__ = ("_released", "_timer")

    def __init__(self, released: Callable[[], None], seconds: float) -> None:
        self._released: Callable[[], None] | None = released
        self._timer = asyncio.get_running_loop().call_later(seconds, self.give_up)

    def give_up(self) -> None:
        """The call counts no more; once is enough."""
        self._timer.cancel()
        released, self._released = self._released, None
        if released is not None:
            released()


class Batching:
    """Runs the statements of one `Hub`, on one event loop, until `close`."""

    def __init__(
        self,
        calls: Calls,
        decode: Callable[[grpc.aio.AioRpcError], HubError],
        limits: BatchingLimits,
    ) -> None:
        self._calls = calls
        self._decode = decode
        self._limits = limits
        self._in_flight = 0
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._streams: set[asyncio.Task[None]] = set()
        # A hub that does not know the streaming call has every statement alone.
        self._may_share = True

    async def execute(self, request: ExecuteRequest, seconds: float) -> ExecuteResponse:
        """Gives the answer to one statement, within so many seconds.

        Raises a `HubError`, or what gRPC raises where the statement had a call of its own.
        """
        limits = self._limits
        if not self._may_share:
            return await self._calls.execute(request, seconds)
        if self._in_flight < limits.calls_in_flight_max and not self._waiting:
            place = self._take_place(limits.alone_taken_seconds)
            try:
                return await self._calls.execute(request, seconds)
            finally:
                place.give_up()
        size = request.ByteSize()
        self._check_room(size)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        waiting = _Waiting(request, size, deadline, loop.create_future())
        self._waiting.append(waiting)
        self._waiting_bytes += size
        timer = loop.call_at(deadline, _expire, waiting.outcome)
        try:
            return await waiting.outcome
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Ends every call; whoever waits is told that the client is closed."""
        _close(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        for stream in self._streams:
            stream.cancel()
        if self._streams:
            await asyncio.wait(self._streams)

    def _check_room(self, size: int) -> None:
        limits = self._limits
        if (
            len(self._waiting) < limits.waiting_operations_max
            and self._waiting_bytes + size <= limits.waiting_bytes_max
        ):
            return
        raise QueueFull(
            f"{len(self._waiting)} statements of {self._waiting_bytes} bytes of this process wait "
            f"for the hub, the limits are {limits.waiting_operations_max} and "
            f"{limits.waiting_bytes_max}: run fewer at a time",
            retry_after=limits.retry_seconds,
        )

    def _take_place(self, seconds: float) -> _Place:
        self._in_flight += 1
        return _Place(self._leave_place, seconds)

    def _leave_place(self) -> None:
        self._in_flight -= 1
        self._depart()

    def _depart(self) -> None:
        """Sends what waits, as far as there are places for it."""
        limits = self._limits
        while (
            self._in_flight < limits.calls_in_flight_max
            and len(self._streams) < limits.streams_max
            and (group := self._gather())
        ):
            place = self._take_place(limits.stream_taken_seconds)
            stream = asyncio.create_task(self._run(_Stream(group), place))
            self._streams.add(stream)
            stream.add_done_callback(self._forget)

    def _forget(self, stream: "asyncio.Task[None]") -> None:
        self._streams.discard(stream)
        self._depart()

    def _gather(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        size = 0
        while self._waiting and len(group) < self._limits.operations_max:
            first = self._waiting[0]
            # A statement that is larger than a call may be travels alone.
            if group and size + first.size > self._limits.bytes_max:
                break
            self._waiting.popleft()
            self._waiting_bytes -= first.size
            if not first.outcome.done():
                group.append(first)
                size += first.size
        return group

    async def _run(self, stream: "_Stream", place: _Place) -> None:
        """Sends a group and hands out what comes; every caller gets something."""
        group = stream.group
        stream.receiving = asyncio.current_task()
        try:
            await self._receive(stream, place)
        except grpc.aio.AioRpcError as failure:
            if failure.code() is grpc.StatusCode.UNIMPLEMENTED:
                self._may_share = False
                await self._run_alone(group)
            else:
                _fail(group, partial(self._decode, failure), failure)
        except asyncio.CancelledError:
            # Nobody waits any more, or the client is closed.
            _close(group)
            raise
        finally:
            place.give_up()
            _fail(group, _broken, None)

    async def _receive(self, stream: "_Stream", place: _Place) -> None:
        group = stream.group
        now = asyncio.get_running_loop().time()
        request = ExecuteStreamRequest(
            source_service=group[0].request.source_service,
            operations=[_operation(waiting, now) for waiting in group],
        )
        seconds = max(waiting.deadline for waiting in group) - now + ANSWER_SECONDS
        async for response in self._calls.stream(request, seconds):
            for told in response.outcomes:
                stream.untold -= 1
                outcome = group[told.index].outcome
                if outcome.done():
                    continue
                if told.WhichOneof("outcome") == "error":
                    outcome.set_exception(from_status(told.error))
                else:
                    outcome.set_result(told.response)
            place.give_up()

    async def _run_alone(self, group: Sequence[_Waiting]) -> None:
        async def run(waiting: _Waiting) -> None:
            seconds = waiting.deadline - asyncio.get_running_loop().time()
            try:
                answer = await self._calls.execute(waiting.request, max(0.0, seconds))
            except grpc.aio.AioRpcError as failure:
                _fail([waiting], partial(self._decode, failure), failure)
            else:
                if not waiting.outcome.done():
                    waiting.outcome.set_result(answer)

        await asyncio.gather(*(run(waiting) for waiting in group))


def _operation(waiting: _Waiting, now: float) -> StreamedOperation:
    request = waiting.request
    return StreamedOperation(
        database=request.database,
        correlation_id=request.correlation_id,
        request_id=request.request_id,
        schema_version=request.schema_version,
        statement=request.statement,
        timeout=_duration(waiting.deadline - now),
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(max(1, int(seconds * NANOSECONDS)))
    return duration


def _expire(outcome: "asyncio.Future[ExecuteResponse]") -> None:
    if not outcome.done():
        outcome.set_exception(
            DeadlineExceeded("the time for the statement is over: set a timeout that fits it")
        )


def _broken() -> HubError:
    return InternalError("the hub ended the call without an outcome: send the same call again")


def _close(group: Iterable[_Waiting]) -> None:
    for waiting in group:
        if not waiting.outcome.done():
            waiting.outcome.set_exception(RuntimeError("this Hub is closed: make a new one"))


def _fail(
    group: Sequence[_Waiting], error: Callable[[], HubError], cause: BaseException | None
) -> None:
    """Tells those who have no outcome, each an error of its own."""
    for waiting in group:
        if not waiting.outcome.done():
            failure = error()
            failure.__cause__ = cause
            waiting.outcome.set_exception(failure)
