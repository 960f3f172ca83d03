"""Durable inserts and reads by key, through our client and through what people use instead."""

from typing import Any

from benchmarks.harness import Contender, Hope, Subject
from benchmarks.load import Load, send
from benchmarks.peers.hub import BATCH_OPERATIONS
from benchmarks.peers.payload import VALUE
from benchmarks.subjects.scale import Scale, people
from benchmarks.subjects.systems import BATCH, ETCD, HUB, NATS, POSTGRES, READS, WRITES, Systems

# How many connections asyncpg is tried with; what is best depends on the machine.
CONNECTIONS = (8, 16, 32, 64, 128)
BATCH_CALLERS = 2
REASON = (
    "The hub and the storage server are Python and share two cores with the generator; PostgreSQL "
    "is C and one hop away."
)
PEERS = (("postgres", POSTGRES), ("etcd", ETCD), ("nats", NATS))


async def best_connections(target: dict[str, Any], operation: str, scale: Scale) -> int:
    """How many connections give asyncpg most calls a second with the most callers."""
    callers = max(scale.callers)
    rates = {}
    for count in CONNECTIONS:
        to = target | {"connections": count}
        figures = await send(Load("postgres", operation, to, callers, scale.seconds / 2))
        rates[count] = figures["per_second"]
    return max(rates, key=lambda count: rates[count])


async def subjects(systems: Systems, scale: Scale) -> list[Subject]:
    """Inserts and reads, by every number of callers."""
    made = []
    for operation, promises, hope in (
        ("insert", WRITES, 3.0),
        ("read", READS, 1.2),
    ):
        targets = dict(systems.targets)
        notes = [f"All callers are in one process. A value has {len(VALUE)} bytes."]
        if "postgres" in targets:
            best = await best_connections(targets["postgres"], operation, scale)
            targets["postgres"] = targets["postgres"] | {"connections": best}
            notes.append(
                f"asyncpg has at most {best} connections, the best of "
                f"{', '.join(map(str, CONNECTIONS))}, and prepared statements."
            )
        for callers in scale.callers:
            wanted = Hope("per_second", hope, at_least=True, reason=REASON)
            contenders = [
                Contender(
                    name,
                    promises[name],
                    _load(peer, operation, targets[peer], callers, scale),
                    curve=name,
                    x=callers,
                )
                for peer, name in PEERS
                if peer in targets and name in promises
            ]
            contenders.append(
                Contender(
                    HUB,
                    promises[HUB],
                    _load("hub", f"client_{operation}", targets["hub"], callers, scale),
                    wanted if callers == max(scale.callers) and "postgres" in targets else None,
                    curve=HUB,
                    x=callers,
                )
            )
            if operation == "insert" and callers == max(scale.callers):
                batch = Load(
                    "hub",
                    "stub_batch",
                    targets["hub"],
                    BATCH_CALLERS,
                    scale.seconds,
                    operations_per_call=BATCH_OPERATIONS,
                )
                contenders.append(Contender(BATCH, promises[BATCH], lambda b=batch: send(b)))
            made.append(
                Subject(
                    f"{operation}s, {people(callers)}",
                    f"{'Durable single-row inserts' if operation == 'insert' else 'Reads by key'}, "
                    f"{people(callers)} at once",
                    "per_second",
                    contenders,
                    notes,
                )
            )
    return made


def _load(peer: str, operation: str, target: dict[str, Any], callers: int, scale: Scale) -> Any:
    return lambda: send(Load(peer, operation, target, callers, scale.seconds))
