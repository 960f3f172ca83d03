"""The systems that run beside each other, and what each of them promises."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.bench_servers import RunningHub
from benchmarks.peers import etcd, floor, hub, nats, postgres

HUB: Final = "hub, through our client"
BATCH: Final = "hub, ExecuteBatch of 256 by generated stub"
POSTGRES: Final = "PostgreSQL, asyncpg"
ETCD: Final = "etcd, grpc.aio"
NATS: Final = "NATS JetStream"

PEERS: Final = {"postgres": postgres, "etcd": etcd, "nats": nats}
WRITES: Final = {
    HUB: "on disk, exactly once, with its event; calls share fsyncs; two hops",
    BATCH: "as above; 256 operations a call, each with an outcome of its own",
    POSTGRES: "on disk (fsync and synchronous_commit on), commits share fsyncs; one hop",
    ETCD: "on disk (fsync), one node; puts share fsyncs; one hop",
    NATS: "on disk (sync_interval: always), an fsync for each; one hop",
}
READS: Final = {
    HUB: "what was committed before; two hops",
    POSTGRES: "what was committed before; one hop",
    ETCD: "linearizable; one node; one hop",
}


@dataclass(frozen=True, slots=True)
class Systems:
    """What runs; `targets` are what a load needs to know of each."""

    hub: RunningHub
    targets: dict[str, dict[str, Any]]
    not_run: list[str] = field(default_factory=list)


@asynccontextmanager
async def running_systems() -> AsyncGenerator[Systems, None]:
    """Runs the hub, the floor and every peer that can run here."""
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(hub.running_hub())
        systems = Systems(running, {"hub": hub.target_of(running)})
        for name, peer in PEERS.items():
            if reason := peer.missing():
                systems.not_run.append(f"{name} ({reason})")
            else:
                systems.targets[name] = await stack.enter_async_context(peer.server())
        systems.targets["floor"] = await stack.enter_async_context(floor.server(running))
        yield systems
