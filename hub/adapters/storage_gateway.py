"""The connection to a storage server: kept alive, told to the placement, behind the ports.

One session is one `WatchDatabases` stream, which is the sign of the connection, and one exchange.
When either breaks, both end and a new session begins after a short, growing, jittered delay.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

import grpc

from hub.adapters.exchange import Exchange
from hub.adapters.storage_failures import decoded
from hub.adapters.transaction_messages import from_record
from hub.config import HubConfig
from hub.core.backoff import Backoff
from hub.core.ports import Adoption, Page, Reading, Recorded, Rehearsal
from hub.core.routing.placement import Placement
from hub.core.status import DatabaseState
from messagehub.errors import HubError, StorageUnavailable
from messagehub.serving.interceptor import TRANSPORT_HEADROOM_BYTES
from messagehub.status import from_status
from messagehub.storage.v1 import storage_service_pb2 as storage
from messagehub.storage.v1 import storage_service_pb2_grpc as storage_grpc
from messagehub.v1.event_pb2 import OperationRequest

MILLISECONDS: Final = 1000
# How a session ends. A write that finds its call over is an `InvalidStateError`.
EXPECTED: Final = (grpc.aio.AioRpcError, HubError, TimeoutError, asyncio.InvalidStateError)

_log = logging.getLogger(__name__)


def open_channel(config: HubConfig, address: str) -> grpc.aio.Channel:
    """Gives a channel that finds a returned storage server within `reconnect_seconds_max`."""
    transport_bytes_max = config.message_bytes_max + TRANSPORT_HEADROOM_BYTES
    options = {
        "grpc.max_receive_message_length": transport_bytes_max,
        "grpc.max_send_message_length": transport_bytes_max,
        # The "min" is in truth the time that one attempt to connect may take.
        "grpc.min_reconnect_backoff_ms": config.connect_seconds * MILLISECONDS,
        "grpc.initial_reconnect_backoff_ms": config.reconnect_seconds_min * MILLISECONDS,
        "grpc.max_reconnect_backoff_ms": config.reconnect_seconds_max * MILLISECONDS,
        "grpc.keepalive_time_ms": config.keepalive_seconds * MILLISECONDS,
        "grpc.keepalive_timeout_ms": config.keepalive_answer_seconds * MILLISECONDS,
        # Otherwise a ping of flow control that is under way holds a dead connection for a minute.
        "grpc.http2.ping_timeout_ms": config.keepalive_answer_seconds * MILLISECONDS,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
        # What may be sent again is decided above, by the request id.
        "grpc.enable_retries": 0,
        "grpc.use_local_subchannel_pool": 1,
    }
    return grpc.aio.insecure_channel(
        address, options=[(key, int(value)) for key, value in options.items()]
    )


class StorageGateway:
    """The storage server as the hub sees it, between `start` and `stop`."""

    def __init__(
        self,
        config: HubConfig,
        channel: grpc.aio.Channel,
        *,
        address: str,
        exchange: Exchange,
        placement: Placement,
        backoff: Backoff,
    ) -> None:
        self._config = config
        self._channel = channel
        self._stub = storage_grpc.StorageServiceStub(channel)
        self._exchange = exchange
        self._address = address
        self._placement = placement
        self._databases = placement.databases_of(address)
        self._backoff = backoff
        self._connecting: asyncio.Task[None] | None = None
        self._stopping = False
        self._told_missing = False

    def start(self) -> None:
        """Begins to connect, and to connect again, until `stop`."""
        self._connecting = asyncio.get_running_loop().create_task(
            self._keep_connected(), name="storage-connection"
        )

    async def stop(self) -> None:
        """Ends the session and closes the channel."""
        self._stopping = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        await self._channel.close()

    async def query(self, reading: Reading, seconds: float) -> AsyncGenerator[Page]:
        """Streams pages; see `hub.core.ports.Storage`."""
        self._require_connection()
        request = storage.QueryRequest(
            database=reading.database,
            source_service=reading.source_service,
            correlation_id=reading.correlation_id,
            page_size=reading.page_size,
        )
        asked = reading.statement
        if isinstance(asked, OperationRequest):
            request.schema_version = asked.schema_version
            asked = asked.statement
        request.statement.CopyFrom(asked)
        call = self._stub.Query(request, timeout=seconds)
        try:
            async for page in call:
                yield page
        except grpc.aio.AioRpcError as failure:
            raise self._decoded(failure) from None
        finally:
            call.cancel()

    async def look_up(
        self, database: str, request_id: str, *, correlation_id: str, seconds: float
    ) -> Recorded | None:
        """Asks for a recorded write; see `hub.core.ports.Storage`."""
        self._require_connection()
        request = storage.LookUpOperationRequest(
            database=database, request_id=request_id, correlation_id=correlation_id
        )
        try:
            response = await self._stub.LookUpOperation(request, timeout=seconds)
        except grpc.aio.AioRpcError as failure:
            raise self._decoded(failure) from None
        if not response.found:
            return None
        record, outcome = response.record, response.outcome
        failed = outcome.WhichOneof("outcome") == "error"
        return Recorded(
            source_service=record.source_service,
            correlation_id=record.correlation_id,
            time_us=record.time_us,
            sequence=outcome.sequence,
            result=None if failed else outcome.result,
            error=from_status(outcome.error) if failed else None,
        )

    async def describe_schema(self, database: str, *, correlation_id: str, seconds: float) -> Any:
        """Tells the schema of a database; see `hub.core.ports.Storage`."""
        self._require_connection()
        request = storage.DescribeSchemaRequest(database=database, correlation_id=correlation_id)
        try:
            return await self._stub.DescribeSchema(request, timeout=seconds)
        except grpc.aio.AioRpcError as failure:
            raise self._decoded(failure) from None

    async def rehearse_schema(self, rehearsal: Rehearsal, seconds: float) -> Sequence[Any]:
        """Runs changes of a schema that leave nothing; see `hub.core.ports.Storage`."""
        self._require_connection()
        request = storage.RehearseSchemaRequest(
            database=rehearsal.database,
            source_service=rehearsal.source_service,
            correlation_id=rehearsal.correlation_id,
            operations=rehearsal.operations,
            wait_timeout_ms=int(seconds * MILLISECONDS / 2),
        )
        try:
            return tuple((await self._stub.RehearseSchema(request, timeout=seconds)).reports)
        except grpc.aio.AioRpcError as failure:
            raise self._decoded(failure) from None

    async def adopt(self, adoption: Adoption, seconds: float) -> Sequence[str]:
        """Streams a file; see `hub.core.ports.Storage`."""
        self._require_connection()
        call = self._stub.AdoptDatabase(timeout=seconds)
        piece = storage.AdoptDatabaseRequest(
            database=adoption.database,
            correlation_id=adoption.correlation_id,
            size_bytes=adoption.size_bytes,
            checksum=adoption.checksum,
        )
        try:
            # A write fails without saying why; the call itself knows.
            with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
                async for chunk in adoption.chunks:
                    piece.chunk = chunk
                    await call.write(piece)
                    piece = storage.AdoptDatabaseRequest()
                await call.done_writing()
            return tuple((await call).tables)
        except grpc.aio.AioRpcError as failure:
            raise self._decoded(failure) from None
        finally:
            call.cancel()

    def _require_connection(self) -> None:
        if not self._placement.connected(self._address):
            raise StorageUnavailable(
                "the hub is not connected to the storage server; nothing was sent, call again",
                retry_after=self._config.reconnect_seconds_max,
            )

    def _decoded(self, failure: grpc.aio.AioRpcError) -> HubError:
        return decoded(failure, retry_seconds=self._config.reconnect_seconds_max)

    async def _keep_connected(self) -> None:
        now = asyncio.get_running_loop().time
        # A task group whose tasks fail while it is cancelled swallows the cancellation; without
        # the flag a hub that stops together with its storage server could go on for ever.
        while not self._stopping:
            began = now()
            try:
                await self._session()
            except* EXPECTED as why:
                # Once as a warning; a storage server that stays away would flood the log.
                level = logging.WARNING if not self._told_missing else logging.DEBUG
                self._told_missing = True
                _log.log(
                    level,
                    "no connection to the storage server",
                    extra={"address": self._address, "causes": _causes(why)},
                )
            except* Exception:  # noqa: BLE001 - a defect must not end the connecting for ever
                _log.exception("the connection to the storage server failed by a defect")
            finally:
                self._placement.disconnect(self._address)
            # A session that ends as soon as it began must not reset the delay, or a broken
            # storage server would be called without pause.
            if now() - began > self._config.reconnect_seconds_max:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.next())

    async def _session(self) -> None:
        watch = self._stub.WatchDatabases(storage.WatchDatabasesRequest(databases=self._databases))
        try:
            async with asyncio.timeout(self._config.storage_answer_seconds):
                first = await _next_states(watch)
            async with asyncio.TaskGroup() as streams:
                exchange = self._exchange.serve(self._stub.Exchange())
                streams.create_task(exchange, name="exchange")
                streams.create_task(self._follow(watch), name="watch")
                self._connected(first)
        finally:
            watch.cancel()
            await watch.code()

    def _connected(self, first: storage.WatchDatabasesResponse) -> None:
        self._told_missing = False
        self._placement.connect(
            self._address,
            version=first.version,
            engine=first.engine,
            databases=_states(first.databases),
        )
        _log.info(
            "connected to the storage server",
            extra={
                "address": self._address,
                "version": first.version,
                "engine": first.engine,
            },
        )

    async def _follow(self, watch: Any) -> NoReturn:
        """Passes on how the databases stand; a watch that ends in order is a server that stops."""
        while True:
            try:
                states = await _next_states(watch)
            except StorageUnavailable:
                self._placement.disconnect(self._address)
                self._exchange.drain()
                # What it still finishes is worth to wait for; the exchange ends after that.
                await asyncio.sleep(self._config.storage_answer_seconds)
                raise
            self._placement.change(self._address, _states(states.databases))


async def _next_states(watch: Any) -> storage.WatchDatabasesResponse:
    response = await watch.read()
    if not isinstance(response, storage.WatchDatabasesResponse):
        raise StorageUnavailable("the storage server ended the watch of its databases")
    return response


def _states(databases: Iterable[storage.DatabaseState]) -> list[DatabaseState]:
    return [
        DatabaseState(
            state.database,
            available=state.available,
            detail=state.detail,
            sequence=state.sequence,
            schema_version=state.schema_version,
            epoch=state.epoch,
            in_doubt=from_record(state.in_doubt) if state.HasField("in_doubt") else None,
        )
        for state in databases
    ]


def _causes(failures: BaseExceptionGroup[BaseException]) -> list[str]:
    causes: list[str] = []
    for failure in failures.exceptions:
        if isinstance(failure, BaseExceptionGroup):
            causes += _causes(failure)
        elif isinstance(failure, grpc.aio.AioRpcError):
            causes.append(f"{failure.code().name}: {failure.details()}")
        else:
            causes.append(f"{type(failure).__name__}: {failure}")
    return causes
