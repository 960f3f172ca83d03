"""etcd, one node, by its gRPC API from grpc.aio; the program is the system's.

The two requests need three fields of etcd's `rpc.proto`, so they are described here.
"""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from benchmarks.bench_servers import START_SECONDS_MAX, free_address, running
from benchmarks.peers.payload import CALL_SECONDS, KEYS, VALUE, key

FILL_AT_ONCE = 256
BYTES, INTEGER = (
    descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
)
# github.com/etcd-io/etcd, api/etcdserverpb/rpc.proto: message, field, number.
MESSAGES = {
    "PutRequest": (("key", 1, BYTES), ("value", 2, BYTES)),
    "PutResponse": (),
    "RangeRequest": (("key", 1, BYTES),),
    "RangeResponse": (("count", 4, INTEGER),),
}


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="etcd.proto", package="etcdserverpb", syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            message.field.add(
                name=field,
                number=number,
                type=kind,
                label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"etcdserverpb.{name}"))
        for name in MESSAGES
    }


def missing() -> str:
    """Why it cannot run here; empty if it can."""
    return "" if shutil.which("etcd") else "there is no program `etcd` on the path"


@asynccontextmanager
async def server() -> AsyncGenerator[dict[str, Any], None]:
    """Runs one node beside the hub's data, on the same disk, with the keys that are read."""
    client, peer = free_address(), free_address()
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".benchmark-") as directory,
        running(
            *("etcd", "--data-dir", directory, "--name", "one", "--log-level", "error"),
            *("--listen-client-urls", f"http://{client}", "--advertise-client-urls"),
            *(f"http://{client}", "--listen-peer-urls", f"http://{peer}"),
            *("--initial-advertise-peer-urls", f"http://{peer}"),
            *("--initial-cluster", f"one=http://{peer}"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ),
    ):
        target = {"address": client}
        async with drive(target, "insert", 1) as put:
            async with asyncio.timeout(START_SECONDS_MAX):
                await put(0)
            for first in range(0, KEYS, FILL_AT_ONCE):
                numbers = range(first, min(first + FILL_AT_ONCE, KEYS))
                await asyncio.gather(*(put(number) for number in numbers))
        yield target


@asynccontextmanager
async def drive(
    target: dict[str, Any], operation: str, callers: int
) -> AsyncGenerator[Callable[[int], Awaitable[object]], None]:
    """Operations: `insert` (a put) and `read` (a linearizable get)."""
    del callers
    of = _messages()
    async with grpc.aio.insecure_channel(target["address"]) as channel:

        def method(name: str, request: str, response: str) -> Any:
            return channel.unary_unary(
                f"/etcdserverpb.KV/{name}",
                request_serializer=of[request].SerializeToString,
                response_deserializer=of[response].FromString,
            )

        put = method("Put", "PutRequest", "PutResponse")
        get = method("Range", "RangeRequest", "RangeResponse")

        async def insert(number: int) -> None:
            request = of["PutRequest"](key=b"%d" % number, value=VALUE.encode())
            await put(request, timeout=CALL_SECONDS, wait_for_ready=True)

        async def read(number: int) -> None:
            answer = await get(of["RangeRequest"](key=b"%d" % key(number)), timeout=CALL_SECONDS)
            if answer.count != 1:
                raise AssertionError("a key is missing")

        yield {"insert": insert, "read": read}[operation]
