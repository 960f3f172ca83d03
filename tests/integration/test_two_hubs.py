"""Two hubs over one storage server: it makes no difference which of them is called."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest_asyncio

from messagehub.client import Hub
from messagehub.errors import HubError
from messagehub.v1 import event_service_pb2_grpc, storage_service_pb2_grpc
from messagehub.v1.event_service_pb2 import SubscribeRequest
from messagehub.v1.storage_service_pb2 import (
    OPERATION_STATE_COMPLETED,
    ExecuteResponse,
    GetOperationRequest,
)
from tests.support.calls import CALL_SECONDS, SERVICE, execute_request, rows, run_async
from tests.support.eventually import eventually
from tests.support.refusals import refused
from tests.support.servers import running_hub, running_servers

WRITES: Final = 200
SECONDS_MAX: Final = 60


class Both:
    """Two hubs, and stubs to each."""

    def __init__(self, channels: list[grpc.aio.Channel], addresses: list[str]) -> None:
        self.addresses = addresses
        self.stubs: list[Any] = [storage_service_pb2_grpc.StorageServiceStub(c) for c in channels]
        self.events: list[Any] = [event_service_pb2_grpc.EventServiceStub(c) for c in channels]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def both(tmp_path_factory: Any) -> AsyncIterator[Both]:
    directory: Path = tmp_path_factory.mktemp("two-hubs")
    one_data, other_data = str(directory / "one"), str(directory / "other")
    async with (
        running_servers(directory, hub={"data_dir": one_data}) as servers,
        running_hub(servers.storage.address, data_dir=other_data) as other,
        grpc.aio.insecure_channel(servers.hub.address) as one_channel,
        grpc.aio.insecure_channel(other.address) as other_channel,
    ):
        yield Both([one_channel, other_channel], [servers.hub.address, other.address])


async def test_a_request_id_is_done_once_through_both(both: Both, table: str) -> None:
    await run_async(both.stubs[0], f"CREATE TABLE {table} (n)")

    async def write(number: int) -> list[ExecuteResponse]:
        request = execute_request(
            f"INSERT INTO {table} VALUES (?)", number, request_id=str(uuid.uuid4())
        )
        return await asyncio.gather(
            *(stub.Execute(request, timeout=CALL_SECONDS) for stub in both.stubs)
        )

    for answers in await asyncio.gather(*(write(number) for number in range(WRITES))):
        assert sorted(answer.replayed for answer in answers) == [False, True]
        assert len({answer.sequence for answer in answers}) == 1
    for stub in both.stubs:
        found = rows(await run_async(stub, f"SELECT n FROM {table} ORDER BY n"))
        assert found == [(number,) for number in range(WRITES)]


async def test_an_id_with_other_content_is_refused_by_the_other_hub(both: Both, table: str) -> None:
    await run_async(both.stubs[0], f"CREATE TABLE {table} (n)")
    request_id = str(uuid.uuid4())
    insert = f"INSERT INTO {table} VALUES (?)"
    first, second = (execute_request(insert, number, request_id=request_id) for number in (1, 2))
    await both.stubs[0].Execute(first, timeout=CALL_SECONDS)
    with refused("ALREADY_EXISTS", "REQUEST_ID_REUSED"):
        await both.stubs[1].Execute(second, timeout=CALL_SECONDS)


async def test_the_other_hub_knows_what_became_of_a_write(both: Both, table: str) -> None:
    request_id = str(uuid.uuid4())
    await both.stubs[0].Execute(
        execute_request(f"CREATE TABLE {table} (n)", request_id=request_id), timeout=CALL_SECONDS
    )
    question = GetOperationRequest(source_service=SERVICE, request_id=request_id)
    answer = await both.stubs[1].GetOperation(question, timeout=CALL_SECONDS)
    assert answer.operation.state == OPERATION_STATE_COMPLETED


async def follow(events: Any, cursor: str, last: int) -> tuple[list[int], str]:
    """Reads through one hub until a sequence; gives the sequences and the cursor after them."""
    call = events.Subscribe(SubscribeRequest(source_service=SERVICE, cursor=cursor))
    sequences: list[int] = []
    try:
        async with asyncio.timeout(SECONDS_MAX):
            while not sequences or sequences[-1] < last:
                message = await call.read()
                sequences += [event.sequence for event in message.events]
                cursor = message.cursor
    finally:
        call.cancel()
    return sequences, cursor


async def test_a_subscription_sees_what_either_hub_wrote_and_moves_between_them(
    both: Both, table: str
) -> None:
    await run_async(both.stubs[0], f"CREATE TABLE {table} (n)")
    opening = both.events[0].Subscribe(SubscribeRequest(source_service=SERVICE, latest=True))
    cursor = (await opening.read()).cursor
    opening.cancel()

    async def write(number: int) -> int:
        request = execute_request(f"INSERT INTO {table} VALUES (?)", number)
        answer = await both.stubs[number % 2].Execute(request, timeout=CALL_SECONDS)
        return int(answer.sequence)

    for half in range(2):
        written = sorted(await asyncio.gather(*(write(number) for number in range(WRITES))))
        # Each half is read through another hub, from the cursor that the first one gave.
        (one, after), (other, _) = await asyncio.gather(
            follow(both.events[half], cursor, written[-1]),
            follow(both.events[1 - half], cursor, written[-1]),
        )
        assert one == other == written
        cursor = after


async def test_a_client_of_two_hubs_does_not_notice_that_one_goes(
    tmp_path: Path, table: str
) -> None:
    async with running_servers(tmp_path, hub={"data_dir": str(tmp_path / "one")}) as servers:
        acknowledged: list[int] = []
        failures: list[HubError] = []
        async with running_hub(servers.storage.address, data_dir=str(tmp_path / "two")) as leaving:
            both_of_them = "ipv4:" + ",".join((servers.hub.address, leaving.address))
            hub = Hub(both_of_them, service=SERVICE)
            await hub.execute(f"CREATE TABLE {table} (n)")
            ended = asyncio.Event()

            async def write(worker: int) -> None:
                number = worker
                while not ended.is_set():
                    try:
                        await hub.execute(f"INSERT INTO {table} VALUES (?)", [number])
                    except HubError as failure:
                        failures.append(failure)
                    else:
                        acknowledged.append(number)
                    number += 10

            writing = [asyncio.create_task(write(worker)) for worker in range(4)]
            await eventually(lambda: len(acknowledged) >= WRITES)
        # One of the two has ended by now, in the middle of it.
        before = len(acknowledged)
        await eventually(lambda: len(acknowledged) >= before + WRITES)
        ended.set()
        await asyncio.gather(*writing)
        assert not failures
        found = (await hub.execute(f"SELECT n FROM {table}")).rows
        assert sorted(row[0] for row in found) == sorted(acknowledged)
        await hub.close()
