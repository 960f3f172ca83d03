"""A hub with two storage servers, of which one is reached through a line that fails on request."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from hub.config import DatabaseConfig
from messagehub.v1 import (
    event_service_pb2_grpc,
    hub_service_pb2_grpc,
    storage_service_pb2_grpc,
)
from storage.config import StorageConfig
from storage.server import StorageServer
from tests.support.calls import execute_request, rows, run_async
from tests.support.fault_proxy import Direction, FaultProxy
from tests.support.refusals import Refusal
from tests.support.servers import running_hub

# The service `auth` is behind the proxy, `character` is not.
FAULTY: Final = "auth"
SOUND: Final = "character"
ATTEMPT_SECONDS: Final = 0.5
SECONDS_MAX: Final = 40
DELAY_SECONDS: Final = 0.1
# What a caller may be told; a call that was under way at the moment just runs out of time.
SAID: Final = frozenset({"STORAGE_UNAVAILABLE", "CIRCUIT_OPEN", "DEADLINE_EXCEEDED"})

Fault = Callable[["Scene"], Awaitable[None]]


class Scene:
    """The proxy, the hub's stubs, and a stub to a hub that goes round the proxy."""

    def __init__(self, proxy: FaultProxy, hub: str, channel: Any, direct: Any) -> None:
        self.proxy = proxy
        self.hub = hub
        self.stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        self.events: Any = event_service_pb2_grpc.EventServiceStub(channel)
        self.operator: Any = hub_service_pb2_grpc.HubServiceStub(channel)
        self.direct: Any = storage_service_pb2_grpc.StorageServiceStub(direct)


@asynccontextmanager
async def running_scene(directory: Path, **hub_settings: Any) -> AsyncIterator[Scene]:
    """Everything, started; `hub_settings` are those of the hub behind the proxy."""

    def storage(name: str) -> StorageServer:
        return StorageServer(
            StorageConfig(listen="127.0.0.1:0", data_dir=str(directory / name), drain_seconds=1)
        )

    sound, faulty = storage("sound"), storage("faulty")
    await sound.start()
    await faulty.start()
    try:
        async with (
            FaultProxy(faulty.address) as proxy,
            running_hub(sound.address, databases=behind(proxy.address), **hub_settings) as hub,
            running_hub(sound.address, databases=behind(faulty.address)) as other,
            grpc.aio.insecure_channel(hub.address) as channel,
            grpc.aio.insecure_channel(other.address) as direct,
        ):
            made = Scene(proxy, hub.address, channel, direct)
            await until_answered(
                made.stub, execute_request("CREATE TABLE kept (n)", service=FAULTY)
            )
            await run_async(made.stub, "CREATE TABLE kept (n)", service=SOUND)
            yield made
            await proxy.forward()
    finally:
        await faulty.stop()
        await sound.stop()


def behind(address: str) -> dict[str, DatabaseConfig]:
    """Where the faulty service has its database."""
    return {"auth_db": DatabaseConfig(storage=address)}


async def refuse(scene: Scene) -> None:
    """New connections are refused, those that are open are reset."""
    await scene.proxy.refuse()
    scene.proxy.cut()


async def cut(scene: Scene) -> None:
    """Open connections are reset."""
    scene.proxy.cut()


async def stall(scene: Scene) -> None:
    """Nothing passes, nothing is lost."""
    scene.proxy.stall()


async def delay(scene: Scene) -> None:
    """Everything takes longer."""
    scene.proxy.delay(DELAY_SECONDS)


async def lose_questions(scene: Scene) -> None:
    """What the hub says is lost."""
    scene.proxy.lose(Direction.TO_TARGET)


async def lose_answers(scene: Scene) -> None:
    """What the storage server says is lost."""
    scene.proxy.lose(Direction.TO_CALLER)


FAULTS: Final = (refuse, cut, stall, delay, lose_questions, lose_answers)
# While these last, nothing is answered; the others end, or only slow down.
DEAF: Final = (refuse, stall, lose_questions, lose_answers)


async def until_answered(stub: Any, request: Any, *, seconds: float = ATTEMPT_SECONDS) -> Any:
    """Sends the same call until it is answered."""
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            try:
                return await stub.Execute(request, timeout=seconds)
            except grpc.aio.AioRpcError as failure:
                check_refusal(failure)
                await asyncio.sleep(0.02)


def check_refusal(failure: grpc.aio.AioRpcError) -> None:
    """A call that ran out of time was ended by whoever saw it first, the caller or the hub."""
    if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return
    refusal = Refusal()
    refusal.read_call(failure)
    assert refusal.code == "UNAVAILABLE"
    assert refusal.reason in SAID, refusal.message
    assert refusal.retry_seconds is not None


def write(number: int, service: str = FAULTY) -> Any:
    """An insert with a request id of its own."""
    return execute_request(
        "INSERT INTO kept VALUES (?)", number, service=service, request_id=str(uuid.uuid4())
    )


async def numbers(stub: Any, service: str = FAULTY) -> list[int]:
    """What was inserted."""
    answer = await until_answered(
        stub, execute_request("SELECT n FROM kept ORDER BY n", service=service), seconds=5
    )
    return [row[0] for row in rows(answer.result)]  # type: ignore[misc]
