"""The floor: two hops of grpc.aio that carry the hub's bytes and do nothing, each a process.

The proxy takes and gives bytes without looking at them; behind it a server gives the answer that
the hub gave to the same request. The caller encodes and decodes as the hub's callers do.
"""

import asyncio
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from benchmarks.bench_servers import START_SECONDS_MAX, RunningHub, free_address, running
from benchmarks.peers.hub import read_request, write_request
from benchmarks.peers.payload import CALL_SECONDS
from messagehub.v1 import storage_service_pb2 as storage
from messagehub.v1 import storage_service_pb2_grpc

OPERATIONS = {"insert": lambda _: write_request(), "read": read_request}
Context = grpc.aio.ServicerContext[bytes, bytes]
Handler = Callable[[bytes, Context], Awaitable[bytes]]


async def _serve(address: str, handlers: dict[str, Handler]) -> None:
    server = grpc.aio.server()
    methods = {
        name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in handlers.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("floor", methods),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


async def _answers(address: str, directory: str) -> None:
    def give(answer: bytes) -> Handler:
        async def handler(_: bytes, __: Context) -> bytes:
            return answer

        return handler

    await _serve(
        address, {name: give((Path(directory) / name).read_bytes()) for name in OPERATIONS}
    )


async def _proxy(address: str, behind: str) -> None:
    async with grpc.aio.insecure_channel(behind) as channel:

        def forward(name: str) -> Handler:
            call = channel.unary_unary(f"/floor/{name}")

            async def handler(request: bytes, _: Context) -> bytes:
                return await call(request, timeout=CALL_SECONDS, wait_for_ready=True)

            return handler

        await _serve(address, {name: forward(name) for name in OPERATIONS})


@asynccontextmanager
async def server(hub: RunningHub) -> AsyncGenerator[dict[str, Any], None]:
    """Runs the proxy and the server behind it, with answers recorded from a prepared hub."""
    front, behind = free_address(), free_address()
    module = (sys.executable, "-m", "benchmarks.peers.floor")
    with tempfile.TemporaryDirectory() as directory:
        async with grpc.aio.insecure_channel(hub.address) as channel:
            stub = storage_service_pb2_grpc.StorageServiceStub(channel)
            for name, request in OPERATIONS.items():
                answer = await stub.Execute(request(1), timeout=CALL_SECONDS)
                (Path(directory) / name).write_bytes(answer.SerializeToString())
        with (
            running(*module, "answers", behind, directory),
            running(*module, "proxy", front, behind),
        ):
            async with (
                asyncio.timeout(START_SECONDS_MAX),
                drive({"address": front}, "read", 1) as c,
            ):
                await c(1)
            yield {"address": front}


@asynccontextmanager
async def drive(
    target: dict[str, Any], operation: str, callers: int
) -> AsyncGenerator[Callable[[int], Awaitable[object]], None]:
    """Operations: `insert` and `read`, as the generated stub would send them."""
    del callers
    request = OPERATIONS[operation]
    async with grpc.aio.insecure_channel(target["address"]) as channel:
        execute = channel.unary_unary(
            f"/floor/{operation}",
            request_serializer=storage.ExecuteRequest.SerializeToString,
            response_deserializer=storage.ExecuteResponse.FromString,
        )

        async def call(number: int) -> None:
            await execute(request(number), timeout=CALL_SECONDS, wait_for_ready=True)

        yield call


if __name__ == "__main__":
    asyncio.run({"answers": _answers, "proxy": _proxy}[sys.argv[1]](*sys.argv[2:]))
