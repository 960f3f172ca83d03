"""What a backup costs the writers that go on: their latency without one, and during one.

    python -m benchmarks.backup_latency [--megabytes 100] [--writers 8]

Prints the median and the 99th percentile of writes, in milliseconds, before and while backups with
verification run one after the other, and the ratio of the latter.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from messagehub.client import Hub
from tests.support.processes import running_processes

BLOB_BYTES = 256 * 1024
QUIET_SECONDS = 5.0
BACKUPS = 3


async def measure(hub: Hub, writers: int, enough: asyncio.Event) -> list[float]:
    """Latencies in milliseconds, of writes one after the other by each writer."""
    found: list[float] = []

    async def write() -> None:
        while not enough.is_set():
            began = time.perf_counter()
            await hub.execute("INSERT INTO small (v) VALUES (1)")
            found.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(write() for _ in range(writers)))
    return found


async def during(
    hub: Hub, writers: int, work: Callable[[], Awaitable[None]]
) -> tuple[list[float], float]:
    enough = asyncio.Event()
    measuring = asyncio.create_task(measure(hub, writers, enough))
    began = time.perf_counter()
    await work()
    seconds = time.perf_counter() - began
    enough.set()
    return await measuring, seconds


def told(name: str, found: list[float], seconds: float) -> float:
    p99 = statistics.quantiles(found, n=100)[98]
    rate = len(found) / seconds
    print(f"{name:<8} {rate:8.0f}/s  median {statistics.median(found):6.2f}  p99 {p99:6.2f}")
    return p99


async def run(megabytes: int, writers: int) -> None:
    with tempfile.TemporaryDirectory(prefix="messagehub-benchmark-") as directory:
        async with running_processes(Path(directory)) as processes:
            storage = processes.storage()
            hub_process = processes.hub(storage.address)
            await hub_process.ready("storage.character_db")
            async with Hub(hub_process.address, service="character") as hub:
                await hub.execute("CREATE TABLE large (v BLOB)")
                await hub.execute("CREATE TABLE small (v)")
                for _ in range(megabytes * 1024 * 1024 // BLOB_BYTES):
                    await hub.execute("INSERT INTO large VALUES (?)", [os.urandom(BLOB_BYTES)])

                async def back_up() -> None:
                    for _ in range(BACKUPS):
                        await hub.create_backup(["character_db"])

                await during(hub, writers, lambda: asyncio.sleep(1.0))
                before = told(
                    "before", *await during(hub, writers, lambda: asyncio.sleep(QUIET_SECONDS))
                )
                meanwhile = told("during", *await during(hub, writers, back_up))
                print(f"p99 during / before: {meanwhile / before:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--writers", type=int, default=8)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.megabytes, arguments.writers))


if __name__ == "__main__":
    main()
