"""How the calls of a server end when it stops."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from messagehub.serving.drain import Drain
from messagehub.serving.health import READY, HealthBoard
from messagehub.serving.process import bind, make_server
from messagehub.v1 import event_service_pb2_grpc, storage_service_pb2_grpc
from messagehub.v1.event_service_pb2 import SubscribeRequest, SubscribeResponse
from messagehub.v1.storage_service_pb2 import ExecuteRequest, ExecuteResponse
from tests.support.health import NOT_SERVING
from tests.support.refusals import refused

SECONDS_MAX = 20.0
LONG_SECONDS = 3600.0


class Service(
    storage_service_pb2_grpc.StorageServiceServicer, event_service_pb2_grpc.EventServiceServicer
):
    """Calls that last until `finish` is set."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.finish = asyncio.Event()
        self.cleaned_up: list[str] = []

    async def Execute(self, request: Any, context: Any) -> Any:  # noqa: N802 - on the wire
        await self._last("execute")
        return ExecuteResponse()

    async def Subscribe(  # noqa: N802 - on the wire
        self, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        yield SubscribeResponse(cursor="first")
        await self._last("subscribe")
        yield SubscribeResponse(cursor="last")

    async def _last(self, name: str) -> None:
        self.begun.put_nowait(name)
        try:
            await self.finish.wait()
        finally:
            self.cleaned_up.append(name)


class Rig:
    """A server with calls under way, and its stubs."""

    def __init__(self, drain: Drain, service: Service, channel: grpc.aio.Channel) -> None:
        self.drain = drain
        self.service = service
        self.storage: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        self.events: Any = event_service_pb2_grpc.EventServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)

    def execute(self) -> Any:
        return self.storage.Execute(ExecuteRequest(), timeout=SECONDS_MAX)

    async def begin(self) -> tuple[Any, Any]:
        """Gives a call and a stream that are under way."""
        call = self.execute()
        stream = self.events.Subscribe(SubscribeRequest(), timeout=SECONDS_MAX)
        assert (await stream.read()).cursor == "first"
        assert {await self.service.begun.get(), await self.service.begun.get()} == {
            "execute",
            "subscribe",
        }
        return call, stream


@pytest_asyncio.fixture(loop_scope="session")
async def rig() -> AsyncIterator[Rig]:
    drain, service, health = Drain(), Service(), HealthBoard()
    server = make_server(
        message_bytes_max=1000, default_timeout=30, concurrent_streams_max=100, drain=drain
    )
    storage_service_pb2_grpc.add_StorageServiceServicer_to_server(service, server)
    event_service_pb2_grpc.add_EventServiceServicer_to_server(service, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    health.set(READY, serving=False)
    address = bind(server, "127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield Rig(drain, service, channel)
    health.close()
    await server.stop(None)


async def test_a_server_without_calls_drains_at_once(rig: Rig) -> None:
    await rig.drain.finish(LONG_SECONDS)


async def test_calls_under_way_finish(rig: Rig) -> None:
    call, stream = await rig.begin()
    finishing = asyncio.create_task(rig.drain.finish(LONG_SECONDS))
    await asyncio.sleep(0)
    assert not finishing.done()
    rig.service.finish.set()
    assert await call == ExecuteResponse()
    assert (await stream.read()).cursor == "last"
    assert await stream.read() is grpc.aio.EOF
    async with asyncio.timeout(SECONDS_MAX):
        await finishing


async def test_calls_that_do_not_finish_are_refused_where_they_stand(rig: Rig) -> None:
    call, stream = await rig.begin()
    await rig.drain.finish(0.0)
    with refused("UNAVAILABLE", "SHUTTING_DOWN") as refusal:
        await call
    assert refusal.retry_seconds is not None
    with refused("UNAVAILABLE", "SHUTTING_DOWN"):
        await stream.read()
    assert sorted(rig.service.cleaned_up) == ["execute", "subscribe"]


async def test_new_calls_are_refused_and_probes_answered(rig: Rig) -> None:
    rig.drain.refuse()
    with refused("UNAVAILABLE", "SHUTTING_DOWN") as refusal:
        await rig.execute()
    assert refusal.retry_seconds is not None
    with refused("UNAVAILABLE", "SHUTTING_DOWN"):
        await rig.events.Subscribe(SubscribeRequest(), timeout=SECONDS_MAX).read()
    assert rig.service.begun.empty()
    answer = await rig.health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS_MAX)
    assert answer.status == NOT_SERVING


async def test_a_caller_that_goes_away_is_not_waited_for(rig: Rig) -> None:
    call, stream = await rig.begin()
    call.cancel()
    stream.cancel()
    async with asyncio.timeout(SECONDS_MAX):
        await rig.drain.finish(LONG_SECONDS)
    with pytest.raises(asyncio.CancelledError):
        await call
