"""Events: how long a commit's event takes to a live subscriber, and how fast one catches up.

Beside them a bare grpc.aio server: a unary echo of the write's bytes, and a stream of exactly the
messages that the catching-up subscriber got, without any work. Then many subscribers, of which one
stalls, and thousands that want nothing.
"""

import asyncio
import time
from statistics import median

import grpc

from benchmarks.bench_servers import UNBOUNDED, Payload, bare_server, hub_and_storage
from benchmarks.fan_out import stalled_subscriber
from benchmarks.idle_subscriptions import idle_subscriptions
from benchmarks.paced_writer import write, writes
from benchmarks.table import MEBIBYTE, milliseconds, p, show
from messagehub.v1 import event_service_pb2 as events
from messagehub.v1 import event_service_pb2_grpc, storage_service_pb2_grpc
from messagehub.v1 import storage_service_pb2 as storage

WARM_UP = 100
WRITES = 1000
EVENTS = 50_000
BATCH = 500
ROUNDS = 3
CALL_SECONDS = 60.0


async def live(channel: grpc.aio.Channel) -> tuple[list[float], list[float]]:
    """Seconds from sending a write to its event, and to its answer."""
    stub = storage_service_pb2_grpc.StorageServiceStub(channel)
    stream = event_service_pb2_grpc.EventServiceStub(channel).Subscribe(
        events.SubscribeRequest(source_service="metrics", latest=True)
    )
    await stream.read()
    arrived: dict[int, float] = {}

    async def listen() -> None:
        while len(arrived) < WARM_UP + WRITES:
            message = await stream.read()
            for event in message.events:
                arrived[event.sequence] = time.perf_counter()

    listening = asyncio.create_task(listen())
    sent: dict[int, float] = {}
    answered: dict[int, float] = {}
    for number in range(WARM_UP + WRITES):
        began = time.perf_counter()
        answer = await stub.Execute(write(number), timeout=CALL_SECONDS)
        if number >= WARM_UP:
            sent[answer.sequence] = began
            answered[answer.sequence] = time.perf_counter()
    await listening
    stream.cancel()
    return (
        [arrived[sequence] - sent[sequence] for sequence in sent],
        [answered[sequence] - sent[sequence] for sequence in sent],
    )


async def fill(channel: grpc.aio.Channel) -> None:
    """Leaves `EVENTS` more events in the journal."""
    stub = storage_service_pb2_grpc.StorageServiceStub(channel)
    for _ in range(EVENTS // BATCH):
        await stub.ExecuteBatch(writes(BATCH), timeout=CALL_SECONDS)


async def catch_up(channel: grpc.aio.Channel) -> tuple[float, list[bytes]]:
    """Events a second from the earliest on, and the messages that brought them."""
    subscribe = channel.unary_stream(
        "/messagehub.v1.EventService/Subscribe",
        request_serializer=events.SubscribeRequest.SerializeToString,
    )
    began = time.perf_counter()
    stream = subscribe(events.SubscribeRequest(source_service="metrics", earliest=True))
    messages: list[bytes] = []
    seen = 0
    async for raw in stream:
        messages.append(raw)
        seen += len(events.SubscribeResponse.FromString(raw).events)
        if seen >= EVENTS:
            break
    took = time.perf_counter() - began
    stream.cancel()
    return seen / took, messages


async def bare_stream(address: str, seen: int) -> float:
    """The same messages from a bare server, decoded in the same way: events a second."""
    async with grpc.aio.insecure_channel(address, options=UNBOUNDED) as channel:
        began = time.perf_counter()
        async for raw in channel.unary_stream("/bare/Stream")(b""):
            events.SubscribeResponse.FromString(raw)
        return seen / (time.perf_counter() - began)


async def bare_echo(address: str) -> list[float]:
    """Seconds of a unary echo of the write's bytes."""
    raw = write(1).SerializeToString()
    async with grpc.aio.insecure_channel(address) as channel:
        echo = channel.unary_unary("/bare/Echo")
        seconds = []
        for number in range(WARM_UP + WRITES):
            began = time.perf_counter()
            await echo(raw)
            if number >= WARM_UP:
                seconds.append(time.perf_counter() - began)
    return seconds


async def create_table(address: str) -> None:
    """Makes what is written to."""
    request = storage.ExecuteRequest(source_service="metrics")
    request.statement.query = "CREATE TABLE samples (id INTEGER PRIMARY KEY, value INTEGER)"
    async with grpc.aio.insecure_channel(address) as channel:
        stub = storage_service_pb2_grpc.StorageServiceStub(channel)
        await stub.Execute(request, timeout=CALL_SECONDS)


async def rates(
    channel: grpc.aio.Channel, bare: str, messages: list[bytes]
) -> list[tuple[float, float]]:
    """Events a second of both, in turn."""
    seen = sum(len(events.SubscribeResponse.FromString(m).events) for m in messages)
    return [((await catch_up(channel))[0], await bare_stream(bare, seen)) for _ in range(ROUNDS)]


async def main() -> None:
    """Measures everything and prints the tables."""
    async with hub_and_storage() as hub:
        await create_table(hub.address)
        async with grpc.aio.insecure_channel(hub.address, options=UNBOUNDED) as channel:
            to_event, to_answer = await live(channel)
            await fill(channel)
            _, messages = await catch_up(channel)
            async with bare_server(Payload(messages)) as bare:
                echo = await bare_echo(bare)
                from_memory = await rates(channel, bare, messages)
    # A window that holds next to nothing, so that everything comes from the journal.
    async with hub_and_storage(event_window_bytes_max=100_000) as hub:
        await create_table(hub.address)
        async with grpc.aio.insecure_channel(hub.address, options=UNBOUNDED) as channel:
            await fill(channel)
            _, messages = await catch_up(channel)
            async with bare_server(Payload(messages)) as bare:
                from_journal = await rates(channel, bare, messages)
    floor = median(echo)
    show(
        "A write and its event, one writer, one live subscriber",
        [
            ("what", "p50", "p99", "p50 / bare echo"),
            *(
                (name, milliseconds(p(s, 50)), milliseconds(p(s, 99)), f"{p(s, 50) / floor:.2f}")
                for name, s in (
                    ("bare grpc.aio echo of the same bytes, one hop", echo),
                    ("send to answer (two hops, fsync)", to_answer),
                    ("send to event at the subscriber", to_event),
                )
            ),
        ],
    )
    show(
        f"Catching up on {EVENTS} events, {len(messages)} messages, decoded by the subscriber",
        [
            ("what", "events/s (median)", "of the bare stream"),
            *(
                (
                    f"Subscribe from the earliest, from {where}",
                    f"{median(m for m, _ in both):,.0f}",
                    f"{median(m / b for m, b in both):.2f}",
                )
                for where, both in (("memory", from_memory), ("the journal", from_journal))
            ),
            ("bare grpc.aio stream", f"{median(b for _, b in from_journal):,.0f}", "1"),
        ],
    )
    # A window that is full before the stall, so that only the stall can change the memory.
    async with hub_and_storage(event_window_bytes_max=2 * MEBIBYTE) as hub:
        await create_table(hub.address)
        await stalled_subscriber(hub)
    async with hub_and_storage() as hub:
        await create_table(hub.address)
        await idle_subscriptions(hub)


if __name__ == "__main__":
    asyncio.run(main())
