"""Neither process grows with what passes through it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from messagehub.v1 import storage_service_pb2_grpc
from tests.support.calls import CALL_SECONDS, execute_request, query_request, rows, run_async
from tests.support.memory import needs_proc, peak_resident_bytes, resident_bytes
from tests.support.processes import ServerProcess, running_processes
from tests.support.refusals import refused

pytestmark = needs_proc

MEBIBYTE = 1024 * 1024
# Far below what passes, above what allocators keep for themselves.
GROWTH_BYTES_MAX = 32 * MEBIBYTE
SAMPLE_EVERY_PAGES = 20
COUNTING = (
    "WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted LIMIT ?) "
    "SELECT n, ? FROM counted"
)
FILLING = "x" * 100


class Pair:
    """A hub and a storage server in processes of their own, and a stub."""

    def __init__(self, stub: Any, *processes: ServerProcess) -> None:
        self.stub = stub
        self.processes = processes

    def resident(self) -> list[int]:
        return [resident_bytes(process.pid) for process in self.processes]

    def peaks(self) -> list[int]:
        return [peak_resident_bytes(process.pid) for process in self.processes]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with running_processes(tmp_path_factory.mktemp("memory")) as processes:
        storage = processes.storage()
        hub = processes.hub(storage.address)
        await hub.ready()
        async with grpc.aio.insecure_channel(hub.address) as channel:
            stub = storage_service_pb2_grpc.StorageServiceStub(channel)
            yield Pair(stub, hub, storage)


def growth(before: list[int], samples: list[list[int]]) -> int:
    """The most that any of the processes grew."""
    return max(now - then for sample in samples for then, now in zip(before, sample, strict=True))


async def count_rows(pair: Pair, count: int) -> list[list[int]]:
    """Streams so many rows and gives the memory of the processes along the way."""
    call = pair.stub.Query(query_request(COUNTING, count, FILLING), timeout=100)
    seen, samples, pages = 0, [], 0
    async for page in call:
        seen += len(page.result.rows)
        pages += 1
        if pages % SAMPLE_EVERY_PAGES == 0:
            samples.append(pair.resident())
    assert seen == count
    return samples


async def test_a_million_rows_pass_in_constant_memory(pair: Pair) -> None:
    await count_rows(pair, 50_000)
    before = pair.resident()
    samples = await count_rows(pair, 1_000_000)
    assert len(samples) > 10
    assert growth(before, samples) < GROWTH_BYTES_MAX


async def test_a_caller_that_does_not_read_fills_nobodys_memory(pair: Pair) -> None:
    await count_rows(pair, 50_000)
    before = pair.resident()
    # Without backpressure a second is enough for many times the limit.
    call = pair.stub.Query(query_request(COUNTING, 10_000_000, FILLING * 100), timeout=100)
    await call.read()
    samples = []
    for _ in range(10):
        await asyncio.sleep(0.1)
        samples.append(pair.resident())
    call.cancel()
    assert growth(before, samples) < GROWTH_BYTES_MAX


async def test_a_result_that_is_too_large_is_not_held_in_memory(pair: Pair) -> None:
    before = pair.peaks()
    # 400 MB, of which an answer may hold 15.
    with refused("RESOURCE_EXHAUSTED", "RESULT_TOO_LARGE"):
        request = execute_request(COUNTING, 40, b"x" * (10 * MEBIBYTE))
        await pair.stub.Execute(request, timeout=CALL_SECONDS)
    assert growth(before, [pair.peaks()]) < 4 * GROWTH_BYTES_MAX
    assert rows(await run_async(pair.stub, "SELECT 1")) == [(1,)]
