"""A storage server whose every answer a test decides, over real gRPC on a free port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from messagehub.errors import HubError
from messagehub.status import to_status, trailers
from messagehub.storage.v1 import storage_service_pb2 as storage
from messagehub.storage.v1 import storage_service_pb2_grpc as storage_grpc
from messagehub.v1.statement_pb2 import ResultSet

WAIT_SECONDS = 10.0


async def soon(awaitable: Any) -> Any:
    """Awaits something that must come; a test that waits in vain fails instead of hanging."""
    async with asyncio.timeout(WAIT_SECONDS):
        return await awaitable


async def until(condition: Any) -> None:
    """Returns once the condition holds."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for is not always an event
            await asyncio.sleep(0.001)


def states(*databases: str, available: bool = True, sequence: int = 0) -> list[Any]:
    return [
        storage.DatabaseState(
            database=name,
            available=available,
            detail="" if available else "cannot be opened",
            sequence=sequence,
            schema_version="1.2.0",
        )
        for name in databases
    ]


class FakeStorage(storage_grpc.StorageServiceServicer):
    """Takes what the hub sends; answers by itself only while `echo` is set."""

    def __init__(self) -> None:
        self.echo = False
        self.watches: list[storage.WatchDatabasesRequest] = []
        self.frames: asyncio.Queue[storage.ExchangeRequest] = asyncio.Queue()
        self.exchanges = 0
        self.half_closed = asyncio.Event()
        self.queries: list[storage.QueryRequest] = []
        self.pages: list[storage.QueryResponse] = []
        self.query_failure: HubError | None = None
        self.endless_query = False
        self.pages_sent = 0
        self.query_ended = asyncio.Event()
        self.recorded: dict[str, storage.LookUpOperationResponse] = {}
        self.look_ups: list[storage.LookUpOperationRequest] = []
        self.adopted: list[storage.AdoptDatabaseRequest] = []
        self.adoption_failure: HubError | None = None
        self.piece_came = asyncio.Event()
        self._outgoing: asyncio.Queue[storage.ExchangeResponse | None] = asyncio.Queue()
        self._changes: asyncio.Queue[storage.WatchDatabasesResponse | None] = asyncio.Queue()
        self._unavailable: set[str] = set()

    async def next_operations(self) -> list[storage.Operation]:
        """The operations of the next frame that has some."""
        while True:
            frame = await soon(self.frames.get())
            if frame.operations:
                return list(frame.operations)

    def answer(self, *outcomes: storage.Outcome, frames_taken: int = 0) -> None:
        self._outgoing.put_nowait(
            storage.ExchangeResponse(outcomes=outcomes, frames_taken=frames_taken)
        )

    def end_exchange(self) -> None:
        self._outgoing.put_nowait(None)

    def end_watch(self) -> None:
        self._changes.put_nowait(None)

    def change(self, *databases: storage.DatabaseState) -> None:
        self._changes.put_nowait(storage.WatchDatabasesResponse(databases=databases))

    async def WatchDatabases(  # noqa: N802 - the name on the wire
        self, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        self.watches.append(request)
        yield storage.WatchDatabasesResponse(
            version="9.9", engine="fake 1", databases=states(*request.databases, sequence=7)
        )
        while (change := await self._changes.get()) is not None:
            yield change

    async def Exchange(  # noqa: N802 - the name on the wire
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[Any]:
        self.exchanges += 1
        self._outgoing = asyncio.Queue()
        reading = asyncio.create_task(self._take(request_iterator))
        try:
            while (response := await self._outgoing.get()) is not None:
                yield response
        finally:
            reading.cancel()

    async def _take(self, frames: Any) -> None:
        taken = 0
        async for frame in frames:
            taken += 1
            self.frames.put_nowait(frame)
            if self.echo:
                self.answer(*(done(one) for one in frame.operations), frames_taken=taken)
        self.half_closed.set()

    async def Query(  # noqa: N802 - the name on the wire
        self, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        self.queries.append(request)
        try:
            if self.query_failure is not None:
                await _abort(context, self.query_failure)
            for page in self.pages:
                self.pages_sent += 1
                yield page
            while self.endless_query:
                self.pages_sent += 1
                yield self.pages[0]
        finally:
            self.query_ended.set()

    async def LookUpOperation(  # noqa: N802 - the name on the wire
        self, request: Any, context: Any
    ) -> Any:
        self.look_ups.append(request)
        return self.recorded.get(request.request_id, storage.LookUpOperationResponse())

    async def AdoptDatabase(  # noqa: N802 - the name on the wire
        self, request_iterator: Any, context: Any
    ) -> Any:
        async for piece in request_iterator:
            self.adopted.append(piece)
            self.piece_came.set()
        if self.adoption_failure is not None:
            await _abort(context, self.adoption_failure)
        return storage.AdoptDatabaseResponse(tables=["heroes", "monsters"])


async def _abort(context: Any, error: HubError) -> None:
    code = next(code for code in grpc.StatusCode if code.name == error.code)
    await context.abort(code, error.message, trailers(error))


def done(operation: storage.Operation, **fields: Any) -> storage.Outcome:
    """The outcome of an operation that wrote one row."""
    return storage.Outcome(
        number=operation.number, sequence=3, result=ResultSet(rows_affected=1), **fields
    )


def failed(operation: storage.Operation, error: HubError) -> storage.Outcome:
    return storage.Outcome(number=operation.number, error=to_status(error))


@asynccontextmanager
async def running_fake(address: str = "127.0.0.1:0") -> AsyncIterator[tuple[FakeStorage, str]]:
    """Serves a fake; ends it without grace, as a killed process would."""
    fake = FakeStorage()
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", 64 * 1024 * 1024),
        ]
    )
    storage_grpc.add_StorageServiceServicer_to_server(fake, server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield fake, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
