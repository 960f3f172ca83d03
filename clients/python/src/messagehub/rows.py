"""The rows of a streamed query."""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias

import grpc

from messagehub.errors import Cancelled, HubError, InternalError
from messagehub.retries import Retries
from messagehub.v1.storage_service_pb2 import QueryRequest, QueryResponse
from messagehub.values import SqlValue, row_tuples

__all__ = ["Rows"]

QueryCall: TypeAlias = grpc.aio.UnaryStreamCall[QueryRequest, QueryResponse]


class Rows:
    """The rows of one query, as they come; made by `Hub.query`.

        async for row in hub.query("SELECT id, name FROM heroes"):
            ...

    It holds one page at a time, however many rows there are, and the hub sends the next one when
    this one is used up. All rows are from one snapshot. Leaving the loop early stops the query as
    soon as nothing refers to this object; `async with` stops it at the end of the block, and has
    the columns before the first row:

        async with hub.query("SELECT id, name FROM heroes") as rows:
            print(rows.columns)
            async for row in rows:
                break
    """

    _call: QueryCall | None = None

    def __init__(
        self,
        start: Callable[[float], QueryCall],
        decode: Callable[[grpc.aio.AioRpcError], HubError],
        retries: Retries,
        timeout: float,
    ) -> None:
        self._start = start
        self._decode = decode
        self._retries = retries
        self._timeout = timeout
        self._opened = False
        self._failure: HubError | None = None
        self._page: deque[tuple[SqlValue, ...]] = deque()
        self.columns: tuple[str, ...] = ()
        self.database = ""
        self.sequence = 0
        self.correlation_id = ""

    async def __aenter__(self) -> Self:
        """Starts the query and waits for its first page."""
        await self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # gRPC keeps every call alive that is not done: this one would go on for nobody.
        if self._call is not None:
            self._call.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[SqlValue, ...]:
        await self._open()
        while not self._page:
            if self._failure is not None:
                raise self._failure
            if self._call is None or not self._take(await self._read(self._call)):
                self._call = None
                raise StopAsyncIteration
        return self._page.popleft()

    def close(self) -> None:
        """Stops the query; nothing more comes."""
        self._opened = True
        self._failure = None
        self._page.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _open(self) -> None:
        if self._opened:
            return
        # Only the first page is ever asked for twice: what follows belongs to one snapshot.
        first = await self._retries.run(self._first_page, self._timeout)
        self._opened = True
        self.columns = tuple(column.name for column in first.result.columns)
        self.database = first.database
        self.sequence = first.sequence
        self.correlation_id = first.correlation_id

    async def _first_page(self, seconds: float) -> QueryResponse:
        self._failure = None
        call = self._start(seconds)
        page = await self._read(call)
        if page is None:
            raise InternalError("the hub ended the query without a page")
        self._call = call
        self._take(page)
        return page

    async def _read(self, call: QueryCall) -> QueryResponse | None:
        # A stream that broke is never told as a stream that ended: rows would be missing.
        try:
            page = await call.read()
        except grpc.aio.AioRpcError as failure:
            self._failure = self._decode(failure)
            raise self._failure from failure
        except asyncio.CancelledError:
            self._failure = Cancelled("the query was stopped when waiting for it was cancelled")
            raise
        return page if isinstance(page, QueryResponse) else None

    def _take(self, page: QueryResponse | None) -> bool:
        if page is None:
            return False
        self._page.extend(row_tuples(page.result))
        return True
