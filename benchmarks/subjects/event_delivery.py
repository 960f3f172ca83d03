"""From a commit to its subscriber, and catching up from the beginning."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc

from benchmarks.bench_servers import UNBOUNDED
from benchmarks.harness import Contender, Figures, Subject
from benchmarks.peers import nats, postgres
from benchmarks.peers.hub import batch_request, write_request
from benchmarks.peers.payload import CALL_SECONDS, SERVICE
from benchmarks.subjects.scale import Scale
from benchmarks.subjects.systems import Systems
from benchmarks.table import p
from messagehub.v1 import event_service_pb2 as events
from messagehub.v1 import event_service_pb2_grpc, storage_service_pb2_grpc

DATABASE = "campaign_db"
BATCH = 500


async def delivery(address: str, count: int) -> list[float]:
    """Seconds from sending an insert to its event, at a live subscriber."""
    loop = asyncio.get_running_loop()
    seconds = []
    async with grpc.aio.insecure_channel(address, options=UNBOUNDED) as channel:
        stub = storage_service_pb2_grpc.StorageServiceStub(channel)
        stream = event_service_pb2_grpc.EventServiceStub(channel).Subscribe(
            events.SubscribeRequest(source_service=SERVICE, latest=True)
        )
        await stream.read()
        for _ in range(count):
            began = loop.time()
            answer = stub.Execute(write_request(), timeout=CALL_SECONDS)
            while not (await stream.read()).events:
                pass
            seconds.append(loop.time() - began)
            await answer
        stream.cancel()
    return seconds


async def fill(address: str, count: int) -> None:
    """Leaves so many events in a journal that nothing else is in."""
    async with grpc.aio.insecure_channel(address, options=UNBOUNDED) as channel:
        stub = storage_service_pb2_grpc.StorageServiceStub(channel)
        create = write_request(DATABASE)
        create.statement.query = "CREATE TABLE samples (id INTEGER PRIMARY KEY, value TEXT)"
        del create.statement.parameters[:]
        await stub.Execute(create, timeout=CALL_SECONDS)
        for _ in range(count // BATCH):
            await stub.ExecuteBatch(batch_request(BATCH, DATABASE), timeout=CALL_SECONDS)


async def catch_up(address: str, count: int) -> float:
    """Events a second, from the earliest on."""
    loop = asyncio.get_running_loop()
    async with grpc.aio.insecure_channel(address, options=UNBOUNDED) as channel:
        began = loop.time()
        stream = event_service_pb2_grpc.EventServiceStub(channel).Subscribe(
            events.SubscribeRequest(source_service=SERVICE, databases=[DATABASE], earliest=True)
        )
        missing = count
        while missing > 0:
            missing -= len((await stream.read()).events)
        took = loop.time() - began
        stream.cancel()
    return count / took


def _percentiles(measure: Callable[[], Awaitable[list[float]]]) -> Callable[[], Awaitable[Figures]]:
    async def figures() -> Figures:
        seconds = await measure()
        return {"p50_ms": p(seconds, 50) * 1000, "p99_ms": p(seconds, 99) * 1000}

    return figures


def _rate(measure: Callable[[], Awaitable[float]]) -> Callable[[], Awaitable[Figures]]:
    async def figures() -> Figures:
        return {"per_second": await measure()}

    return figures


async def subjects(systems: Systems, scale: Scale) -> list[Subject]:
    """Live delivery and catching up."""
    address, targets = systems.hub.address, systems.targets
    await fill(address, scale.catch_up_events)
    live = [
        Contender(
            "hub: insert to event, generated stub",
            "the event is of the same commit, on disk, in order, resumable; two hops",
            _percentiles(lambda: delivery(address, scale.events)),
        )
    ]
    behind = [
        Contender(
            "hub: Subscribe from the earliest",
            "in order, no gap, decoded",
            _rate(lambda: catch_up(address, scale.catch_up_events)),
        )
    ]
    if "postgres" in targets:
        live.append(
            Contender(
                "PostgreSQL: insert with pg_notify, asyncpg",
                "of the same commit; lost to a listener that is away; one hop",
                _percentiles(lambda: postgres.delivery(targets["postgres"], scale.events)),
            )
        )
    if "nats" in targets:
        await nats.fill(targets["nats"], scale.catch_up_events)
        live.append(
            Contender(
                "NATS JetStream: publish to ordered consumer",
                "on disk, no database is changed with it; one hop",
                _percentiles(lambda: nats.delivery(targets["nats"], scale.events)),
            )
        )
        behind.append(
            Contender(
                "NATS JetStream: ordered consumer from the first",
                "in order, no gap; messages of 100 bytes, without the fields of an event",
                _rate(lambda: nats.catch_up(targets["nats"], scale.catch_up_events)),
            )
        )
    return [
        Subject(
            "event delivery",
            "From sending a change to its event at a live subscriber, one writer",
            "p50_ms",
            live,
        ),
        Subject(
            "catching up",
            f"Catching up on {scale.catch_up_events:,} events, one subscriber",
            "per_second",
            behind,
        ),
    ]
