"""Writes at a steady rate, in a process of its own: ADDRESS EVENTS_A_SECOND SECONDS."""

import asyncio
import sys
import uuid

import grpc

from messagehub.v1 import statement_pb2, storage_service_pb2_grpc
from messagehub.v1 import storage_service_pb2 as storage

TICKS_A_SECOND = 100
CALL_SECONDS = 60.0
CALLS_AT_ONCE_MAX = 64


def write(number: int) -> storage.ExecuteRequest:
    """One insert with a request id of its own."""
    return storage.ExecuteRequest(
        source_service="metrics",
        request_id=str(uuid.uuid4()),
        statement=statement_pb2.Statement(
            query="INSERT INTO samples (value) VALUES (?)",
            parameters=[statement_pb2.Value(integer=number)],
        ),
    )


def writes(count: int) -> storage.ExecuteBatchRequest:
    """So many inserts in one request."""
    request = storage.ExecuteBatchRequest(source_service="metrics")
    for number in range(count):
        one = write(number)
        request.operations.add(request_id=one.request_id, statement=one.statement)
    return request


async def pace(address: str, rate: int, seconds: float) -> None:
    """Sends a hundredth of the rate a hundred times a second, whether or not it is answered.

    Whoever measures must not be slowed down by what it measures, up to a bound.
    """
    loop = asyncio.get_running_loop()
    slots = asyncio.Semaphore(CALLS_AT_ONCE_MAX)
    async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as calls:
        stub = storage_service_pb2_grpc.StorageServiceStub(channel)

        async def call() -> None:
            async with slots:
                await stub.ExecuteBatch(writes(rate // TICKS_A_SECOND), timeout=CALL_SECONDS)

        began = loop.time()
        for tick in range(round(seconds * TICKS_A_SECOND)):
            await asyncio.sleep(began + tick / TICKS_A_SECOND - loop.time())
            calls.create_task(call())


if __name__ == "__main__":
    asyncio.run(pace(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
