"""Thousands of subscriptions that want nothing of what happens: memory, and what an event costs."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from statistics import median

import grpc

from benchmarks.bench_servers import RunningHub
from benchmarks.paced_writer import CALL_SECONDS, writes
from benchmarks.table import milliseconds, show
from messagehub.v1 import event_service_pb2 as events
from messagehub.v1 import storage_service_pb2_grpc

SUBSCRIPTIONS = 4_000
PER_CONNECTION = 80
# gRPC itself cancels some of the calls when thousands begin in one moment.
AT_ONCE = 200
SETTLE_SECONDS = 3.0
COMMITS = 300
EVENTS_PER_COMMIT = 10
QUIET_SECONDS = 5.0

Filter = Callable[[int], events.SubscribeRequest]


def one_for_all(_: int) -> events.SubscribeRequest:
    """Everybody waits for the same that never comes."""
    return events.SubscribeRequest(source_service="metrics", event_types=["never.*"])


def a_pattern_each(number: int) -> events.SubscribeRequest:
    """Everybody waits for something else, and each event must be compared with all."""
    return events.SubscribeRequest(source_service="metrics", event_types=[f"never.{number}.*"])


def an_answer_each(_: int) -> events.SubscribeRequest:
    """Everybody waits for the answer to a question of its own."""
    return events.SubscribeRequest(source_service="metrics", correlation_id=uuid.uuid4().hex)


async def _listen(stream: grpc.aio.UnaryStreamCall[bytes, bytes]) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


@asynccontextmanager
async def subscribed(hub: RunningHub, count: int, of: Filter) -> AsyncGenerator[None, None]:
    """So many streams, each of which has had its first message."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [
        grpc.aio.insecure_channel(hub.address, options=options)
        for _ in range(-(-count // PER_CONNECTION))
    ]
    streams = []
    listeners: list[asyncio.Task[None]] = []
    try:
        for number in range(count):
            subscribe = channels[number // PER_CONNECTION].unary_stream(
                "/messagehub.v1.EventService/Subscribe"
            )
            streams.append(subscribe(of(number).SerializeToString()))
            if len(streams) % AT_ONCE == 0:
                for stream in streams[-AT_ONCE:]:
                    await stream.read()
        listeners = [asyncio.create_task(_listen(stream)) for stream in streams]
        yield
    finally:
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
        for stream in streams:
            stream.cancel()
        for channel in channels:
            await channel.close()


async def cost(hub: RunningHub) -> tuple[float, float]:
    """Processor seconds of the hub for an event, and the median seconds from write to event."""
    loop = asyncio.get_running_loop()
    used, began = hub.processor_seconds(), loop.time()
    await asyncio.sleep(QUIET_SECONDS)
    quiet = (hub.processor_seconds() - used) / (loop.time() - began)
    seconds = []
    async with grpc.aio.insecure_channel(hub.address) as channel:
        stub = storage_service_pb2_grpc.StorageServiceStub(channel)
        live = channel.unary_stream("/messagehub.v1.EventService/Subscribe")(
            events.SubscribeRequest(source_service="metrics").SerializeToString()
        )
        await live.read()
        used, began = hub.processor_seconds(), loop.time()
        for _ in range(COMMITS):
            sent = loop.time()
            answer = stub.ExecuteBatch(writes(EVENTS_PER_COMMIT), timeout=CALL_SECONDS)
            seen = 0
            while seen < EVENTS_PER_COMMIT:
                message = events.SubscribeResponse.FromString(await live.read())
                seen += len(message.events)
            seconds.append(loop.time() - sent)
            await answer
        took = loop.time() - began
        busy = hub.processor_seconds() - used - quiet * took
        live.cancel()
    return busy / (COMMITS * EVENTS_PER_COMMIT), median(seconds)


async def idle_subscriptions(hub: RunningHub) -> None:
    """Measures and prints a table."""
    await cost(hub)
    alone, floor = await cost(hub)
    rows = [("none", "", f"{alone * 1e6:.0f} µs", "1", milliseconds(floor), "1")]
    for name, of in (
        ("one filter for all", one_for_all),
        ("a correlation id each", an_answer_each),
        ("a type pattern each", a_pattern_each),
    ):
        before = hub.resident_bytes()
        async with subscribed(hub, SUBSCRIPTIONS, of):
            await asyncio.sleep(SETTLE_SECONDS)
            grown = hub.resident_bytes() - before
            seconds, delay = await cost(hub)
        memory = f"{grown / SUBSCRIPTIONS / 1024:.1f} KiB" if len(rows) == 1 else ""
        rows.append(
            (
                name,
                memory,
                *(f"{seconds * 1e6:.0f} µs", f"{seconds / alone:.2f}"),
                *(milliseconds(delay), f"{delay / floor:.2f}"),
            )
        )
        await asyncio.sleep(SETTLE_SECONDS)
    show(
        f"{SUBSCRIPTIONS} subscriptions that want nothing, and one that wants everything, "
        f"{EVENTS_PER_COMMIT} events a commit",
        [
            (
                *("the idle ones", "memory of each", "hub CPU for an event", "/ none"),
                *("write to event, p50", "/ none"),
            ),
            *rows,
        ],
    )
