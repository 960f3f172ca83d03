"""A stream without events still says, now and then, that it lives and where it stands."""

import uuid
from typing import Any

import grpc
import pytest

from messagehub.v1.event_service_pb2 import SubscribeRequest
from tests.support.calls import SERVICE, run_async


@pytest.fixture(scope="module")
def hub_settings() -> dict[str, Any]:
    return {"heartbeat_seconds": 0.1}


@pytest.fixture(scope="module")
def storage_settings() -> dict[str, Any]:
    return {"tail_heartbeat_seconds": 0.05}


async def test_a_silent_stream_brings_its_cursor(event_stub: Any) -> None:
    call = event_stub.Subscribe(SubscribeRequest(source_service=SERVICE), timeout=20)
    cursors = set()
    for _ in range(4):
        message = await call.read()
        assert message is not grpc.aio.EOF
        assert not message.events
        cursors.add(message.cursor)
    assert len(cursors) == 1
    call.cancel()


async def test_the_cursor_of_a_heartbeat_loses_nothing(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    call = event_stub.Subscribe(SubscribeRequest(source_service=SERVICE), timeout=20)
    await call.read()
    heartbeat = await call.read()
    call.cancel()
    request_id = str(uuid.uuid4())
    await run_async(storage_stub, f"CREATE TABLE {table} (n)", request_id=request_id)
    request = SubscribeRequest(source_service=SERVICE, cursor=heartbeat.cursor)
    call = event_stub.Subscribe(request, timeout=20)
    events: list[Any] = []
    while not events:
        events += (await call.read()).events
    assert [event.operation_completed.request_id for event in events] == [request_id]
    call.cancel()
