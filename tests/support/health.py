"""Waiting for a server by its standard health service."""

import asyncio
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

READY_SECONDS_MAX: Final = 20.0
PROBE_INTERVAL_SECONDS: Final = 0.05
SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def check(address: str, name: str = "") -> int | None:
    """Gives the status of a health name; None when the server cannot be reached."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=2)
        except grpc.aio.AioRpcError as failure:
            if failure.code() is grpc.StatusCode.NOT_FOUND:
                return SERVICE_UNKNOWN
            return None
        return answer.status


async def wait_until_serving(
    address: str, name: str = "", *, seconds: float = READY_SECONDS_MAX
) -> None:
    """Returns once the health name is SERVING; raises `TimeoutError` after `seconds`."""
    await wait_for_status(address, name, SERVING, seconds=seconds)


async def wait_for_status(
    address: str, name: str, wanted: int | None, *, seconds: float = READY_SECONDS_MAX
) -> None:
    """Returns once the health name has the wanted status (None = unreachable)."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        status = await check(address, name)
        if status == wanted:
            return
        if loop.time() > end:
            raise TimeoutError(f"{name!r} at {address} is {status}, not {wanted}")
        await asyncio.sleep(PROBE_INTERVAL_SECONDS)
