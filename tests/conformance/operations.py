"""Operations as the core makes them, and what an engine made of them."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from messagehub.errors import HubError
from messagehub.v1.event_pb2 import Event
from messagehub.v1.statement_pb2 import ResultSet
from storage.core.engine import Engine
from storage.core.operation import Applied, Operation, Outcome
from tests.support.calls import Python, rows, statement

SERVICE: Final = "character"

# One statement that never ends by itself, to read and to write; standard SQL.
_COUNTING: Final = "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c)"
ENDLESS_READ: Final = f"{_COUNTING} SELECT count(*) FROM c"
ENDLESS_ROWS: Final = f"{_COUNTING} SELECT n FROM c"
ENDLESS_WRITE: Final = f"INSERT INTO items {_COUNTING} SELECT n + 1000, n FROM c"

CREATE: Final = "CREATE TABLE items (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)"
ALL_ITEMS: Final = "SELECT id, n FROM items ORDER BY id"


def operation(
    query: str,
    *parameters: Python,
    request_id: str = "",
    service: str = SERVICE,
    deadline: float = math.inf,
    **more: Any,
) -> Operation:
    """An operation with a statement; its outcome goes nowhere unless `deliver` is given."""
    asked = statement(query, *parameters)
    return Operation(
        source_service=service,
        correlation_id=more.pop("correlation_id", "c"),
        request_id=request_id,
        deadline=deadline,
        deliver=more.pop("deliver", lambda _: None),
        statement=asked,
        size_bytes=more.pop("size_bytes", asked.ByteSize()),
        **more,
    )


def insert(number: int, n: int = 0, **more: Any) -> Operation:
    """Inserts one item."""
    return operation(f"INSERT INTO items VALUES ({number}, {n})", **more)


def publish(kind: str, content: bytes = b"", **more: Any) -> Operation:
    """An operation with an event of a service instead of a statement."""
    made = operation("", **more)
    made.statement = None
    made.event = Event(type=kind, data_content_type="text/plain", custom=content)
    return made


async def apply(engine: Engine, *group: Operation) -> list[Outcome]:
    """Runs a group to its end, as the write lane would, and gives all of its outcomes."""
    return (await apply_all(engine, group)).outcomes


async def apply_all(engine: Engine, group: Sequence[Operation]) -> Applied:
    """Runs a group to its end, and gives outcomes, events and the sequence at the end."""
    whole = Applied()
    while len(whole.outcomes) < len(group):
        part = await engine.apply(group[len(whole.outcomes) :])
        assert part.outcomes, "an engine must begin at least one operation of a group"
        whole.outcomes += part.outcomes
        whole.events += part.events
        whole.sequence = part.sequence
    return whole


async def done(engine: Engine, *queries: str) -> list[Outcome]:
    """Runs statements that must succeed."""
    outcomes = await apply(engine, *(operation(query) for query in queries))
    assert reasons(outcomes) == [""] * len(queries)
    return outcomes


async def read(engine: Engine, *operations: Operation, lane: int = 0) -> list[Outcome | None]:
    """Runs reads on one reader and gives their outcomes; None = needs the writer."""
    waiting = deque(operations)
    outcomes: dict[Operation, Outcome | None] = {}
    await engine.drain(lane, lambda: waiting.popleft() if waiting else None, outcomes.__setitem__)
    assert len(outcomes) == len(operations)
    return [outcomes[operation] for operation in operations]


async def selected(engine: Engine, query: str = ALL_ITEMS) -> list[tuple[Python, ...]]:
    """The rows of a reading statement."""
    (outcome,) = await read(engine, operation(query))
    assert outcome is not None
    return rows(result_of(outcome))


async def events(engine: Engine, after: int = 0) -> list[Event]:
    """The whole journal after a position."""
    return await engine.journal(after, 100_000)


def result_of(outcome: Outcome) -> ResultSet:
    """The result of an operation that succeeded."""
    assert outcome.error is None, outcome.error
    assert outcome.result is not None
    return outcome.result


def error_of(outcome: Outcome | None) -> HubError:
    """The error of an operation that failed."""
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.result is None
    return outcome.error


def reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """The reason of each operation that failed; empty for one that succeeded."""
    return ["" if outcome.error is None else outcome.error.reason for outcome in outcomes]
