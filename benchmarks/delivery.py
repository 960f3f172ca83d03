"""Later delivery: how fast what waits for a database is delivered, by the size of a batch.

The circuit is opened, operations are submitted, the circuit is closed; from there to the event of
the last one. Beside it the same inserts sent at once with `ExecuteBatch`, which promises no order,
and one by one with `Execute`.
"""

import asyncio
import time
import uuid
from statistics import median

import grpc

from benchmarks.bench_servers import hub_and_storage
from benchmarks.table import show
from messagehub.v1 import (
    event_service_pb2,
    event_service_pb2_grpc,
    hub_service_pb2,
    hub_service_pb2_grpc,
    statement_pb2,
    storage_service_pb2_grpc,
)
from messagehub.v1 import storage_service_pb2 as storage

OPERATIONS = 2000
ONE_BY_ONE = 500
BATCHES = (1, 8, 32, 128)
BATCH = 500
AT_ONCE = 64
ROUNDS = 3
CALL_SECONDS = 60.0
SERVICE, DATABASE = "metrics", "metrics_db"


def insert(number: int) -> statement_pb2.Statement:
    """One insert."""
    return statement_pb2.Statement(
        query="INSERT INTO samples (value) VALUES (?)",
        parameters=[statement_pb2.Value(integer=number)],
    )


async def submit_all(channel: grpc.aio.Channel) -> None:
    """Submits everything, many at a time."""
    stub = storage_service_pb2_grpc.StorageServiceStub(channel)
    turns = asyncio.Semaphore(AT_ONCE)

    async def submit(number: int) -> None:
        async with turns:
            await stub.SubmitOperation(
                storage.SubmitOperationRequest(
                    source_service=SERVICE,
                    request_id=str(uuid.uuid4()),
                    statement=insert(number),
                ),
                timeout=CALL_SECONDS,
            )

    await asyncio.gather(*(submit(number) for number in range(OPERATIONS)))


async def deliver(channel: grpc.aio.Channel) -> float:
    """Operations a second, from the moment that the circuit is closed."""
    hub = hub_service_pb2_grpc.HubServiceStub(channel)
    await hub.OpenCircuit(
        hub_service_pb2.OpenCircuitRequest(source_service=SERVICE, database=DATABASE)
    )
    await submit_all(channel)
    began = time.perf_counter()
    await hub.CloseCircuit(
        hub_service_pb2.CloseCircuitRequest(source_service=SERVICE, database=DATABASE)
    )
    stream = event_service_pb2_grpc.EventServiceStub(channel).Subscribe(
        event_service_pb2.SubscribeRequest(
            source_service=SERVICE, earliest=True, event_types=["storage.operation_completed"]
        )
    )
    # The table's own event comes first.
    missing = OPERATIONS + 1
    while missing:
        missing -= len((await stream.read()).events)
    seconds = time.perf_counter() - began
    stream.cancel()
    return OPERATIONS / seconds


async def at_once(channel: grpc.aio.Channel) -> float:
    """Inserts a second with `ExecuteBatch`."""
    stub = storage_service_pb2_grpc.StorageServiceStub(channel)
    began = time.perf_counter()
    for _ in range(OPERATIONS // BATCH):
        request = storage.ExecuteBatchRequest(source_service=SERVICE)
        for number in range(BATCH):
            request.operations.add(request_id=str(uuid.uuid4()), statement=insert(number))
        await stub.ExecuteBatch(request, timeout=CALL_SECONDS)
    return OPERATIONS / (time.perf_counter() - began)


async def one_by_one(channel: grpc.aio.Channel) -> float:
    """Inserts a second with `Execute`, each after the answer to the one before it."""
    stub = storage_service_pb2_grpc.StorageServiceStub(channel)
    began = time.perf_counter()
    for number in range(ONE_BY_ONE):
        request = storage.ExecuteRequest(source_service=SERVICE, statement=insert(number))
        await stub.Execute(request, timeout=CALL_SECONDS)
    return ONE_BY_ONE / (time.perf_counter() - began)


async def create(channel: grpc.aio.Channel) -> None:
    """Makes the table."""
    request = storage.ExecuteRequest(source_service=SERVICE)
    request.statement.query = "CREATE TABLE samples (id INTEGER PRIMARY KEY, value INTEGER)"
    await storage_service_pb2_grpc.StorageServiceStub(channel).Execute(
        request, timeout=CALL_SECONDS
    )


async def main() -> None:
    """Measures everything and prints a table."""
    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for size in BATCHES:
            async with (
                hub_and_storage(delivery_batch_operations_max=size) as hub,
                grpc.aio.insecure_channel(hub.address) as channel,
            ):
                await create(channel)
                rates.setdefault(f"delivered in batches of {size}", []).append(
                    await deliver(channel)
                )
        async with hub_and_storage() as hub, grpc.aio.insecure_channel(hub.address) as channel:
            await create(channel)
            rates.setdefault("Execute, one after the other", []).append(await one_by_one(channel))
            rates.setdefault(f"ExecuteBatch of {BATCH}, no order", []).append(
                await at_once(channel)
            )
    base = median(rates[f"delivered in batches of {BATCHES[0]}"])
    show(
        f"{OPERATIONS} operations of one service and database, {ROUNDS} rounds",
        [
            ("what", "operations/s (median)", "of one at a time"),
            *((n, f"{median(r):,.0f}", f"{median(r) / base:.2f}") for n, r in rates.items()),
        ],
    )


if __name__ == "__main__":
    asyncio.run(main())
