"""The hub: by generated stubs, and by our client with all callers in one process."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from benchmarks.bench_servers import UNBOUNDED, RunningHub, hub_and_storage
from benchmarks.peers.payload import (
    CALL_SECONDS,
    CREATE_ITEMS,
    CREATE_SAMPLES,
    FILL_ITEMS,
    INSERT,
    KEYS,
    READ,
    SERVICE,
    VALUE,
    key,
)
from messagehub import Hub
from messagehub.client import Operation
from messagehub.request_ids import new_request_id
from messagehub.v1 import statement_pb2, storage_service_pb2_grpc
from messagehub.v1 import storage_service_pb2 as storage

Call = Callable[[int], Awaitable[object]]
BATCH_OPERATIONS = 256
HOME, OTHER = "metrics_db", "catalog_db"


def write_request(database: str = "") -> storage.ExecuteRequest:
    """One insert, with a request id of its own."""
    return storage.ExecuteRequest(
        source_service=SERVICE,
        database=database,
        request_id=new_request_id(),
        statement=statement_pb2.Statement(
            query=INSERT, parameters=[statement_pb2.Value(text=VALUE)]
        ),
    )


def read_request(number: int, database: str = "") -> storage.ExecuteRequest:
    """One row by its key."""
    return storage.ExecuteRequest(
        source_service=SERVICE,
        database=database,
        statement=statement_pb2.Statement(
            query=READ, parameters=[statement_pb2.Value(integer=key(number))]
        ),
    )


def batch_request(operations: int, database: str = "") -> storage.ExecuteBatchRequest:
    """So many inserts, each of them an operation of its own."""
    request = storage.ExecuteBatchRequest(source_service=SERVICE)
    for _ in range(operations):
        one = write_request(database)
        request.operations.add(
            request_id=one.request_id, database=database, statement=one.statement
        )
    return request


def submit_request(database: str) -> storage.SubmitOperationRequest:
    """One insert for later delivery."""
    one = write_request()
    return storage.SubmitOperationRequest(
        source_service=SERVICE,
        database=database,
        request_id=one.request_id,
        statement=one.statement,
    )


async def prepare(running: RunningHub, databases: tuple[str, ...] = (HOME, OTHER)) -> None:
    """Makes the tables, and the rows that are read."""
    async with Hub(running.address, service=SERVICE, timeout=CALL_SECONDS) as hub:
        for database in databases:
            await hub.execute(CREATE_SAMPLES, database=database)
            await hub.execute(CREATE_ITEMS, database=database)
            await hub.execute(FILL_ITEMS, [KEYS], database=database)


@asynccontextmanager
async def drive(target: dict[str, Any], operation: str, callers: int) -> AsyncGenerator[Call, None]:
    """Operations: `stub_` or `client_` and `insert` or `read`; `stub_batch`, `stub_submit`,
    `transaction`.
    """
    del callers
    if operation.startswith("stub"):
        async with grpc.aio.insecure_channel(target["address"], options=UNBOUNDED) as channel:
            yield _by_stub(channel, operation, target.get("databases") or [""])
    else:
        async with Hub(target["address"], service=SERVICE, timeout=CALL_SECONDS) as hub:
            yield _by_client(hub, operation)


def _by_stub(channel: grpc.aio.Channel, operation: str, databases: list[str]) -> Call:
    stub = storage_service_pb2_grpc.StorageServiceStub(channel)

    def one_of(number: int) -> str:
        return databases[number % len(databases)]

    async def insert(number: int) -> None:
        await stub.Execute(write_request(one_of(number)), timeout=CALL_SECONDS)

    async def read(number: int) -> None:
        answer = await stub.Execute(read_request(number, one_of(number)), timeout=CALL_SECONDS)
        if len(answer.result.rows) != 1:
            raise AssertionError("a row is missing")

    async def batch(number: int) -> None:
        request = batch_request(BATCH_OPERATIONS, one_of(number))
        answer = await stub.ExecuteBatch(request, timeout=CALL_SECONDS)
        if any(result.HasField("error") for result in answer.results):
            raise AssertionError("an operation of a batch failed")

    async def submit(number: int) -> None:
        await stub.SubmitOperation(submit_request(one_of(number)), timeout=CALL_SECONDS)

    return {
        "stub_insert": insert,
        "stub_read": read,
        "stub_batch": batch,
        "stub_submit": submit,
    }[operation]


def _by_client(hub: Hub, operation: str) -> Call:
    both = [Operation(INSERT, [VALUE], database=name) for name in (HOME, OTHER)]

    async def insert(_: int) -> None:
        await hub.execute(INSERT, [VALUE])

    async def read(number: int) -> None:
        result = await hub.execute(READ, [key(number)])
        if len(result.rows) != 1:
            raise AssertionError("a row is missing")

    async def transaction(_: int) -> None:
        await hub.execute_transaction(both)

    return {"client_insert": insert, "client_read": read, "transaction": transaction}[operation]


@asynccontextmanager
async def running_hub() -> AsyncGenerator[RunningHub, None]:
    """Runs a hub and a storage server with tables and rows."""
    async with hub_and_storage() as running:
        await prepare(running)
        yield running


def target_of(running: RunningHub) -> dict[str, Any]:
    """What a load needs to know of it."""
    return {"address": running.address}
