"""Faults of one storage server's line: what the other databases notice, how soon it is over.

A hub with two storage servers in this process, one of them behind a line that fails on request.
A caller of the sound database and several of the faulty one call without pause, before the fault
and while it lasts. Recovery is from the end of the fault to the first answer of the faulty
database, beside the longest pause between two trials of a circuit (`circuit_open_seconds_max`).
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import grpc

from benchmarks.table import milliseconds, p, show
from tests.fault.proxy_scene import (
    FAULTS,
    FAULTY,
    SOUND,
    Fault,
    Scene,
    running_scene,
    write,
)

BEFORE_SECONDS = 3.0
FAULT_SECONDS = 4.0
ROUNDS = 3
CALL_SECONDS = 5.0
FAULTY_CALL_SECONDS = 0.5
RECOVERY_SECONDS_MAX = 60.0
OPEN_SECONDS_MAX = 1.0
# A refusal comes at once; a caller that calls again at once would measure itself.
PAUSE_SECONDS = 0.01
FAULTY_CALLERS = 4
SETTINGS = {
    "storage_answer_seconds": 0.4,
    "circuit_open_seconds_min": 0.25,
    "circuit_open_seconds_max": OPEN_SECONDS_MAX,
}


@dataclass
class Seen:
    """What the callers of one round saw; times are in seconds."""

    before: list[float] = field(default_factory=list)
    during: list[float] = field(default_factory=list)
    longest: float = 0.0
    failures: int = 0
    refusals: list[float] = field(default_factory=list)
    recovery: float = 0.0


async def timed(call: Callable[[], Awaitable[Any]]) -> float:
    """Seconds of a call that must succeed."""
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


async def call_sound(scene: Scene, seconds: float, seen: Seen, samples: list[float]) -> None:
    """Calls the sound database for a while."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        try:
            samples.append(
                await timed(lambda: scene.stub.Execute(write(0, SOUND), timeout=CALL_SECONDS))
            )
        except grpc.aio.AioRpcError:
            seen.failures += 1


async def call_faulty(scene: Scene, seen: Seen) -> None:
    """Calls the faulty database until it is cancelled, several calls at a time."""
    await asyncio.gather(*(_call_faulty(scene, seen) for _ in range(FAULTY_CALLERS)))


async def _call_faulty(scene: Scene, seen: Seen) -> None:
    while True:
        began = time.perf_counter()
        try:
            await scene.stub.Execute(write(0, FAULTY), timeout=FAULTY_CALL_SECONDS)
        except grpc.aio.AioRpcError:
            seen.refusals.append(time.perf_counter() - began)
            seen.longest = max(seen.longest, seen.refusals[-1])
        await asyncio.sleep(PAUSE_SECONDS)


async def recovered(scene: Scene) -> float:
    """Seconds until the faulty database answers."""
    began = time.perf_counter()
    async with asyncio.timeout(RECOVERY_SECONDS_MAX):
        while True:
            try:
                await scene.stub.Execute(write(0, FAULTY), timeout=FAULTY_CALL_SECONDS)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return time.perf_counter() - began


async def round_of(fault: Fault) -> Seen:
    """One fault of fresh servers, from before to after it."""
    seen = Seen()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".benchmark-") as directory:
        async with running_scene(Path(directory), **SETTINGS) as scene:
            calling = asyncio.create_task(call_faulty(scene, Seen()))
            await call_sound(scene, BEFORE_SECONDS, seen, seen.before)
            calling.cancel()
            await asyncio.wait([calling])
            await fault(scene)
            calling = asyncio.create_task(call_faulty(scene, seen))
            await call_sound(scene, FAULT_SECONDS, seen, seen.during)
            calling.cancel()
            await asyncio.wait([calling])
            await scene.proxy.forward()
            seen.recovery = await recovered(scene)
    return seen


def row(name: str, rounds: list[Seen]) -> tuple[str, ...]:
    """The line of one fault: the median of its rounds."""
    ratio = median(p(one.during, 99) / p(one.before, 99) for one in rounds)
    refusals = [seconds for one in rounds for seconds in one.refusals]
    return (
        name,
        f"{ratio:.2f}",
        str(sum(one.failures for one in rounds)),
        milliseconds(median(refusals)) if refusals else "none",
        f"{max(one.longest for one in rounds) / FAULTY_CALL_SECONDS:.2f}",
        f"{median(one.recovery for one in rounds) / OPEN_SECONDS_MAX:.2f}",
    )


async def main() -> None:
    """Measures every fault and prints a table."""
    lines = [
        (fault.__name__.replace("_", " "), [await round_of(fault) for _ in range(ROUNDS)])
        for fault in FAULTS
    ]
    show(
        f"One storage server behind a faulty line, {ROUNDS} rounds of {FAULT_SECONDS:.0f} s each",
        [
            (
                "fault",
                "p99 of the others, during / before",
                "failed calls of the others",
                "a refusal of the faulty one (median)",
                "longest call / its deadline",
                "recovery / circuit_open_seconds_max",
            ),
            *(row(name, rounds) for name, rounds in lines),
        ],
    )


if __name__ == "__main__":
    asyncio.run(main())
