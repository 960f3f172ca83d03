"""The multiplexed stream of operations to the storage server.

While `storage_frames_in_flight_max` frames are not yet taken by the storage server, what arrives
gathers and leaves together with the next frame, so that batches form under load and nothing
waits without it. One task writes, one reads; callers wait for their own operations only.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import grpc

from hub.config import HubConfig
from hub.core.ports import Operation, Outcome
from messagehub.errors import (
    DeadlineExceeded,
    HubError,
    InternalError,
    QueueFull,
    Recording,
    ResultTooLarge,
    StorageUnavailable,
)
from messagehub.status import from_status, to_status
from messagehub.storage.v1 import storage_service_pb2 as storage
from messagehub.v1.event_pb2 import OperationRequest
from messagehub.v1.statement_pb2 import Statement

MILLISECONDS: Final = 1000
# What of a caller's time the storage server may use; the rest is for its answer that this is over.
# Whoever has no answer then knows that the storage server is silent.
WORKING_SHARE: Final = 0.98

Call = grpc.aio.StreamStreamCall[storage.ExchangeRequest, storage.ExchangeResponse]


class _Group:
    """The operations of one caller, and the outcomes they have so far.

    More bytes of them than one answer may have are not kept: the caller could not be given them.
    What was submitted has no caller that waits for an answer; an error would end it as failed.
    """

    __slots__ = ("bytes_left", "done", "missing", "outcomes")

    def __init__(self, operations: int, done: asyncio.Future[None], bytes_max: int) -> None:
        self.outcomes: list[Outcome | HubError | None] = [None] * operations
        self.bytes_left = bytes_max
        self.missing = operations
        self.done = done

    def settle(self, index: int, outcome: Outcome | HubError) -> None:
        self.outcomes[index] = outcome
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(None)

    def receive(self, index: int, outcome: storage.Outcome, *, bounded: bool) -> None:
        """Settles with what came, or with an error if it does not fit beside the others."""
        size = outcome.ByteSize()
        if bounded and size > self.bytes_left and outcome.WhichOneof("outcome") == "result":
            self.settle(index, _too_much())
            return
        self.bytes_left -= size
        self.settle(index, _decoded(outcome))

    def expire(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class _Pending:
    """One operation without an outcome."""

    __slots__ = ("deadline", "group", "index", "operation", "size")

    def __init__(
        self, operation: Operation, group: _Group, index: int, size: int, deadline: float
    ) -> None:
        self.operation = operation
        self.group = group
        self.index = index
        self.size = size
        self.deadline = deadline


class Exchange:
    """Runs operations over one stream at a time; while there is none, refuses them at once.

    An operation is in exactly one of two places: `_queued` until it leaves, then `_sent` until
    its outcome comes or its caller goes away.
    """

    def __init__(self, limits: HubConfig) -> None:
        self._limits = limits
        self._open = False
        self._last_number = 0
        self._queued: OrderedDict[int, _Pending] = OrderedDict()
        self._sent: dict[int, _Pending] = {}
        self._bytes = 0
        self._cancelled: list[int] = []
        self._frames_sent = 0
        self._frames_taken = 0
        self._wake = asyncio.Event()

    @property
    def pending_operations(self) -> int:
        """How many operations have no outcome yet."""
        return len(self._queued) + len(self._sent)

    async def run(
        self, operations: Sequence[Operation], seconds: float
    ) -> Sequence[Outcome | HubError]:
        """Gives one outcome or error for each operation; see `hub.core.ports.Operations`."""
        sizes = [operation.content.ByteSize() for operation in operations]
        refusal = self._refusal(len(sizes), sum(sizes))
        if refusal is not None:
            return [refusal] * len(sizes)
        loop = asyncio.get_running_loop()
        group = _Group(len(sizes), loop.create_future(), self._limits.message_bytes_max)
        deadline = loop.time() + seconds
        first = self._last_number + 1
        for index, operation in enumerate(operations):
            self._last_number += 1
            self._bytes += sizes[index]
            self._queued[self._last_number] = _Pending(
                operation, group, index, sizes[index], deadline
            )
        self._wake.set()
        timer = loop.call_at(deadline, group.expire)
        try:
            await group.done
        finally:
            timer.cancel()
            if group.missing:
                self._withdraw(range(first, first + len(sizes)))
        return [_late() if outcome is None else outcome for outcome in group.outcomes]

    def drain(self) -> None:
        """Takes no more operations; those that were sent may still get their outcomes."""
        self._open = False
        self._fail_queued()
        self._wake.set()

    async def serve(self, call: Call) -> None:
        """Carries operations over a stream until it breaks; always ends with an error.

        Every operation without an outcome then gets a `StorageUnavailable`.
        """
        self._open = True
        self._frames_sent = self._frames_taken = 0
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(call), name="exchange-writer")
                tasks.create_task(self._read(call), name="exchange-reader")
        finally:
            self._open = False
            self._fail_pending()
            call.cancel()
            await call.code()

    async def _write(self, call: Call) -> None:
        limit = self._limits.storage_frames_in_flight_max
        while self._open:
            if (self._queued or self._cancelled) and self._frames_sent - self._frames_taken < limit:
                self._frames_sent += 1
                await call.write(self._gather())
            else:
                self._wake.clear()
                await self._wake.wait()
        await call.done_writing()

    async def _read(self, call: Call) -> None:
        while True:
            response = await call.read()
            if not isinstance(response, storage.ExchangeResponse):
                raise StorageUnavailable("the storage server ended the exchange")
            for outcome in response.outcomes:
                pending = self._sent.pop(outcome.number, None)
                if pending is not None:
                    self._bytes -= pending.size
                    bounded = not pending.operation.submitted
                    pending.group.receive(pending.index, outcome, bounded=bounded)
            if response.frames_taken > self._frames_taken:
                self._frames_taken = response.frames_taken
                self._wake.set()

    def _gather(self) -> storage.ExchangeRequest:
        frame = storage.ExchangeRequest(cancelled=self._cancelled)
        self._cancelled.clear()
        now = asyncio.get_running_loop().time()
        operations_left = self._limits.frame_operations_max
        bytes_left = self._limits.frame_bytes_max
        while self._queued and operations_left:
            number = next(iter(self._queued))
            pending = self._queued[number]
            # An operation that is larger than a frame travels alone.
            if pending.size > bytes_left and operations_left < self._limits.frame_operations_max:
                break
            operations_left -= 1
            bytes_left -= pending.size
            self._sent[number] = self._queued.pop(number)
            _add(frame, number, pending.operation, pending.deadline - now)
        return frame

    def _withdraw(self, numbers: range) -> None:
        for number in numbers:
            pending = self._queued.pop(number, None)
            if pending is None:
                pending = self._sent.pop(number, None)
                if pending is None:
                    continue
                self._cancelled.append(number)
            self._bytes -= pending.size
        self._wake.set()

    def _fail_queued(self) -> None:
        queued, self._queued = self._queued, OrderedDict()
        for pending in queued.values():
            self._bytes -= pending.size
            pending.group.settle(pending.index, self._unavailable())

    def _fail_pending(self) -> None:
        self._fail_queued()
        sent, self._sent = self._sent, {}
        self._bytes = 0
        self._cancelled.clear()
        for pending in sent.values():
            request_id = pending.operation.request_id
            error = StorageUnavailable(
                "the connection to the storage server broke before the outcome came: ask "
                f"GetOperation for the request_id {request_id}, or send the same call again with "
                "it",
                retry_after=self._limits.reconnect_seconds_max,
                metadata={"request_id": request_id},
            )
            pending.group.settle(pending.index, error)

    def _refusal(self, operations: int, size: int) -> HubError | None:
        if not self._open:
            return self._unavailable()
        limits = self._limits
        if (
            self.pending_operations + operations <= limits.pending_operations_max
            and self._bytes + size <= limits.pending_bytes_max
        ):
            return None
        return QueueFull(
            f"{self.pending_operations} operations of {self._bytes} bytes wait for the storage "
            f"server, the limits are {limits.pending_operations_max} and "
            f"{limits.pending_bytes_max}: call again later, and less often",
            retry_after=limits.queue_retry_seconds,
        )

    def _unavailable(self) -> StorageUnavailable:
        return StorageUnavailable(
            "the hub is not connected to the storage server; nothing was sent, call again",
            retry_after=self._limits.reconnect_seconds_max,
        )


def _add(frame: storage.ExchangeRequest, number: int, operation: Operation, seconds: float) -> None:
    added = frame.operations.add(
        number=number,
        database=operation.database,
        source_service=operation.source_service,
        correlation_id=operation.correlation_id,
        request_id=operation.request_id,
        timeout_ms=max(1, int(seconds * WORKING_SHARE * MILLISECONDS)),
        read_only=operation.read_only,
        submitted=operation.submitted,
        follows=operation.follows,
    )
    if operation.refusal is not None:
        added.refusal.CopyFrom(to_status(operation.refusal))
    if isinstance(operation.content, Statement):
        added.statement.CopyFrom(operation.content)
    elif isinstance(operation.content, OperationRequest):
        added.statement.CopyFrom(operation.content.statement)
        added.schema_version = operation.content.schema_version
    else:
        added.event.CopyFrom(operation.content)


def _decoded(outcome: storage.Outcome) -> Outcome | HubError:
    kind = outcome.WhichOneof("outcome")
    if kind == "result":
        return outcome
    if kind == "error":
        error = from_status(outcome.error)
        if outcome.sequence:
            error.recording = Recording(outcome.sequence, outcome.schema_version, outcome.replayed)
        return error
    return InternalError("the storage server answered an operation without an outcome")


def _too_much() -> ResultTooLarge:
    return ResultTooLarge(
        "the operation succeeded, but its result does not fit into the answer beside the others: "
        "send it again alone, with the same request_id"
    )


def _late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "the storage server did not answer in the caller's time: set a deadline that fits, and "
        "send the same call again, with the same request id, to learn the outcome"
    )
