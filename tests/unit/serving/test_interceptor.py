"""What the first hop of every call does, over real gRPC with behaviours that tests choose."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import pytest_asyncio

from messagehub.errors import ConstraintViolation
from messagehub.serving import logs
from messagehub.serving.interceptor import CallInterceptor, time_left
from messagehub.storage.v1 import storage_service_pb2 as private
from messagehub.storage.v1 import storage_service_pb2_grpc as private_grpc
from messagehub.v1 import (
    event_service_pb2_grpc,
    hub_service_pb2,
    hub_service_pb2_grpc,
    storage_service_pb2_grpc,
)
from messagehub.v1.event_service_pb2 import SubscribeRequest, SubscribeResponse
from messagehub.v1.storage_service_pb2 import (
    ExecuteRequest,
    ExecuteResponse,
    QueryRequest,
    QueryResponse,
)
from tests.support.refusals import refused

BYTES_MAX = 10_000
DEFAULT_SECONDS = 0.2
CALL_SECONDS = 10
# gRPC sends a deadline in coarse units, rounded up.
GRPC_ROUNDING_SECONDS = 1
LOGGER = "messagehub.serving.interceptor"


class Behaviours(
    storage_service_pb2_grpc.StorageServiceServicer,
    hub_service_pb2_grpc.HubServiceServicer,
    event_service_pb2_grpc.EventServiceServicer,
):
    """One method of each shape; a test replaces what it is about."""

    def __init__(self) -> None:
        self.execute: Any = None
        self.query: Any = None
        self.adopt: Any = None
        self.subscribe: Any = None

    async def Execute(self, request: Any, context: Any) -> Any:  # noqa: N802 - on the wire
        return await self.execute(request, context)

    async def Query(self, request: Any, context: Any) -> Any:  # noqa: N802 - on the wire
        async for page in self.query(request, context):
            yield page

    async def AdoptDatabase(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802 - on the wire
        return await self.adopt(request_iterator, context)

    async def Subscribe(self, request: Any, context: Any) -> Any:  # noqa: N802 - on the wire
        async for message in self.subscribe(request, context):
            yield message


class Frames(private_grpc.StorageServiceServicer):
    """The shape with a stream both ways."""

    def __init__(self) -> None:
        self.exchange: Any = None

    async def Exchange(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802 - on the wire
        async for frame in self.exchange(request_iterator, context):
            yield frame


class Rig:
    """A server with the interceptor, and stubs on it."""

    def __init__(self, behaviours: Behaviours, frames: Frames, channel: grpc.aio.Channel) -> None:
        self.behaviours = behaviours
        self.frames = frames
        self.channel = channel
        self.storage: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        self.hub: Any = hub_service_pb2_grpc.HubServiceStub(channel)
        self.events: Any = event_service_pb2_grpc.EventServiceStub(channel)
        self.private: Any = private_grpc.StorageServiceStub(channel)


@pytest_asyncio.fixture(loop_scope="session")
async def rig() -> AsyncIterator[Rig]:
    interceptor = CallInterceptor(message_bytes_max=BYTES_MAX, default_timeout=DEFAULT_SECONDS)
    server = grpc.aio.server(interceptors=[interceptor], options=[("grpc.so_reuseport", 0)])
    behaviours, frames = Behaviours(), Frames()
    storage_service_pb2_grpc.add_StorageServiceServicer_to_server(behaviours, server)
    hub_service_pb2_grpc.add_HubServiceServicer_to_server(behaviours, server)
    event_service_pb2_grpc.add_EventServiceServicer_to_server(behaviours, server)
    private_grpc.add_StorageServiceServicer_to_server(frames, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Rig(behaviours, frames, channel)
    await server.stop(None)


async def echo(request: ExecuteRequest, _context: Any) -> ExecuteResponse:
    return ExecuteResponse(correlation_id=request.correlation_id)


def raising(failure: BaseException) -> Callable[..., Any]:
    async def behave(_request: Any, _context: Any) -> Any:
        raise failure

    return behave


async def forever(_request: Any, _context: Any) -> Any:
    await asyncio.Event().wait()


async def execute(rig: Rig, timeout: float | None = CALL_SECONDS, **fields: Any) -> Any:
    return await rig.storage.Execute(ExecuteRequest(**fields), timeout=timeout)


async def test_a_call_without_correlation_id_gets_one_of_its_own(rig: Rig) -> None:
    rig.behaviours.execute = echo
    one, other = await execute(rig), await execute(rig)
    assert one.correlation_id
    assert other.correlation_id
    assert one.correlation_id != other.correlation_id


async def test_a_correlation_id_reaches_the_behaviour_and_its_log_lines(rig: Rig) -> None:
    seen = []

    async def behave(request: ExecuteRequest, context: Any) -> ExecuteResponse:
        seen.append(logs.correlation_id.get())
        return await echo(request, context)

    rig.behaviours.execute = behave
    answer = await execute(rig, correlation_id="naïve ✓ 1")
    assert answer.correlation_id == "naïve ✓ 1"
    assert seen == ["naïve ✓ 1"]


@pytest.mark.parametrize("given", ["x" * 129, "a\nb", "\x00"])
async def test_a_correlation_id_that_would_spoil_a_log_is_refused(rig: Rig, given: str) -> None:
    rig.behaviours.execute = echo
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        await execute(rig, correlation_id=given)
    assert "correlation_id" in refusal.fields
    assert (await execute(rig, correlation_id="x" * 128)).correlation_id == "x" * 128


async def test_an_error_of_ours_is_told_whole(rig: Rig) -> None:
    rig.behaviours.execute = raising(
        ConstraintViolation(
            "not twice", fields={"statement": "twice"}, metadata={"constraint": "unique"}
        )
    )
    with refused("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION") as refusal:
        await execute(rig)
    assert refusal.message == "not twice"
    assert refusal.fields == {"statement": "twice"}
    assert refusal.metadata == {"constraint": "unique"}


async def test_a_defect_tells_the_caller_nothing_and_the_log_everything(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.behaviours.execute = raising(LookupError("a secret"))
    with caplog.at_level(logging.ERROR, LOGGER), refused("INTERNAL", "INTERNAL") as refusal:
        await execute(rig, correlation_id="find-me")
    assert "secret" not in refusal.message
    assert "find-me" in refusal.message
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "a secret" in str(record.exc_info[1])
    assert record.method == "/messagehub.v1.StorageService/Execute"


async def test_a_refusal_is_a_line_in_the_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.behaviours.execute = raising(ConstraintViolation("not twice"))
    with (
        caplog.at_level(logging.INFO, LOGGER),
        refused("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION"),
    ):
        await execute(rig)
    (record,) = caplog.records
    assert (record.levelname, record.reason, record.detail) == (
        "INFO",
        "CONSTRAINT_VIOLATION",
        "not twice",
    )


async def test_what_is_not_built_says_so_from_one_place(rig: Rig) -> None:
    with refused("UNIMPLEMENTED", "NOT_IMPLEMENTED"):
        await rig.hub.OpenCircuit(hub_service_pb2.OpenCircuitRequest(), timeout=CALL_SECONDS)


async def test_an_answer_of_grpcs_own_passes_untouched(rig: Rig) -> None:
    async def behave(_request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such name")

    rig.behaviours.execute = behave
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await execute(rig)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "there is no such name"


def request_of(size: int) -> ExecuteRequest:
    request = ExecuteRequest(source_service="x" * (size - 100), correlation_id="c")
    request.source_service += "x" * (size - request.ByteSize())
    assert request.ByteSize() == size
    return request


async def test_a_message_may_have_as_many_bytes_as_the_limit_says(rig: Rig) -> None:
    rig.behaviours.execute = echo
    await rig.storage.Execute(request_of(BYTES_MAX), timeout=CALL_SECONDS)
    with refused("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE") as refusal:
        await rig.storage.Execute(request_of(BYTES_MAX + 1), timeout=CALL_SECONDS)
    assert refusal.metadata == {"limit_bytes": str(BYTES_MAX)}
    assert "message_bytes_max" in refusal.message


async def test_bytes_that_are_no_message_are_refused(rig: Rig) -> None:
    raw = rig.channel.unary_unary("/messagehub.v1.StorageService/Execute")
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
        await raw(b"\xff\xff\xff", timeout=CALL_SECONDS)


async def test_a_call_without_deadline_gets_the_default(rig: Rig) -> None:
    left = []

    async def behave(request: ExecuteRequest, context: Any) -> ExecuteResponse:
        left.append(time_left())
        return await echo(request, context)

    rig.behaviours.execute = behave
    await execute(rig, timeout=None)
    await execute(rig, timeout=CALL_SECONDS)
    assert 0 < left[0] <= DEFAULT_SECONDS < left[1] <= CALL_SECONDS + GRPC_ROUNDING_SECONDS


async def test_the_default_ends_a_call_with_a_reason(rig: Rig) -> None:
    rig.behaviours.execute = forever
    with refused("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"):
        await execute(rig, timeout=None)


@asynccontextmanager
async def noticing(started: asyncio.Event, ended: asyncio.Event) -> AsyncIterator[None]:
    started.set()
    try:
        yield
    except asyncio.CancelledError:
        ended.set()
        raise


async def test_a_cancelled_call_is_cancelled_in_the_behaviour(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def behave(request: Any, context: Any) -> None:
        async with noticing(started, ended):
            await forever(request, context)

    rig.behaviours.execute = behave
    with caplog.at_level(logging.INFO, LOGGER):
        call = rig.storage.Execute(ExecuteRequest(), timeout=CALL_SECONDS)
        async with asyncio.timeout(CALL_SECONDS):
            await started.wait()
            call.cancel()
            await ended.wait()
    assert caplog.records == []


async def test_a_cancelled_stream_is_cancelled_in_the_behaviour(rig: Rig) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def behave(request: Any, context: Any) -> AsyncIterator[QueryResponse]:
        yield QueryResponse()
        async with noticing(started, ended):
            await forever(request, context)

    rig.behaviours.query = behave
    call = rig.storage.Query(QueryRequest())
    async with asyncio.timeout(CALL_SECONDS):
        await call.read()
        await started.wait()
        call.cancel()
        await ended.wait()


async def test_a_stream_may_fail_after_it_began(rig: Rig) -> None:
    async def behave(request: QueryRequest, _context: Any) -> AsyncIterator[QueryResponse]:
        yield QueryResponse(correlation_id=request.correlation_id)
        raise ConstraintViolation("half way")

    rig.behaviours.query = behave
    call = rig.storage.Query(QueryRequest(correlation_id="c"), timeout=CALL_SECONDS)
    assert (await call.read()).correlation_id == "c"
    with refused("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION"):
        await call.read()


async def test_a_stream_without_deadline_is_bounded_by_its_caller_alone(rig: Rig) -> None:
    async def behave(_request: Any, _context: Any) -> AsyncIterator[QueryResponse]:
        yield QueryResponse(sequence=int(time_left() == float("inf")))

    rig.behaviours.query = behave
    assert (await rig.storage.Query(QueryRequest()).read()).sequence == 1


def piece(**fields: Any) -> hub_service_pb2.AdoptDatabaseRequest:
    return hub_service_pb2.AdoptDatabaseRequest(**fields)


async def test_every_message_of_a_stream_is_checked(rig: Rig) -> None:
    async def behave(pieces: AsyncIterator[Any], _context: Any) -> Any:
        database, *_ = [p.database async for p in pieces]
        return hub_service_pb2.AdoptDatabaseResponse(database=database)

    rig.behaviours.adopt = behave
    fine = [piece(database="a"), piece(chunk=b"x"), piece(chunk=b"y")]
    answer = await rig.hub.AdoptDatabase(iter(fine), timeout=CALL_SECONDS)
    assert answer.database == "a"
    with refused("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE"):
        large = piece(chunk=bytes(BYTES_MAX))
        await rig.hub.AdoptDatabase(iter([fine[0], large]), timeout=CALL_SECONDS)


async def test_a_refused_caller_that_still_sends_hears_the_reason(rig: Rig) -> None:
    rig.behaviours.adopt = raising(ConstraintViolation("no"))

    async def pieces() -> AsyncIterator[Any]:
        for _ in range(300):
            yield piece(chunk=bytes(BYTES_MAX - 100))

    with refused("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION"):
        await rig.hub.AdoptDatabase(pieces(), timeout=CALL_SECONDS)


async def test_a_correlation_id_that_selects_events_is_left_empty(rig: Rig) -> None:
    """A subscription without one wants all events, not those of its own call."""
    seen = []

    async def behave(request: Any, _context: Any) -> AsyncIterator[SubscribeResponse]:
        seen.append((request.correlation_id, logs.correlation_id.get()))
        yield SubscribeResponse()

    rig.behaviours.subscribe = behave
    for given in ("", "chosen"):
        await rig.events.Subscribe(SubscribeRequest(correlation_id=given)).read()
    assert [selected for selected, _ in seen] == ["", "chosen"]
    names = {named for _, named in seen}
    assert len(names) == 2
    assert names.isdisjoint({"", "chosen"})


async def test_the_messages_of_a_stream_have_one_correlation_id(rig: Rig) -> None:
    seen = []

    async def behave(pieces: AsyncIterator[Any], _context: Any) -> Any:
        seen.extend([logs.correlation_id.get() async for _ in pieces])
        return hub_service_pb2.AdoptDatabaseResponse()

    rig.behaviours.adopt = behave
    pieces = [piece(correlation_id="mine"), piece(chunk=b"x"), piece(chunk=b"y")]
    await rig.hub.AdoptDatabase(iter(pieces), timeout=CALL_SECONDS)
    assert seen == ["mine", "mine", "mine"]


async def test_a_stream_that_is_collected_is_bounded_by_the_default(rig: Rig) -> None:
    rig.behaviours.adopt = forever
    with refused("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"):
        await rig.hub.AdoptDatabase(iter([piece()]))


async def test_a_stream_both_ways_passes_messages_as_they_come(rig: Rig) -> None:
    async def behave(frames: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        async for frame in frames:
            yield private.ExchangeResponse(frames_taken=len(frame.cancelled))

    rig.frames.exchange = behave
    call = rig.private.Exchange(timeout=CALL_SECONDS)
    for count in (1, 2):
        await call.write(private.ExchangeRequest(cancelled=range(count)))
        assert (await call.read()).frames_taken == count
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
