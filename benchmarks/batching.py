"""Many callers in one process: what it gives that their statements share calls to the hub.

The same callers with sharing and without, in turns, each a loop of statements through the client:
inserts, and reads of one row by its key. Then the same reads beside a few slow ones, which must not
hold them up.
"""

import argparse
import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from statistics import median

from benchmarks.bench_servers import hub_and_storage
from benchmarks.table import milliseconds, p, show
from messagehub import Hub
from messagehub.client import BatchingLimits

CALLERS = 256
SECONDS = 4.0
WARM_UP_SECONDS = 1.0
ROUNDS = 3
ROWS = 1000
SLOW_READERS = 2
SLOW = (
    "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 400000) "
    "SELECT max(n) FROM c"
)

Statement = Callable[[Hub, int], Awaitable[object]]


async def insert(hub: Hub, number: int) -> object:
    return await hub.execute("INSERT INTO measured (name) VALUES (?)", [f"name {number}"])


async def read(hub: Hub, number: int) -> object:
    return await hub.execute("SELECT name FROM rows WHERE id = ?", [number % ROWS + 1])


async def load(hub: Hub, statement: Statement, callers: int, seconds: float) -> list[float]:
    """Lets the callers run for a while; gives the seconds of each statement."""
    numbers = itertools.count()
    until = time.perf_counter() + seconds
    took: list[float] = []

    async def call() -> None:
        while (began := time.perf_counter()) < until:
            await statement(hub, next(numbers))
            took.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as running:
        for _ in range(callers):
            running.create_task(call())
    return took


async def beside_slow_ones(hub: Hub, seconds: float) -> list[float]:
    """Reads while others read for a long time, through the same client."""
    slow = [asyncio.create_task(forever(hub)) for _ in range(SLOW_READERS)]
    try:
        return await load(hub, read, CALLERS, seconds)
    finally:
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)


async def forever(hub: Hub) -> None:
    while True:
        await hub.execute(SLOW)


async def measure(address: str, limits: dict[str, BatchingLimits | None]) -> None:
    cases: dict[str, Callable[[Hub, float], Awaitable[list[float]]]] = {
        f"{CALLERS} callers, inserts": lambda hub, s: load(hub, insert, CALLERS, s),
        f"{CALLERS} callers, point reads": lambda hub, s: load(hub, read, CALLERS, s),
        f"the same beside {SLOW_READERS} slow reads": beside_slow_ones,
        "1 caller, inserts": lambda hub, s: load(hub, insert, 1, s),
        "1 caller, point reads": lambda hub, s: load(hub, read, 1, s),
        "3 callers, inserts": lambda hub, s: load(hub, insert, 3, s),
    }
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for _, (case, run), (name, bounds) in itertools.product(
        range(ROUNDS), cases.items(), limits.items()
    ):
        async with Hub(address, service="metrics", batching=bounds) as hub:
            await run(hub, WARM_UP_SECONDS)
            took = await run(hub, SECONDS)
        found.setdefault((case, name), []).append((len(took) / SECONDS, p(took, 50), p(took, 99)))
    rows = [["", "calls", "statements/s", "p50", "p99", "ratio"]]
    for case in cases:
        alone = median(rate for rate, _, _ in found[case, "alone"])
        for name in limits:
            rate, half, most = (median(column) for column in zip(*found[case, name], strict=True))
            ratio = f"{rate / alone:.2f}"
            rows.append([case, name, f"{rate:,.0f}", milliseconds(half), milliseconds(most), ratio])
    show("Sharing calls to the hub", rows)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--in-flight", type=int, nargs="*", help="calls in flight to compare; default the client's"
    )
    chosen = parser.parse_args().in_flight or [BatchingLimits().calls_in_flight_max]
    limits: dict[str, BatchingLimits | None] = {"alone": None}
    for number in chosen:
        limits[f"shared, {number} in flight"] = BatchingLimits(calls_in_flight_max=number)
    async with hub_and_storage() as server, Hub(server.address, service="metrics") as hub:
        await hub.execute("CREATE TABLE measured (id INTEGER PRIMARY KEY, name TEXT)")
        await hub.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, name TEXT)")
        await asyncio.gather(
            *(hub.execute("INSERT INTO rows (name) VALUES (?)", [str(n)]) for n in range(ROWS))
        )
        await measure(server.address, limits)


if __name__ == "__main__":
    asyncio.run(main())
