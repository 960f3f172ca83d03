"""One storage server's network misbehaves in every way; whoever does not need it notices nothing.

A hub with two storage servers, each with databases of its own. One is reached through a proxy
that refuses, cuts, stalls, delays or loses what travels one way.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from messagehub.v1.event_service_pb2 import SubscribeRequest
from tests.fault.proxy_scene import (
    ATTEMPT_SECONDS,
    DEAF,
    FAULTS,
    FAULTY,
    SECONDS_MAX,
    SOUND,
    Fault,
    Scene,
    check_refusal,
    cut,
    lose_answers,
    numbers,
    refuse,
    running_scene,
    until_answered,
    write,
)
from tests.support.calls import CALL_SECONDS, query_request
from tests.support.eventually import eventually
from tests.support.fault_proxy import Direction
from tests.support.health import SERVING, check

ROUNDS = 6


@pytest_asyncio.fixture(loop_scope="session")
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_scene(tmp_path) as made:
        yield made


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
