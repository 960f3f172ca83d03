"""Reading a `Subscribe` stream, and writing what it tells of, through `grpc.aio` stubs."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import pytest

from messagehub.v1.event_pb2 import Event
from messagehub.v1.event_service_pb2 import SubscribeRequest, SubscribeResponse
from tests.support.calls import SERVICE, run_async

COMPLETED: Final = "storage.operation_completed"
FAILED: Final = "storage.operation_failed"
SECONDS_MAX: Final = 20


class Reader:
    """One open stream and what it has brought."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.events: list[Event] = []
        self.cursor = ""

    async def message(self) -> SubscribeResponse:
        async with asyncio.timeout(SECONDS_MAX):
            answer = await self._call.read()
        assert answer is not grpc.aio.EOF, "the stream ended"
        assert answer.cursor
        self.cursor = answer.cursor
        self.events += answer.events
        return answer

    async def until(self, *request_ids: str) -> list[Event]:
        """Reads until these operations were told of."""
        while not set(request_ids) <= {request_id_of(event) for event in self.events}:
            await self.message()
        return self.events

    async def code(self) -> grpc.StatusCode:
        async with asyncio.timeout(SECONDS_MAX):
            return await self._call.code()


def request_id_of(event: Event) -> str:
    return getattr(event, event.WhichOneof("data")).request_id


@asynccontextmanager
async def subscribed(stub: Any, **fields: Any) -> AsyncIterator[Reader]:
    call = stub.Subscribe(SubscribeRequest(**{"source_service": SERVICE} | fields))
    try:
        yield Reader(call)
    finally:
        call.cancel()


@asynccontextmanager
async def live(stub: Any, **fields: Any) -> AsyncIterator[Reader]:
    """A stream whose first message, which says where it begins, was read."""
    async with subscribed(stub, **fields) as reader:
        first = await reader.message()
        assert not first.events
        yield reader


async def write(stub: Any, query: str, *parameters: Any, **envelope: Any) -> str:
    """Executes and gives the request id."""
    request_id = str(uuid.uuid4())
    await run_async(stub, query, *parameters, request_id=request_id, **envelope)
    return request_id


async def fail(stub: Any, query: str, **envelope: Any) -> str:
    request_id = str(uuid.uuid4())
    with pytest.raises(grpc.aio.AioRpcError):
        await run_async(stub, query, request_id=request_id, **envelope)
    return request_id


def ids(events: Iterable[Event]) -> list[str]:
    return [request_id_of(event) for event in events]


def assert_in_order(events: list[Event]) -> None:
    """Growing sequences and no event twice."""
    sequences = [event.sequence for event in events]
    assert sequences == sorted(set(sequences))
    assert len({event.id for event in events}) == len(events)
