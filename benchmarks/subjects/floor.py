"""The hub against the floor: two hops of grpc.aio with the same bytes and no work."""

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Contender, Hope, Subject
from benchmarks.load import Load, send
from benchmarks.peers import floor, hub
from benchmarks.subjects.scale import Scale

ECHO = "nothing; two hops of grpc.aio, two processes"
SQLITE = "on disk, an fsync for each; no hop"
HUB = {
    "insert": "on disk, exactly once, with its event; shares fsyncs; two hops, two processes",
    "read": "what was committed before; two hops, two processes",
}
ONE = (
    "A write waits for its fsync, which an echo does not: see SQLite alone, without a hop. The "
    "hub and the storage server each check, route, journal and encode in Python."
)
MANY = (
    "On two cores the hub, the storage server and the generator share the processors that the echo "
    "has for itself; checking, routing, journalling and SQLite are work that it does not do."
)
CALLERS = (16, 64)


@asynccontextmanager
async def subjects(
    target: dict[str, Any], echo: dict[str, Any], scale: Scale
) -> AsyncGenerator[list[Subject], None]:
    """One caller, and several, as the generated stub calls."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".benchmark-") as directory:
        file = {"file": f"{directory}/plain.sqlite3"}

        def load(peer: str, operation: str, to: dict[str, Any], callers: int) -> Any:
            return lambda: send(Load(peer, operation, to, callers, scale.seconds))

        one = Subject(
            "floor, one caller",
            "One caller by generated stub, beside an empty echo proxy",
            "p50_ms",
            [
                Contender("empty echo proxy", ECHO, load("floor", "insert", echo, 1)),
                Contender(
                    "hub: durable insert",
                    HUB["insert"],
                    load("hub", "stub_insert", target, 1),
                    Hope("p50_ms", 1.3, at_least=False, reason=ONE),
                ),
                Contender("hub: point read", HUB["read"], load("hub", "stub_read", target, 1)),
                Contender("SQLite in the caller", SQLITE, load("sqlite", "insert", file, 1)),
            ],
            ["The ratio is of p50: below 1 is faster than the echo."],
        )
        many = [
            Subject(
                f"floor, {callers} callers, {name}s",
                f"{callers} callers, unary calls by generated stub: {name}s, beside an empty echo "
                "proxy",
                "per_second",
                [
                    Contender("empty echo proxy", ECHO, load("floor", name, echo, callers)),
                    Contender(
                        f"hub: {name}",
                        HUB[name],
                        load("hub", f"stub_{name}", target, callers),
                        Hope("per_second", 1.0, at_least=True, reason=MANY),
                    ),
                ],
            )
            for callers in CALLERS
            for name in ("insert", "read")
        ]
        yield [one, *many]


@asynccontextmanager
async def scene(scale: Scale) -> AsyncGenerator[list[Subject], None]:
    """The subjects with servers of their own, for `make bench-smoke`."""
    async with (
        hub.running_hub() as running,
        floor.server(running) as echo,
        subjects(hub.target_of(running), echo, scale) as several,
    ):
        yield several
