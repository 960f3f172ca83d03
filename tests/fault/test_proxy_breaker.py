"""What each fault of the line does to the circuit of its database, and to that of no other."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from messagehub.v1.hub_service_pb2 import (
    CIRCUIT_STATE_CLOSED,
    CIRCUIT_STATE_OPEN,
    GetStatusRequest,
)
from tests.fault.proxy_scene import (
    ATTEMPT_SECONDS,
    DEAF,
    FAULTY,
    SECONDS_MAX,
    SOUND,
    Fault,
    Scene,
    cut,
    delay,
    numbers,
    running_scene,
    until_answered,
    write,
)
from tests.support.calls import CALL_SECONDS
from tests.support.eventually import eventually
from tests.support.health import NOT_SERVING, SERVING, check, wait_for_status, wait_until_serving
from tests.support.refusals import Refusal

FAULTY_HEALTH, SOUND_HEALTH = f"storage.{FAULTY}_db", f"storage.{SOUND}_db"
# A call as long as an attempt here is long enough to count the silence against the database.
SETTINGS = {
    "storage_answer_seconds": ATTEMPT_SECONDS / 2,
    "circuit_failures_max": 3,
    "circuit_open_seconds_min": 0.1,
    "circuit_open_seconds_max": 0.4,
}


@pytest_asyncio.fixture(loop_scope="session")
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_scene(tmp_path, **SETTINGS) as made:
        yield made


async def circuit(scene: Scene, service: str) -> int:
    answer = await scene.operator.GetStatus(GetStatusRequest(), timeout=CALL_SECONDS)
    (found,) = (one for one in answer.status.databases if one.database == f"{service}_db")
    return found.circuit


async def refused_at_once(scene: Scene) -> Refusal:
    """Calls until a call is refused by the open circuit."""
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            try:
                await scene.stub.Execute(write(0), timeout=ATTEMPT_SECONDS)
            except grpc.aio.AioRpcError as failure:
                if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    continue
                refusal = Refusal()
                refusal.read_call(failure)
                if refusal.reason == "CIRCUIT_OPEN":
                    return refusal


@pytest.mark.parametrize("fault", DEAF)
async def test_a_deaf_line_opens_the_circuit_and_its_end_closes_it(
    scene: Scene, fault: Fault
) -> None:
    await fault(scene)
    refusal = await refused_at_once(scene)
    assert refusal.retry_seconds is not None
    assert refusal.retry_seconds > 0
    assert await check(scene.hub, FAULTY_HEALTH) == NOT_SERVING
    assert await circuit(scene, FAULTY) != CIRCUIT_STATE_CLOSED
    # Nobody else is hurt.
    assert await check(scene.hub, SOUND_HEALTH) == SERVING
    assert await circuit(scene, SOUND) == CIRCUIT_STATE_CLOSED
    assert await check(scene.hub) == SERVING
    await scene.proxy.forward()
    # Nobody calls: it comes back by itself.
    await wait_until_serving(scene.hub, FAULTY_HEALTH)
    assert await circuit(scene, FAULTY) == CIRCUIT_STATE_CLOSED
    await until_answered(scene.stub, write(1))
    assert (await numbers(scene.direct))[-1] == 1


async def test_a_cut_opens_it_for_a_moment(scene: Scene) -> None:
    await cut(scene)
    await wait_for_status(scene.hub, FAULTY_HEALTH, SERVING)

    async def closed() -> bool:
        return await circuit(scene, FAULTY) == CIRCUIT_STATE_CLOSED

    await eventually(closed)
    await until_answered(scene.stub, write(1))
    assert await circuit(scene, SOUND) == CIRCUIT_STATE_CLOSED


async def test_a_slow_line_is_no_failure(tmp_path: Path) -> None:
    async with running_scene(tmp_path) as scene:
        await delay(scene)
        for number in range(4):
            await until_answered(scene.stub, write(number), seconds=CALL_SECONDS)
            assert await circuit(scene, FAULTY) != CIRCUIT_STATE_OPEN
        assert await numbers(scene.direct) == list(range(4))
