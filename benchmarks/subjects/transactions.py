"""Transactions over two databases, beside PostgreSQL's own two-phase commit."""

from typing import Any

from benchmarks.harness import Contender, Subject
from benchmarks.load import Load, send
from benchmarks.subjects.scale import Scale, people
from benchmarks.subjects.systems import Systems

HUB = (
    "atomic through any crash, resolved by itself, serializable, exactly once, with events; "
    "one call, two hops"
)
POSTGRES = (
    "atomic only if the caller lives: nobody remembers the decision; read committed; two round "
    "trips to both at once, one hop"
)
NOTE = (
    "The hub gives each transaction its databases to itself until it is decided, so callers of "
    "the same two wait for each other; PostgreSQL locks rows, and these are all different."
)
CALLERS = (1, 16)


def subjects(systems: Systems, scale: Scale) -> list[Subject]:
    """One insert into each of two databases, by one and by several callers."""

    def load(peer: str, operation: str, callers: int) -> Any:
        target = systems.targets[peer]
        return lambda: send(Load(peer, operation, target, callers, scale.seconds))

    made = []
    for callers in CALLERS:
        contenders = [
            Contender(
                "hub: ExecuteTransaction, through our client",
                HUB,
                load("hub", "transaction", callers),
            )
        ]
        if "postgres" in systems.targets:
            contenders.insert(
                0,
                Contender(
                    "PostgreSQL: PREPARE TRANSACTION, COMMIT PREPARED, asyncpg",
                    POSTGRES,
                    load("postgres", "two_phase", callers),
                ),
            )
        made.append(
            Subject(
                f"transactions, {people(callers)}",
                f"An insert into each of two databases, atomic, {people(callers)}",
                "p50_ms",
                contenders,
                [NOTE, "The ratio is of p50: above 1 is slower."],
            )
        )
    return made
