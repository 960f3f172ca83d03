"""The same request id is the same operation, however often and however late it comes again."""

import asyncio
import uuid
from collections.abc import Callable

import pytest

from messagehub.errors import InvalidRequest, RequestIdReused
from storage.core.engine import Engine
from storage.core.operation import Operation
from tests.conformance.engines import Place
from tests.conformance.operations import (
    CREATE,
    ENDLESS_WRITE,
    apply,
    done,
    error_of,
    events,
    insert,
    operation,
    publish,
    reasons,
    result_of,
    selected,
)

SHORT_SECONDS = 0.05


def fresh_id() -> str:
    return str(uuid.uuid4())


async def test_a_retry_gets_the_recorded_outcome_rows_included(engine: Engine) -> None:
    query, request_id = "INSERT INTO items VALUES (1, 5) RETURNING id, n AS level", fresh_id()
    (first,) = await apply(engine, operation(query, request_id=request_id))
    assert not first.replayed
    for _ in range(3):
        (again,) = await apply(engine, operation(query, request_id=request_id))
        assert again.replayed
        assert result_of(again) == result_of(first)
        assert (again.sequence, again.event_id) == (first.sequence, first.event_id)
    assert await selected(engine) == [(1, 5)]
    assert len(await events(engine)) == 2


async def test_a_retry_is_the_same_under_other_circumstances(engine: Engine) -> None:
    """Only who asks, for what: not the correlation id, the deadline, or the place in a group."""
    request_id = fresh_id()
    (first,) = await apply(engine, insert(1, request_id=request_id, correlation_id="one"))
    later = insert(1, request_id=request_id, correlation_id="two", deadline=0.0)
    outcomes = await apply(engine, insert(2), later, insert(3))
    assert reasons(outcomes) == [""] * 3
    assert [outcome.replayed for outcome in outcomes] == [False, True, False]
    assert outcomes[1].sequence == first.sequence


async def test_copies_in_one_group_are_one_operation(engine: Engine) -> None:
    request_id = fresh_id()
    outcomes = await apply(
        engine,
        insert(1, request_id=request_id),
        insert(2),
        insert(1, request_id=request_id),
        insert(1, request_id=request_id),
    )
    assert [outcome.replayed for outcome in outcomes] == [False, False, True, True]
    assert len({outcome.sequence for outcome in outcomes}) == 2
    assert result_of(outcomes[2]) == result_of(outcomes[3]) == result_of(outcomes[0])
    assert await selected(engine) == [(1, 0), (2, 0)]
    assert len(await events(engine)) == 3


async def test_a_failure_is_an_outcome_too(engine: Engine) -> None:
    request_id = fresh_id()
    await done(engine, "INSERT INTO items VALUES (1, 0)")
    (first,) = await apply(engine, insert(1, request_id=request_id))
    await done(engine, "DELETE FROM items")
    (again,) = await apply(engine, insert(1, request_id=request_id))
    mine, known = error_of(again), error_of(first)
    assert again.replayed
    assert (again.sequence, again.event_id) == (first.sequence, first.event_id)
    assert type(mine) is type(known)
    assert (mine.message, mine.fields, mine.metadata) == (
        known.message,
        known.fields,
        known.metadata,
    )
    assert await selected(engine) == []


CONTENTS: list[tuple[str, Callable[[str], Operation]]] = [
    ("another text", lambda request_id: insert(2, request_id=request_id)),
    ("another service", lambda request_id: insert(1, request_id=request_id, service="campaign")),
    ("an event", lambda request_id: publish("character.made", request_id=request_id)),
]


@pytest.mark.parametrize("other", [c[1] for c in CONTENTS], ids=[c[0] for c in CONTENTS])
@pytest.mark.parametrize("together", [True, False], ids=["one group", "later"])
async def test_other_content_under_a_used_id_is_refused_and_both_are_named(
    engine: Engine, other: Callable[[str], Operation], together: bool
) -> None:
    request_id = fresh_id()
    mine = insert(1, request_id=request_id)
    if together:
        _, refused = await apply(engine, mine, other(request_id))
    else:
        await apply(engine, mine)
        (refused,) = await apply(engine, other(request_id))
    error = error_of(refused)
    assert isinstance(error, RequestIdReused)
    assert request_id in error.message
    assert "INSERT INTO items VALUES (1, 0)" in error.message
    assert other("").source_service in error.message
    assert await selected(engine) == [(1, 0)]
    assert len(await events(engine)) == 2
    (again,) = await apply(engine, mine)
    assert again.replayed, "the refused copy must not take the place of the first"


async def test_parameters_are_content(engine: Engine) -> None:
    request_id = fresh_id()

    def asking(parameter: object) -> Operation:
        return operation("DELETE FROM items WHERE id = 5", parameter, request_id=request_id)  # type: ignore[arg-type]

    # Whatever the engine says of a parameter without a place, it says of both, or tells them apart.
    (first,) = await apply(engine, asking(1))
    (other,) = await apply(engine, asking(1.0))
    assert reasons([first]) == ["INVALID_STATEMENT"]
    assert isinstance(error_of(other), RequestIdReused)


@pytest.mark.parametrize("how", ["cancelled", "overdue", "interrupted"])
async def test_what_will_pass_is_not_recorded(engine: Engine, how: str) -> None:
    request_id = fresh_id()
    query = ENDLESS_WRITE if how == "interrupted" else "INSERT INTO items VALUES (1, 0)"
    deadline = asyncio.get_running_loop().time() + (SHORT_SECONDS if how == "interrupted" else -1)
    once = operation(query, request_id=request_id, deadline=deadline)
    if how == "cancelled":
        once.deadline, once.cancelled = 1e12, True
    expected = "CANCELLED" if how == "cancelled" else "DEADLINE_EXCEEDED"
    assert reasons(await apply(engine, once)) == [expected]
    assert await engine.recorded(request_id) is None
    assert len(await events(engine)) == 1
    assert await selected(engine) == []
    (again,) = await apply(engine, insert(1, request_id=request_id))
    assert not again.replayed
    assert reasons([again]) == [""]


@pytest.mark.parametrize("cancelled", [True, False])
async def test_an_event_of_a_caller_that_is_gone_or_too_late_is_not_published(
    engine: Engine, cancelled: bool
) -> None:
    late = publish("character.made", cancelled=cancelled, deadline=1e12 if cancelled else 0.0)
    assert reasons(await apply(engine, late)) == ["CANCELLED" if cancelled else "DEADLINE_EXCEEDED"]
    assert len(await events(engine)) == 1


async def test_a_copy_of_what_passed_in_the_same_group_is_done(engine: Engine) -> None:
    request_id = fresh_id()
    gone = insert(1, request_id=request_id, cancelled=True)
    outcomes = await apply(engine, gone, insert(1, request_id=request_id))
    assert reasons(outcomes) == ["CANCELLED", ""]
    assert not outcomes[1].replayed
    assert await selected(engine) == [(1, 0)]


async def test_copies_of_what_fails_at_the_commit_share_its_outcome(engine: Engine) -> None:
    await done(
        engine,
        "CREATE TABLE parts (item INTEGER REFERENCES items (id) DEFERRABLE INITIALLY DEFERRED)",
    )
    before, request_id = len(await events(engine)), fresh_id()
    orphan = "INSERT INTO parts VALUES (404)"
    outcomes = await apply(
        engine,
        operation(orphan, request_id=request_id),
        insert(1, request_id=(mine := fresh_id())),
        operation(orphan, request_id=request_id),
        insert(1, request_id=mine),
    )
    lost = "CONSTRAINT_VIOLATION"
    assert reasons(outcomes) == [lost, "", lost, ""]
    assert [outcome.replayed for outcome in outcomes] == [False, False, True, True]
    assert len(await events(engine)) == before + 2
    assert await selected(engine) == [(1, 0)]


async def test_copies_around_a_statement_that_ends_the_transaction(
    place: Place, engine: Engine
) -> None:
    spoiling = place.dialect.spoiling[0][1]
    before, mine, bad = len(await events(engine)), fresh_id(), fresh_id()
    outcomes = await apply(
        engine,
        insert(1, request_id=mine),
        operation(spoiling, request_id=bad),
        insert(1, request_id=mine),
        operation(spoiling, request_id=bad),
        insert(2),
    )
    lost = "CONSTRAINT_VIOLATION"
    assert reasons(outcomes) == ["", lost, "", lost, ""]
    assert [outcome.replayed for outcome in outcomes] == [False, False, True, True, False]
    assert len(await events(engine)) == before + 3


async def test_without_an_id_nothing_is_a_copy(engine: Engine) -> None:
    outcomes = await apply(
        engine, insert(1), operation("UPDATE items SET n = n + 1"), insert(1), insert(1)
    )
    assert reasons(outcomes) == ["", "", "CONSTRAINT_VIOLATION", "CONSTRAINT_VIOLATION"]
    assert not any(outcome.replayed for outcome in outcomes)


@pytest.mark.parametrize("crash", [True, False], ids=["crash", "restart"])
async def test_outcomes_outlive_the_engine(place: Place, crash: bool) -> None:
    engine = await place.open()
    await done(engine, CREATE)
    ids = [fresh_id() for _ in range(4)]
    group = [
        operation("INSERT INTO items VALUES (1, 5) RETURNING n", request_id=ids[0]),
        insert(1, request_id=ids[1]),
        insert(2, request_id=ids[2]),
        publish("character.made", b"x", request_id=ids[3]),
    ]
    first = await apply(engine, *group)
    told = await events(engine)
    if crash:
        place = await place.crash(engine)
    else:
        await engine.close()
    engine = await place.open()
    again = await apply(engine, *group)
    assert all(outcome.replayed for outcome in again)
    assert reasons(again) == reasons(first) == ["", "CONSTRAINT_VIOLATION", "", ""]
    assert [o.sequence for o in again] == [o.sequence for o in first]
    assert [o.event_id for o in again] == [o.event_id for o in first]
    assert result_of(again[0]) == result_of(first[0])
    assert await selected(engine) == [(1, 5), (2, 0)]
    assert await events(engine) == told


async def test_what_is_recorded_can_be_looked_up(engine: Engine) -> None:
    mine, bad = fresh_id(), fresh_id()
    outcomes = await apply(
        engine,
        insert(1, 5, request_id=mine, correlation_id="why"),
        insert(1, request_id=bad, service="campaign"),
    )
    found = await engine.recorded(mine)
    assert found is not None
    assert (found.source_service, found.correlation_id) == ("character", "why")
    assert found.query == "INSERT INTO items VALUES (1, 5)"
    assert found.time_us > 0
    assert result_of(found.outcome) == result_of(outcomes[0])
    assert found.outcome.sequence == outcomes[0].sequence
    assert not found.submitted
    later = fresh_id()
    await apply(engine, insert(7, request_id=later, submitted=True))
    submitted = await engine.recorded(later)
    assert submitted is not None
    assert submitted.submitted
    failed = await engine.recorded(bad)
    assert failed is not None
    assert failed.source_service == "campaign"
    assert error_of(failed.outcome).reason == "CONSTRAINT_VIOLATION"
    assert await engine.recorded(fresh_id()) is None


@pytest.mark.parametrize("malformed", ["nonsense", "0190a000", "é" * 36])
async def test_what_is_no_request_id_cannot_be_looked_up(engine: Engine, malformed: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await engine.recorded(malformed)
    assert list(caught.value.fields) == ["request_id"]
    assert await engine.recorded("") is None
