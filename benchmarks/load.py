"""The load generator, a process of its own: callers that call again as soon as they are answered.

`python -m benchmarks.load LOAD`, where LOAD is JSON; prints figures as JSON. A caller measures what
it waits for, so the figures include the generator's own work; `load_share` says how much that is.
"""

import asyncio
import importlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.table import p

WARM_UP_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Load:
    """What to send: an operation of a module of `benchmarks.peers`, by so many callers."""

    peer: str
    operation: str
    target: dict[str, Any]
    callers: int
    seconds: float
    # What one call counts for.
    operations_per_call: int = 1


async def generate(load: Load) -> dict[str, float]:
    """Calls a second, percentiles in milliseconds, the generator's share of all processors."""
    peer = importlib.import_module(f"benchmarks.peers.{load.peer}")
    latencies: list[float] = []
    sent = 0
    begin = end = 0.0

    async with peer.drive(load.target, load.operation, load.callers) as call:

        async def caller(number: int) -> None:
            nonlocal sent
            # Every caller has numbers that no other one has.
            while (began := time.perf_counter()) < end:
                await call(number)
                sent += 1
                number += load.callers
                if began >= begin:
                    latencies.append(time.perf_counter() - began)

        begin = time.perf_counter() + load.seconds * WARM_UP_SHARE
        end = begin + load.seconds
        tasks = [asyncio.create_task(caller(number)) for number in range(load.callers)]
        await asyncio.sleep(begin - time.perf_counter())
        used, measured_from = time.process_time(), time.perf_counter()
        await asyncio.gather(*tasks)
        took = time.perf_counter() - measured_from
        share = (time.process_time() - used) / (took * (os.cpu_count() or 1))
    return {
        "per_second": len(latencies) * load.operations_per_call / took,
        "p50_ms": p(latencies, 50) * 1000,
        "p99_ms": p(latencies, 99) * 1000,
        "calls": len(latencies),
        "calls_with_warm_up": sent,
        "load_share": share,
    }


async def send(load: Load) -> dict[str, float]:
    """Runs a load in a process of its own; gives its figures."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.load", json.dumps(asdict(load))),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load {load.operation} of {load.peer} failed")
    figures: dict[str, float] = json.loads(output)
    return figures


if __name__ == "__main__":
    print(json.dumps(asyncio.run(generate(Load(**json.loads(sys.argv[1]))))))
