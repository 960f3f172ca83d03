"""One storage server's network misbehaves in every way; whoever does not need it notices nothing.

A hub with two storage servers, each with databases of its own. One is reached through a proxy
that refuses, cuts, stalls, delays or loses what travels one way.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from hub.config import DatabaseConfig
from messagehub.v1 import event_service_pb2_grpc, storage_service_pb2_grpc
from messagehub.v1.event_service_pb2 import SubscribeRequest
from storage.config import StorageConfig
from storage.server import StorageServer
from tests.support.calls import CALL_SECONDS, execute_request, query_request, rows, run_async
from tests.support.eventually import eventually
from tests.support.fault_proxy import Direction, FaultProxy
from tests.support.health import SERVING, check
from tests.support.refusals import Refusal
from tests.support.servers import running_hub

# The service `auth` is behind the proxy, `character` is not.
FAULTY, SOUND = "auth", "character"
ATTEMPT_SECONDS = 0.5
SECONDS_MAX = 40
DELAY_SECONDS = 0.1
ROUNDS = 6
# What a caller may be told; a call that was under way at the moment just runs out of time.
SAID = {"STORAGE_UNAVAILABLE", "CIRCUIT_OPEN", "DEADLINE_EXCEEDED"}

Fault = Callable[["Scene"], Awaitable[None]]


class Scene:
    """The proxy, the hub's stubs, and a stub to a hub that goes round the proxy."""

    def __init__(self, proxy: FaultProxy, hub: str, channel: Any, direct: Any) -> None:
        self.proxy = proxy
        self.hub = hub
        self.stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        self.events: Any = event_service_pb2_grpc.EventServiceStub(channel)
        self.direct: Any = storage_service_pb2_grpc.StorageServiceStub(direct)


@pytest_asyncio.fixture(loop_scope="session")
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    def storage(name: str) -> StorageServer:
        return StorageServer(
            StorageConfig(listen="127.0.0.1:0", data_dir=str(tmp_path / name), drain_seconds=1)
        )

    sound, faulty = storage("sound"), storage("faulty")
    await sound.start()
    await faulty.start()
    try:
        async with (
            FaultProxy(faulty.address) as proxy,
            running_hub(sound.address, databases=behind(proxy.address)) as hub,
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
    return {"auth_db": DatabaseConfig(storage=address)}


async def refuse(scene: Scene) -> None:
    await scene.proxy.refuse()
    scene.proxy.cut()


async def cut(scene: Scene) -> None:
    scene.proxy.cut()


async def stall(scene: Scene) -> None:
    scene.proxy.stall()


async def delay(scene: Scene) -> None:
    scene.proxy.delay(DELAY_SECONDS)


async def lose_questions(scene: Scene) -> None:
    scene.proxy.lose(Direction.TO_TARGET)


async def lose_answers(scene: Scene) -> None:
    scene.proxy.lose(Direction.TO_CALLER)


FAULTS = [refuse, cut, stall, delay, lose_questions, lose_answers]
# While these last, nothing is answered; the others end, or only slow down.
DEAF = [refuse, stall, lose_questions, lose_answers]


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
    return execute_request(
        "INSERT INTO kept VALUES (?)", number, service=service, request_id=str(uuid.uuid4())
    )


async def numbers(stub: Any, service: str = FAULTY) -> list[int]:
    answer = await until_answered(
        stub, execute_request("SELECT n FROM kept ORDER BY n", service=service), seconds=5
    )
    return [row[0] for row in rows(answer.result)]  # type: ignore[misc]


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_call_ends_in_its_time_and_others_notice_nothing(
    scene: Scene, fault: Fault
) -> None:
    await fault(scene)
    for number in range(ROUNDS):
        faulty = scene.stub.Execute(write(number), timeout=ATTEMPT_SECONDS)
        # Sent behind the one that cannot be answered, and answered.
        assert (await scene.stub.Execute(write(number, SOUND), timeout=CALL_SECONDS)).sequence
        assert await check(scene.hub, "storage.character_db") == SERVING
        async with asyncio.timeout(SECONDS_MAX):
            try:
                await faulty
            except grpc.aio.AioRpcError as failure:
                check_refusal(failure)
            else:
                assert fault not in DEAF
    assert await numbers(scene.stub, SOUND) == list(range(ROUNDS))
    assert await check(scene.hub) == SERVING


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_write_under_the_fault_is_done_once_and_all_recovers(
    scene: Scene, fault: Fault
) -> None:
    requests = [write(number) for number in range(ROUNDS)]
    calls = [scene.stub.Execute(request, timeout=2) for request in requests[: ROUNDS // 2]]
    await fault(scene)
    calls += [scene.stub.Execute(request, timeout=2) for request in requests[ROUNDS // 2 :]]
    for failure in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(failure, grpc.aio.AioRpcError):
            check_refusal(failure)
    await scene.proxy.forward()
    for request in requests:
        await until_answered(scene.stub, request)
    assert await numbers(scene.direct) == list(range(ROUNDS))
    await eventually(lambda: _serves(scene))


async def _serves(scene: Scene) -> bool:
    return await check(scene.hub, "storage.auth_db") == SERVING


async def test_what_was_done_while_its_answer_was_lost_is_told_later(scene: Scene) -> None:
    request = write(1)
    scene.proxy.lose(Direction.TO_CALLER)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scene.stub.Execute(request, timeout=1)
    check_refusal(caught.value)

    async def done() -> bool:
        return await numbers(scene.direct) == [1]

    await eventually(done)
    await scene.proxy.forward()
    first = await until_answered(scene.stub, request)
    again = await until_answered(scene.direct, request)
    assert first.replayed
    assert again.replayed
    assert first.sequence == again.sequence
    assert await numbers(scene.stub) == [1]


@pytest.mark.parametrize("fault", [refuse, lose_answers])
async def test_a_query_is_refused_and_another_goes_on(scene: Scene, fault: Fault) -> None:
    counted = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 50000) "
    sound = scene.stub.Query(
        query_request(f"{counted} SELECT n FROM c", service=SOUND), timeout=CALL_SECONDS
    )
    count = len((await sound.read()).result.rows)
    await fault(scene)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scene.stub.Query(query_request("SELECT 1", service=FAULTY), timeout=1).read()
    check_refusal(caught.value)
    while (page := await sound.read()) is not grpc.aio.EOF:
        count += len(page.result.rows)
    assert count == 50_000


@pytest.mark.parametrize("fault", [refuse, cut, lose_answers])
async def test_a_subscription_survives_without_gap_or_repetition(
    scene: Scene, fault: Fault
) -> None:
    call = scene.events.Subscribe(
        SubscribeRequest(
            source_service=FAULTY, event_types=["storage.operation_completed"], latest=True
        )
    )
    await call.read()
    requests = [write(number) for number in range(ROUNDS)]
    for number, request in enumerate(requests):
        if number == ROUNDS // 3:
            await fault(scene)
        if number == ROUNDS // 2:
            await scene.proxy.forward()
        await until_answered(scene.direct, request)
    seen: list[str] = []
    async with asyncio.timeout(SECONDS_MAX):
        while len(seen) < ROUNDS:
            message = await call.read()
            seen += [event.operation_completed.request_id for event in message.events]
    call.cancel()
    assert seen == [request.request_id for request in requests]
