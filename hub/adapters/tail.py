"""The journals of a storage server, read through its `Tail` RPC."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from sys import intern
from typing import Final

import grpc

from hub.core.events.journal import JournalEnds, JournalEvent, JournalPage, Position
from messagehub.errors import StorageUnavailable
from messagehub.serving import logs
from messagehub.status import from_rpc_error
from messagehub.storage.v1 import storage_service_pb2 as storage
from messagehub.storage.v1 import storage_service_pb2_grpc as storage_grpc
from messagehub.v1.event_pb2 import Event

Call = grpc.aio.UnaryStreamCall[storage.TailRequest, storage.TailResponse]

_ENDED: Final = "the storage server ended the stream of the journal"


class StorageJournal:
    """The port `hub.core.events.journal.Journal` over one storage server.

    `silence_seconds_max` is how long a stream may say nothing before it counts as broken. It
    must be longer than the interval of the storage server's heartbeats. `retry_seconds` is what
    a caller is told to wait when the storage server cannot be reached.
    """

    def __init__(
        self, channel: grpc.aio.Channel, *, silence_seconds_max: float, retry_seconds: float
    ) -> None:
        self._stub = storage_grpc.StorageServiceStub(channel)
        self._silence_seconds_max = silence_seconds_max
        self._retry_seconds = retry_seconds

    async def tail(self, database: str, after: Position | None) -> AsyncGenerator[JournalPage]:
        """Streams what follows a position, live; see the port."""
        async with aclosing(self._responses(_request(database, after))) as responses:
            async for response in responses:
                yield _page(response)

    async def read(
        self, database: str, after: Position, *, until: int, bytes_max: int
    ) -> Sequence[JournalPage]:
        """Gives the pages that follow a position; see the port."""
        pages: list[JournalPage] = []
        size = 0
        reached = boundary = after.sequence
        async with aclosing(self._responses(_request(database, after))) as responses:
            # The first response only says that the position is good.
            await anext(responses)
            while (reached < until or reached > boundary) and size < bytes_max:
                page = _page(await anext(responses))
                pages.append(page)
                if not page.events:
                    break
                size += sum(event.size for event in page.events)
                reached, boundary = page.events[-1].sequence, page.boundary
        return pages

    async def ends(self, database: str) -> JournalEnds:
        """Tells where a journal begins and ends at this moment."""
        async with aclosing(self._responses(_request(database, None))) as responses:
            first = await anext(responses)
        return JournalEnds(
            Position(first.epoch, first.sequence), Position(first.epoch, first.oldest_sequence)
        )

    async def _responses(
        self, request: storage.TailRequest
    ) -> AsyncGenerator[storage.TailResponse]:
        """Streams responses; ends only by an error, or by being closed."""
        call: Call = self._stub.Tail(request)
        try:
            while True:
                async with asyncio.timeout(self._silence_seconds_max):
                    response = await call.read()
                if not isinstance(response, storage.TailResponse):
                    raise StorageUnavailable(_ENDED, retry_after=self._retry_seconds)
                yield response
        except TimeoutError as failure:
            raise StorageUnavailable(
                f"the storage server said nothing for {self._silence_seconds_max} s",
                retry_after=self._retry_seconds,
            ) from failure
        except grpc.aio.AioRpcError as failure:
            error = from_rpc_error(failure)
            if isinstance(error, StorageUnavailable) and error.retry_after is None:
                error.retry_after = self._retry_seconds
            raise error from failure
        finally:
            call.cancel()


def _request(database: str, after: Position | None) -> storage.TailRequest:
    request = storage.TailRequest(database=database, correlation_id=logs.correlation_id.get())
    if after is None:
        request.from_end = True
    else:
        request.epoch, request.after_sequence = after
    return request


def _page(response: storage.TailResponse) -> JournalPage:
    return JournalPage(
        response.epoch, [_event(event) for event in response.events], response.sequence
    )


def _event(event: Event) -> JournalEvent:
    # Bytes and not the message: their size is what they take in memory, and a kept message
    # would keep alive everything that came with it.
    payload = event.SerializeToString()
    return JournalEvent(
        event.sequence,
        # There are few types and sources, and a window holds many thousands of events.
        intern(event.type),
        intern(event.source),
        event.correlation_id,
        event.transaction_id,
        len(payload),
        payload,
    )
