"""What an operation costs when there is much of everything: databases, journal, streams, inbox.

Each part has hubs of its own, side by side, measured in turn. The processor time is that of the hub
and its storage server together.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from benchmarks.bench_servers import UNBOUNDED, RunningHub, hub_and_storage
from benchmarks.harness import Contender, Figures, Subject
from benchmarks.idle_subscriptions import a_pattern_each, subscribed
from benchmarks.load import Load, send
from benchmarks.peers.hub import HOME, batch_request, submit_request, write_request
from benchmarks.peers.payload import CALL_SECONDS, CREATE_SAMPLES, SERVICE
from benchmarks.subjects.scale import Scale
from messagehub.v1 import hub_service_pb2 as hub_messages
from messagehub.v1 import hub_service_pb2_grpc, storage_service_pb2_grpc

AT_ONCE = 32
FILL_BATCH = 1_000
KIBIBYTE = 1024
QUEUED: Final = "catalog_db"
# What the settings have above the sizes of a run.
ROOM = 100_000
SETTLE_SECONDS = 1.0
INSERT = "one caller, durable insert by generated stub, on disk"
SUBMIT = "one caller, SubmitOperation by generated stub, on disk"
MEMORY = "resident memory of hub and storage server, after less before, by how many there are"


def configuration(databases: Iterable[str], scale: Scale) -> str:
    """Settings with so many databases and room for everything."""
    names = [HOME, QUEUED, *databases]
    services = [f'{name.removesuffix("_db")} = "{name}"' for name in names]
    return "\n".join(
        [
            "[hub]",
            f"inbox_operations_max = {scale.queued_operations + ROOM}",
            "[hub.services]",
            *services,
            "[storage]",
            # Above half of it, those that are unused for longest are closed.
            f"databases_open_max = {2 * len(names) + 2}",
            "idle_close_seconds = 3600.0",
            "",
        ]
    )


async def together(number: int, one: Callable[[int], Awaitable[object]]) -> None:
    """Makes so many calls, several at once."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def call(index: int) -> None:
        async with turns:
            await one(index)

    for first in range(0, number, FILL_BATCH):
        indexes = range(first, min(first + FILL_BATCH, number))
        await asyncio.gather(*(call(index) for index in indexes))


async def create(hub: RunningHub, databases: list[str]) -> None:
    """Makes a table in each database."""
    async with grpc.aio.insecure_channel(hub.address) as channel:
        stub = storage_service_pb2_grpc.StorageServiceStub(channel)

        async def one(index: int) -> None:
            request = write_request(databases[index])
            request.statement.query = CREATE_SAMPLES
            del request.statement.parameters[:]
            await stub.Execute(request, timeout=CALL_SECONDS)

        await together(len(databases), one)


async def lengthen(hub: RunningHub, database: str, rows: int) -> None:
    """Writes so often that the database's journal has so many rows."""
    async with grpc.aio.insecure_channel(hub.address, options=UNBOUNDED) as channel:
        stub = storage_service_pb2_grpc.StorageServiceStub(channel)
        for _ in range(rows // FILL_BATCH):
            await stub.ExecuteBatch(batch_request(FILL_BATCH, database), timeout=CALL_SECONDS)


async def queue(hub: RunningHub, operations: int) -> None:
    """Leaves so many operations in the inbox, for a database whose circuit is open."""
    async with grpc.aio.insecure_channel(hub.address) as channel:
        await hub_service_pb2_grpc.HubServiceStub(channel).OpenCircuit(
            hub_messages.OpenCircuitRequest(source_service=SERVICE, database=QUEUED),
            timeout=CALL_SECONDS,
        )
        stub = storage_service_pb2_grpc.StorageServiceStub(channel)
        await together(
            operations,
            lambda _: stub.SubmitOperation(submit_request(QUEUED), timeout=CALL_SECONDS),
        )


def resident(hub: RunningHub) -> int:
    """Bytes of both processes."""
    return hub.resident_bytes() + hub.storage.resident_bytes()


def on_disk(hub: RunningHub) -> int:
    """Bytes of all files of both."""
    files = (file for file in Path(hub.directory).rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files)


def costs(
    hub: RunningHub, databases: list[str], scale: Scale, operation: str = "stub_insert"
) -> Callable[[], Awaitable[Figures]]:
    """Latency of one caller, and the processor time of an operation in both processes."""
    target: dict[str, Any] = {"address": hub.address, "databases": databases}

    def used() -> float:
        return hub.processor_seconds() + hub.storage.processor_seconds()

    async def measure() -> Figures:
        before = used()
        figures = await send(Load("hub", operation, target, 1, scale.seconds))
        spent = (used() - before) / figures["calls_with_warm_up"]
        return {**figures, "processor_us": spent * 1e6}

    return measure


def number(name: str, figures: Figures) -> Contender:
    """A figure that was taken once."""

    async def given() -> Figures:
        return figures

    return Contender(name, MEMORY, given)


def memory_of(what: list[tuple[str, Figures]]) -> Subject:
    """What each thing takes."""
    return Subject(
        f"memory, {what[0][0]}",
        f"What is taken by each {what[0][0]}",
        "memory_kib",
        [number(name, figures) for name, figures in what],
    )


@asynccontextmanager
async def by_databases(scale: Scale) -> AsyncGenerator[list[Subject], None]:
    """Hubs with few and with many open databases; calls go to all of them in turn."""
    async with AsyncExitStack() as stack:
        contenders, sizes = [], []
        for count in scale.databases:
            databases = [f"bulk{index}_db" for index in range(count)]
            hub = await stack.enter_async_context(hub_and_storage(configuration(databases, scale)))
            await create(hub, databases)
            sizes.append(resident(hub))
            contenders.append(
                Contender(
                    f"{count:,} open",
                    INSERT,
                    costs(hub, databases, scale),
                    curve="databases",
                    x=count,
                )
            )
        # The hub has its databases opened when it starts, so one hub is compared with another.
        more = scale.databases[-1] - scale.databases[0]
        taken = (sizes[-1] - sizes[0]) / more / KIBIBYTE
        yield [
            Subject(
                "growth, databases",
                "The cost of an insert by the number of open databases, all of them used in turn",
                "p50_ms",
                contenders,
            ),
            memory_of([("open database", {"memory_kib": taken})]),
        ]


@asynccontextmanager
async def by_journal(scale: Scale) -> AsyncGenerator[list[Subject], None]:
    """One hub whose databases have short and long journals."""
    names = {rows: f"journal{rows}_db" for rows in scale.journal_rows}
    async with hub_and_storage(configuration(names.values(), scale)) as hub:
        await create(hub, list(names.values()))
        for rows, name in names.items():
            await lengthen(hub, name, rows)
        yield [
            Subject(
                "growth, journal",
                "The cost of an insert by the rows of the database's journal",
                "p50_ms",
                [
                    Contender(
                        f"{rows:,} rows",
                        INSERT,
                        costs(hub, [name], scale),
                        curve="journal rows",
                        x=rows,
                    )
                    for rows, name in names.items()
                ],
            )
        ]


@asynccontextmanager
async def by_subscriptions(scale: Scale) -> AsyncGenerator[list[Subject], None]:
    """A hub that nobody listens to, and one with subscribers that want nothing of what happens."""
    async with (
        hub_and_storage(configuration([], scale)) as alone,
        hub_and_storage(configuration([], scale)) as listened,
    ):
        for hub in (alone, listened):
            await create(hub, [HOME])
        count, before = scale.idle_subscriptions, resident(listened)
        async with subscribed(listened, count, a_pattern_each):
            await asyncio.sleep(SETTLE_SECONDS)
            taken = (resident(listened) - before) / count / KIBIBYTE
            yield [
                Subject(
                    "growth, subscriptions",
                    "The cost of an insert by the number of idle subscriptions, a filter each",
                    "p50_ms",
                    [
                        Contender("none", INSERT, costs(alone, [HOME], scale)),
                        Contender(f"{count:,}", INSERT, costs(listened, [HOME], scale)),
                    ],
                ),
                memory_of([("idle subscription", {"memory_kib": taken})]),
            ]


@asynccontextmanager
async def by_inbox(scale: Scale) -> AsyncGenerator[list[Subject], None]:
    """A hub with an empty inbox and one where much waits for a database that is away."""
    async with (
        hub_and_storage(configuration([], scale)) as empty,
        hub_and_storage(configuration([], scale)) as full,
    ):
        for hub in (empty, full):
            await create(hub, [HOME, QUEUED])
        count, memory, disk = scale.queued_operations, resident(full), on_disk(full)
        await queue(empty, 0)
        await queue(full, count)
        taken = {
            "memory_kib": (resident(full) - memory) / count / KIBIBYTE,
            "disk_kib": (on_disk(full) - disk) / count / KIBIBYTE,
        }
        yield [
            *(
                Subject(
                    f"growth, inbox, {what}",
                    f"The cost of {what} by how many operations wait in the inbox",
                    "p50_ms",
                    [
                        Contender("none", promise, costs(empty, [name], scale, operation)),
                        Contender(f"{count:,}", promise, costs(full, [name], scale, operation)),
                    ],
                )
                for what, promise, name, operation in (
                    ("an insert into another database", INSERT, HOME, "stub_insert"),
                    ("submitting one more", SUBMIT, QUEUED, "stub_submit"),
                )
            ),
            memory_of([("queued operation", taken)]),
        ]


PARTS = (by_databases, by_journal, by_subscriptions, by_inbox)
