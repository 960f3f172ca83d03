"""A client of the private contract, as a hub is one, and a storage server in this process."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from messagehub.errors import HubError
from messagehub.status import from_status
from messagehub.storage.v1 import storage_service_pb2 as wire
from messagehub.storage.v1 import storage_service_pb2_grpc
from storage.config import StorageConfig
from storage.server import StorageServer
from tests.support.calls import Python, statement

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that was killed is tried again at once, not after seconds.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class StreamBrokenError(Exception):
    """The exchange ended before the outcome came; nobody knows what became of the operation."""


class StorageClient:
    """One channel, and one exchange on it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self.stub = storage_service_pb2_grpc.StorageServiceStub(self.channel)
        self.frames_taken = 0
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[wire.Outcome]] = {}
        self._frames: asyncio.Queue[wire.ExchangeRequest | None] = asyncio.Queue()
        self._sent = 0
        self._taken = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None
        self.ended: BaseException | None = None

    def send(
        self, *operations: wire.Operation, cancelled: tuple[int, ...] = ()
    ) -> list[asyncio.Future[wire.Outcome]]:
        """Sends a frame; gives a future for each of its operations."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._exchange())
        loop = asyncio.get_running_loop()
        answers = []
        for operation in operations:
            operation.number = operation.number or next(self._numbers)
            answer = self._waiting[operation.number] = loop.create_future()
            answers.append(answer)
        self._sent += 1
        self._frames.put_nowait(wire.ExchangeRequest(operations=operations, cancelled=cancelled))
        return answers

    async def taken(self) -> None:
        """Waits until the server has taken in every frame that was sent."""
        async with self._taken:
            await self._taken.wait_for(lambda: self.frames_taken >= self._sent)

    async def run(self, *operations: wire.Operation) -> list[wire.Outcome]:
        """Sends operations in one frame and waits for all of their outcomes."""
        return list(await asyncio.gather(*self.send(*operations)))

    async def close(self) -> None:
        """Ends the exchange and the channel."""
        self._frames.put_nowait(None)
        await self.channel.close()
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def _requests(self) -> AsyncIterator[wire.ExchangeRequest]:
        while (frame := await self._frames.get()) is not None:
            yield frame

    async def _exchange(self) -> None:
        try:
            async for response in self.stub.Exchange(self._requests()):
                for outcome in response.outcomes:
                    self._waiting.pop(outcome.number).set_result(outcome)
                async with self._taken:
                    self.frames_taken = response.frames_taken
                    self._taken.notify_all()
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as failure:
            self.ended = failure
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(StreamBrokenError())
                    answer.exception()  # whoever waits for it sees it; others need not
            self._waiting.clear()


def asking(
    query: str, *parameters: Python, database: str = "items_db", service: str = "s", **more: Any
) -> wire.Operation:
    """An operation with a statement."""
    return wire.Operation(
        database=database,
        source_service=service,
        statement=statement(query, *parameters),
        **more,
    )


def failure_of(outcome: wire.Outcome) -> HubError:
    """The error of an operation that failed."""
    assert outcome.WhichOneof("outcome") == "error", outcome
    return from_status(outcome.error)


def reasons(outcomes: list[wire.Outcome]) -> list[str]:
    """The reason of each operation that failed; empty for one that succeeded."""
    return [failure_of(o).reason if o.HasField("error") else "" for o in outcomes]


@asynccontextmanager
async def serving(directory: Path, **settings: Any) -> AsyncIterator[StorageClient]:
    """A storage server with these settings, and a client of it."""
    server = StorageServer(
        StorageConfig(listen="127.0.0.1:0", data_dir=str(directory), drain_seconds=1.0, **settings)
    )
    await server.start()
    client = StorageClient(server.address)
    try:
        yield client
    finally:
        await client.close()
        await server.stop()
