"""One exchange with a hub: frames of operations in, frames of outcomes out.

Outcomes that are ready together leave together; while one frame is being written the next one
gathers. When more is waiting to leave than the limit, no further frames are taken in, and the
results of reads are dropped for an error, so a hub that does not read cannot grow this process. One
caller's results reach their own limit first, and then only its reads are refused.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

from messagehub.errors import HubError, QueueFull
from messagehub.status import from_status, to_status
from messagehub.storage.v1 import storage_service_pb2 as wire
from storage.core.databases import Databases
from storage.core.operation import Operation, Outcome

_log = logging.getLogger(__name__)

MILLISECONDS = 1000


@dataclass(slots=True, frozen=True)
class ExchangeLimits:
    """See `StorageConfig` for units and defaults."""

    frame_bytes_max: int
    outgoing_bytes_max: int
    caller_outgoing_bytes_max: int
    acknowledge_seconds: float
    operation_seconds_max: float


@dataclass(slots=True, frozen=True)
class _Outgoing:
    """An outcome that waits to leave."""

    encoded: wire.Outcome
    service: str
    size_bytes: int


class Exchange:
    """The state of one stream. Everything runs on the loop."""

    def __init__(self, databases: Databases, limits: ExchangeLimits) -> None:
        self._databases = databases
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._running: dict[int, Operation] = {}
        self._outgoing: deque[_Outgoing] = deque()
        self._outgoing_bytes = 0
        self._caller_bytes: Counter[str] = Counter()
        self._frames_taken = 0
        self._frames_told = 0
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def run(
        self, frames: AsyncIterator[wire.ExchangeRequest]
    ) -> AsyncGenerator[wire.ExchangeResponse, None]:
        """Takes frames in and yields frames of outcomes until the hub ends the stream."""
        taking = self._loop.create_task(self._take_all(frames))
        taking.add_done_callback(lambda _: self._ready.set())
        try:
            while not taking.done() or self._running or self._outgoing:
                await self._ready.wait()
                self._ready.clear()
                while self._outgoing or self._frames_taken > self._frames_told:
                    yield self._frame()
            await taking
        finally:
            taking.cancel()
            for operation in self._running.values():
                operation.cancelled = True

    async def _take_all(self, frames: AsyncIterator[wire.ExchangeRequest]) -> None:
        async for frame in frames:
            self._take(frame)
            await self._room.wait()

    def _take(self, frame: wire.ExchangeRequest) -> None:
        for number in frame.cancelled:
            if (cancelled := self._running.get(number)) is not None:
                cancelled.cancelled = True
        for request in frame.operations:
            self._begin(request)
        self._frames_taken += 1
        self._loop.call_later(self._limits.acknowledge_seconds, self._acknowledge)

    def _acknowledge(self) -> None:
        if self._frames_taken > self._frames_told:
            self._ready.set()

    def _begin(self, request: wire.Operation) -> None:
        is_event = request.WhichOneof("content") == "event"
        seconds = request.timeout_ms / MILLISECONDS or self._limits.operation_seconds_max
        operation = Operation(
            source_service=request.source_service,
            correlation_id=request.correlation_id,
            request_id=request.request_id,
            deadline=self._loop.time() + seconds,
            deliver=self._deliverer(request.number),
            statement=None if is_event else request.statement,
            event=request.event if is_event else None,
            read_only=request.read_only,
            submitted=request.submitted,
            follows=request.follows,
            refusal=from_status(request.refusal) if request.HasField("refusal") else None,
            schema_version=request.schema_version,
            size_bytes=request.ByteSize(),
        )
        self._running[request.number] = operation
        try:
            self._databases.get(request.database).submit(operation)
        except HubError as refusal:
            operation.refuse(refusal)

    def _deliverer(self, number: int) -> Callable[[Outcome], None]:
        return lambda outcome: self._deliver(number, outcome)

    def _deliver(self, number: int, outcome: Outcome) -> None:
        operation = self._running.pop(number, None)
        if operation is None:
            return
        if outcome.error is not None and not outcome.replayed:
            _log.info(
                "operation refused",
                extra={
                    "correlation_id": operation.correlation_id,
                    "reason": outcome.error.reason,
                    "detail": outcome.error.message,
                },
            )
        service = operation.source_service
        if is_read(outcome) and (full := self._full(service)) is not None:
            outcome = Outcome(error=full)
        encoded = encode(number, outcome)
        leaving = _Outgoing(encoded, service, encoded.ByteSize())
        self._outgoing.append(leaving)
        self._outgoing_bytes += leaving.size_bytes
        self._caller_bytes[service] += leaving.size_bytes
        if self._outgoing_bytes > self._limits.outgoing_bytes_max:
            self._room.clear()
        self._ready.set()

    def _full(self, service: str) -> QueueFull | None:
        limits = self._limits
        for what, held, limit in (
            ("outgoing_bytes_max", self._outgoing_bytes, limits.outgoing_bytes_max),
            (
                "caller_outgoing_bytes_max",
                self._caller_bytes[service],
                limits.caller_outgoing_bytes_max,
            ),
        ):
            if held > limit:
                return QueueFull(
                    f"more results wait to leave for the hub than it takes ({what}): read less at "
                    "a time, or try again later",
                    retry_after=1.0,
                    metadata={"limit_bytes": str(limit)},
                )
        return None

    def _frame(self) -> wire.ExchangeResponse:
        frame = wire.ExchangeResponse(frames_taken=self._frames_taken)
        size = 0
        while self._outgoing:
            leaving = self._outgoing[0]
            if size and size + leaving.size_bytes > self._limits.frame_bytes_max:
                break
            size += leaving.size_bytes
            frame.outcomes.append(leaving.encoded)
            self._outgoing.popleft()
            self._forget(leaving)
        if self._outgoing_bytes <= self._limits.outgoing_bytes_max:
            self._room.set()
        self._frames_told = self._frames_taken
        return frame

    def _forget(self, gone: "_Outgoing") -> None:
        self._outgoing_bytes -= gone.size_bytes
        self._caller_bytes[gone.service] -= gone.size_bytes
        if not self._caller_bytes[gone.service]:
            del self._caller_bytes[gone.service]


def is_read(outcome: Outcome) -> bool:
    """True for the result of a read, which can be had again; what a write did must be told."""
    return outcome.result is not None and not outcome.event_id


def encode(number: int, outcome: Outcome) -> wire.Outcome:
    """Writes an outcome for the wire."""
    encoded = wire.Outcome(
        number=number,
        sequence=outcome.sequence,
        schema_version=outcome.schema_version,
        replayed=outcome.replayed,
        event_id=outcome.event_id,
    )
    if outcome.error is not None:
        encoded.error.CopyFrom(to_status(outcome.error))
    elif outcome.result is not None:
        encoded.result.CopyFrom(outcome.result)
    return encoded
