"""The servers that are measured: a real hub and storage server, and bare grpc.aio ones."""

import asyncio
import contextlib
import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_SECONDS_MAX = 30.0
UNBOUNDED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


def free_address() -> str:
    """An address on the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def wait_until_ready(address: str) -> None:
    """Waits until the server answers SERVING."""
    async with asyncio.timeout(START_SECONDS_MAX), grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                answer = await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            await asyncio.sleep(0.05)


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A process that is measured."""

    pid: int

    def resident_bytes(self) -> int:
        """What the process has in memory now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1])
        return pages * resource.getpagesize()

    def processor_seconds(self) -> float:
        """What the process has used of processors so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class RunningHub(RunningProcess):
    """A hub that is measured, its storage server, and the directory of both."""

    address: str
    storage: RunningProcess
    directory: Path


@contextlib.contextmanager
def running(*command: str, **options: Any) -> Iterator[RunningProcess]:
    """Runs a command until the context ends; kills what does not end by itself."""
    process = subprocess.Popen(command, **options)
    try:
        yield RunningProcess(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(START_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@asynccontextmanager
async def hub_and_storage(
    configuration: str = "", **hub_settings: int | float
) -> AsyncGenerator[RunningHub, None]:
    """Runs a storage server and a hub as processes; gives the hub.

    `configuration` is the text of a messagehub.toml for both.
    """
    settings = {f"MESSAGEHUB_HUB_{name.upper()}": str(v) for name, v in hub_settings.items()}
    storage, hub = free_address(), free_address()
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".benchmark-") as directory,
        contextlib.ExitStack() as processes,
    ):
        file = Path(directory) / "messagehub.toml"
        file.write_text(configuration, "utf-8")
        both = ("--data-dir", directory, "--config", str(file), "--log-level", "error")
        storage_process, hub_process = (
            processes.enter_context(
                running(sys.executable, "-m", *command, *both, env={**os.environ, **settings})
            )
            for command in (
                ("storage", "--listen", storage),
                ("hub", "--listen", hub, "--storage", storage),
            )
        )
        await wait_until_ready(hub)
        yield RunningHub(hub_process.pid, hub, storage_process, Path(directory))


class Payload:
    """A fixed answer in pieces, for a bare server to stream."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces


async def _bare(payload: Payload, address: str) -> None:
    async def stream(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        for piece in payload.pieces:
            await context.write(piece)

    async def echo(request: bytes, _: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return request

    server = grpc.aio.server(options=UNBOUNDED)
    handlers = {
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", handlers),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


@asynccontextmanager
async def bare_server(payload: Payload) -> AsyncGenerator[str, None]:
    """Runs a bare grpc.aio server in a process of its own; gives its address."""
    address = free_address()
    with tempfile.NamedTemporaryFile() as file:
        for piece in payload.pieces:
            file.write(len(piece).to_bytes(4, "big") + piece)
        file.flush()
        with running(sys.executable, "-m", "benchmarks.bench_servers", file.name, address):
            async with asyncio.timeout(START_SECONDS_MAX):
                async with grpc.aio.insecure_channel(address) as channel:
                    await channel.unary_unary("/bare/Echo")(b"", wait_for_ready=True)
            yield address


def _read(path: str) -> Payload:
    content = Path(path).read_bytes()
    pieces = []
    while content:
        size = int.from_bytes(content[:4], "big")
        pieces.append(content[4 : 4 + size])
        content = content[4 + size :]
    return Payload(pieces)


if __name__ == "__main__":
    asyncio.run(_bare(_read(sys.argv[1]), sys.argv[2]))
