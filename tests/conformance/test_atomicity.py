"""An operation happens wholly or not at all, and takes no neighbour of its group along."""

import asyncio

import pytest

from messagehub.errors import (
    Cancelled,
    ConstraintViolation,
    DeadlineExceeded,
    HubError,
    InvalidStatement,
)
from storage.core.engine import Engine
from storage.core.operation import Operation
from tests.conformance.engines import PLACES, Place
from tests.conformance.operations import (
    ENDLESS_WRITE,
    apply,
    apply_all,
    done,
    error_of,
    events,
    insert,
    operation,
    publish,
    reasons,
    selected,
)
from tests.support.calls import rows

SHORT_SECONDS = 0.05


async def test_a_group_takes_effect_in_order(engine: Engine) -> None:
    outcomes = await apply(
        engine,
        insert(1),
        operation("UPDATE items SET n = n + 1"),
        insert(2),
        operation("UPDATE items SET n = n * 10"),
    )
    assert reasons(outcomes) == [""] * 4
    assert await selected(engine) == [(1, 10), (2, 0)]
    assert [outcome.sequence for outcome in outcomes] == [2, 3, 4, 5]
    assert [outcome.result.rows_affected for outcome in outcomes if outcome.result] == [1, 1, 1, 2]


async def test_a_failure_leaves_the_others_alone(engine: Engine) -> None:
    outcomes = await apply(engine, insert(1), insert(1), operation("nonsense"), insert(2))
    assert isinstance(error_of(outcomes[1]), ConstraintViolation)
    assert isinstance(error_of(outcomes[2]), InvalidStatement)
    assert await selected(engine) == [(1, 0), (2, 0)]


async def test_a_statement_that_fails_half_way_leaves_nothing_of_itself(engine: Engine) -> None:
    await done(engine, "INSERT INTO items VALUES (3, 0)")
    outcomes = await apply(
        engine, insert(1), operation("INSERT INTO items VALUES (2, 0), (3, 0), (4, 0)"), insert(5)
    )
    assert reasons(outcomes) == ["", "CONSTRAINT_VIOLATION", ""]
    assert await selected(engine) == [(1, 0), (3, 0), (5, 0)]


SPOILING = [
    pytest.param(place, preparation, statement, id=f"{place.name}: {statement}")  # type: ignore[attr-defined]
    for place in PLACES
    for preparation, statement in place.dialect.spoiling  # type: ignore[attr-defined]
]


@pytest.mark.parametrize(("place", "preparation", "statement"), SPOILING, indirect=["place"])
async def test_a_statement_that_ends_the_transaction_takes_no_neighbour_along(
    place: Place, engine: Engine, preparation: tuple[str, ...], statement: str
) -> None:
    await done(engine, *preparation)
    before = len(await events(engine))
    applied = await apply_all(
        engine,
        (insert(1), insert(2), operation(statement), insert(3), operation(statement), insert(4)),
    )
    lost = "CONSTRAINT_VIOLATION"
    assert reasons(applied.outcomes) == ["", "", lost, "", lost, ""]
    assert await selected(engine) == [(1, 0), (2, 0), (3, 0), (4, 0)]
    told = (await events(engine))[before:]
    assert told == applied.events
    assert [event.sequence for event in told] == [o.sequence for o in applied.outcomes]
    assert [event.sequence for event in told] == list(range(before + 1, before + 7))


class LeavingOperation(Operation):
    """Its caller is there when it runs first, and gone when it would have to run again."""

    __slots__ = ("_looks",)

    def overdue(self, now: float) -> HubError | None:
        self._looks = getattr(self, "_looks", 0) + 1
        return super().overdue(now) if self._looks == 1 else Cancelled("gone")


async def test_a_failure_is_judged_by_what_really_came_before(place: Place, engine: Engine) -> None:
    """What an operation failed on must have happened, or its failure must not be recorded."""
    first = insert(1)
    leaving = LeavingOperation("character", "c", "", 1e12, first.deliver, first.statement)
    request_id = "0190a000-0000-7000-8000-000000000002"
    conflicting = operation(place.dialect.spoiling[0][1], request_id=request_id)
    outcomes = await apply(engine, leaving, conflicting, insert(2))
    kept = await selected(engine)
    if reasons(outcomes)[0] == "":
        assert reasons(outcomes)[1:] == ["CONSTRAINT_VIOLATION", ""]
        assert kept == [(1, 0), (2, 0)]
    else:
        assert reasons(outcomes) == ["CANCELLED", "", ""]
        assert kept == [(1, 0), (2, 0)]
        recorded = await engine.recorded(request_id)
        assert recorded is not None
        assert recorded.outcome.error is None


async def test_a_constraint_that_is_checked_at_the_commit_fails_only_its_operation(
    engine: Engine,
) -> None:
    await done(
        engine,
        "CREATE TABLE parts (item INTEGER REFERENCES items (id) DEFERRABLE INITIALLY DEFERRED)",
    )
    before = len(await events(engine))
    orphan = operation(
        "INSERT INTO parts VALUES (404)", request_id="0190a000-0000-7000-8000-000000000001"
    )
    outcomes = await apply(
        engine, insert(1), operation("INSERT INTO parts VALUES (1)"), orphan, insert(2)
    )
    assert reasons(outcomes) == ["", "", "CONSTRAINT_VIOLATION", ""]
    assert error_of(outcomes[2]).metadata["constraint"] == "foreign_key"
    assert await selected(engine, "SELECT item FROM parts") == [(1,)]
    assert await selected(engine) == [(1, 0), (2, 0)]
    told = (await events(engine))[before:]
    assert [event.type.removeprefix("storage.operation_") for event in told] == [
        "completed",
        "completed",
        "failed",
        "completed",
    ]
    (again,) = await apply(engine, orphan)
    assert again.replayed
    assert error_of(again).reason == "CONSTRAINT_VIOLATION"


async def test_a_constraint_that_the_group_mends_is_judged_for_each_operation(
    engine: Engine,
) -> None:
    """Alone, the first operation violates a constraint, so it fails, although a later one would
    have mended it: operations of a group are independent.
    """
    await done(
        engine,
        "CREATE TABLE parts (item INTEGER REFERENCES items (id) DEFERRABLE INITIALLY DEFERRED)",
    )
    outcomes = await apply(engine, operation("INSERT INTO parts VALUES (1)"), insert(1))
    assert reasons(outcomes)[1] == ""
    kept = await selected(engine, "SELECT item FROM parts")
    assert kept == ([(1,)] if reasons(outcomes)[0] == "" else [])


@pytest.mark.parametrize("how", ["overdue", "cancelled"])
async def test_a_write_interrupted_in_the_middle_of_a_group_leaves_the_others_done_once(
    engine: Engine, how: str
) -> None:
    loop = asyncio.get_running_loop()
    endless = operation(ENDLESS_WRITE)
    if how == "overdue":
        endless.deadline = loop.time() + SHORT_SECONDS
        expected: type[Exception] = DeadlineExceeded
    else:
        loop.call_later(SHORT_SECONDS, setattr, endless, "cancelled", True)
        expected = Cancelled
    before = len(await events(engine))
    outcomes = await apply(
        engine,
        insert(1),
        operation("UPDATE items SET n = n + 1 WHERE id = 1"),
        endless,
        operation("UPDATE items SET n = n + 1 WHERE id = 1"),
        insert(2),
    )
    assert isinstance(error_of(outcomes[2]), expected)
    assert reasons(outcomes[:2] + outcomes[3:]) == [""] * 4
    assert await selected(engine) == [(1, 2), (2, 0)]
    assert len(await events(engine)) == before + 4, "a transient failure is not recorded"


async def test_a_later_operation_of_a_group_sees_the_schema_that_an_earlier_one_made(
    engine: Engine,
) -> None:
    await done(engine, "INSERT INTO items VALUES (1, 0)")  # compiled once, under the old schema
    outcomes = await apply(
        engine,
        operation("INSERT INTO items VALUES (2, 0)"),
        operation("ALTER TABLE items ADD COLUMN extra INTEGER DEFAULT 7"),
        operation("INSERT INTO items VALUES (3, 0)"),
        operation("INSERT INTO items VALUES (4, 0, 8)"),
        operation("ALTER TABLE items RENAME TO things"),
        operation("INSERT INTO items VALUES (5, 0, 9)"),
        operation("INSERT INTO things VALUES (6, 0, 9)"),
    )
    invalid = "INVALID_STATEMENT"
    assert reasons(outcomes) == ["", "", invalid, "", "", invalid, ""]
    kept = await selected(engine, "SELECT id, extra FROM things ORDER BY id")
    assert kept == [(1, 7), (2, 7), (4, 8), (6, 9)]


async def test_statements_and_events_share_a_group(engine: Engine) -> None:
    before = len(await events(engine))
    applied = await apply_all(
        engine, (insert(1), publish("character.levelled_up", b"12"), insert(1), insert(2))
    )
    assert reasons(applied.outcomes) == ["", "", "CONSTRAINT_VIOLATION", ""]
    told = (await events(engine))[before:]
    assert told == applied.events
    assert told[1].type == "character.levelled_up"
    assert told[1].custom == b"12"
    assert told[1].data_content_type == "text/plain"
    assert [event.id for event in told] == [outcome.event_id for outcome in applied.outcomes]


async def test_results_of_a_group_belong_to_their_operations(engine: Engine) -> None:
    outcomes = await apply(
        engine,
        operation("INSERT INTO items VALUES (1, 5), (2, 6) RETURNING id, n"),
        operation("UPDATE items SET n = 0 WHERE id > 5"),
        operation("DELETE FROM items RETURNING n"),
    )
    results = [outcome.result for outcome in outcomes]
    assert [result.rows_affected for result in results if result] == [2, 0, 2]
    assert results[0] is not None
    assert rows(results[0]) == [(1, 5), (2, 6)]
    assert [column.name for column in results[0].columns] == ["id", "n"]
    assert results[2] is not None
    assert sorted(rows(results[2])) == [(5,), (6,)]
