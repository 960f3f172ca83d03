"""What the tests of limits share: one below, at it, one above."""

import asyncio

import grpc
import pytest

from messagehub.errors import HubError
from messagehub.status import from_rpc_error
from messagehub.storage.v1 import storage_service_pb2 as wire
from tests.conformance.storage_client import StorageClient, asking, failure_of, reasons
from tests.support.calls import Python, rows

OVER = pytest.mark.parametrize("over", [-1, 0, 1])

GUARD_SECONDS = 30.0


async def one(client: StorageClient, query: str, *parameters: Python) -> wire.Outcome:
    async with asyncio.timeout(GUARD_SECONDS):
        (outcome,) = await client.run(asking(query, *parameters))
    return outcome


async def works(client: StorageClient) -> None:
    """The server goes on after a refusal."""
    assert rows((await one(client, "SELECT 1")).result) == [(1,)]


async def check(
    client: StorageClient, outcome: wire.Outcome, over: int, reason: str, **metadata: str
) -> None:
    """Above the limit the operation is refused, and the limit is told."""
    if over > 0:
        error = failure_of(outcome)
        assert error.reason == reason
        assert metadata.items() <= error.metadata.items()
        assert error.code in ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")
    else:
        assert reasons([outcome]) == [""]
    await works(client)


async def refused(call: "grpc.aio.UnaryStreamCall[object, object]") -> HubError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return from_rpc_error(caught.value)
