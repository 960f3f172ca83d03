"""An operation that follows another is never done before that one has an outcome."""

import asyncio
import math
import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.core.engine import Engine
from storage.core.operation import Operation
from tests.conformance.engines import PLACES, Place
from tests.conformance.operations import (
    CREATE,
    apply,
    done,
    events,
    insert,
    operation,
    publish,
    reasons,
    selected,
)

MISSING = "PREDECESSOR_MISSING"


def fresh_ids(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


def chain(ids: list[str], **overdue: float) -> list[Operation]:
    """Inserts 0, 1, 2 …, each behind the one before it; `n2=0.0` has no time left."""
    return [
        insert(
            number,
            request_id=ids[number],
            follows=ids[number - 1] if number else "",
            deadline=overdue.get(f"n{number}", math.inf),
        )
        for number in range(len(ids))
    ]


async def test_a_chain_is_done_in_one_group(engine: Engine) -> None:
    assert reasons(await apply(engine, *chain(fresh_ids(5)))) == [""] * 5
    assert await selected(engine) == [(number, 0) for number in range(5)]


async def test_behind_a_failure_that_passes_nothing_is_left(engine: Engine) -> None:
    ids = fresh_ids(4)
    outcomes = await apply(engine, *chain(ids, n1=0.0))
    assert reasons(outcomes) == ["", "DEADLINE_EXCEEDED", MISSING, MISSING]
    assert await selected(engine) == [(0, 0)]
    assert len(await events(engine)) == 2
    # Sent again, they are new but for the first.
    again = await apply(engine, *chain(ids))
    assert reasons(again) == [""] * 4
    assert [outcome.replayed for outcome in again] == [True, False, False, False]


async def test_a_permanent_failure_is_an_outcome_and_lets_go_on(engine: Engine) -> None:
    ids = fresh_ids(3)
    await done(engine, "INSERT INTO items VALUES (1, 7)")
    assert reasons(await apply(engine, *chain(ids))) == ["", "CONSTRAINT_VIOLATION", ""]
    assert await selected(engine) == [(0, 0), (1, 7), (2, 0)]


async def test_one_that_ends_the_transaction_takes_nobody_past_itself(place: Place) -> None:
    """A group that is lost runs again in parts; the order still holds."""
    for preparation, query in place.dialect.spoiling:
        engine = await place.open()
        await done(engine, "DROP TABLE IF EXISTS items", CREATE, *preparation)
        await done(engine, "INSERT INTO items VALUES (1, 0)")
        ids = fresh_ids(3)
        outcomes = await apply(
            engine,
            insert(20, request_id=ids[0]),
            operation(query, request_id=ids[1], follows=ids[0]),
            insert(21, request_id=ids[2], follows=ids[1]),
        )
        assert outcomes[1].error is not None
        assert reasons(outcomes)[0::2] == ["", "" if outcomes[1].event_id else MISSING]
        await engine.close()


async def test_a_predecessor_may_have_come_in_an_earlier_group(engine: Engine) -> None:
    first, second = chain(fresh_ids(2))
    assert reasons(await apply(engine, second)) == [MISSING]
    assert reasons(await apply(engine, first)) == [""]
    assert reasons(await apply(engine, second)) == [""]


async def test_what_is_recorded_itself_needs_no_predecessor(engine: Engine) -> None:
    (request_id,) = fresh_ids(1)
    await apply(engine, insert(1, request_id=request_id))
    (again,) = await apply(engine, insert(1, request_id=request_id, follows=fresh_ids(1)[0]))
    assert again.error is None
    assert again.replayed


async def test_a_predecessor_that_is_forgotten_is_missing(engine: Engine) -> None:
    first, second = chain(fresh_ids(2))
    await apply(engine, first, insert(10), insert(11))
    await engine.trim(older_than_us=0, keep_rows=1, at_most=10)
    assert reasons(await apply(engine, second)) == [MISSING]


async def test_an_event_follows_too(engine: Engine) -> None:
    first, second = fresh_ids(2)
    assert reasons(await apply(engine, publish("a.b", request_id=second, follows=first))) == [
        MISSING
    ]
    outcomes = await apply(
        engine,
        publish("a.a", request_id=first),
        publish("a.b", request_id=second, follows=first),
    )
    assert reasons(outcomes) == ["", ""]


# Any copies, in any order, in any groups, of which some have no time left: the numbers that are
# there are the first ones, and they came in their order.
sendings = st.lists(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=8),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("kind", PLACES, ids=lambda place: place.name)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(sent=sendings)
def test_no_copy_of_any_of_them_overtakes(kind: Any, sent: list[list[tuple[int, bool]]]) -> None:
    async def live(directory: str) -> None:
        place: Place = kind(Path(directory) / "place")
        try:
            engine = await place.open()
            await done(engine, CREATE)
            ids = fresh_ids(7)
            for group in sent:
                copies = [
                    chain(ids, **({f"n{number}": 0.0} if late else {}))[number]
                    for number, late in group
                ]
                await apply(engine, *copies)
            numbers = [row[0] for row in await selected(engine)]
            assert numbers == list(range(len(numbers)))
            done_ids = [one.operation_completed.request_id for one in (await events(engine))[1:]]
            assert done_ids == ids[: len(numbers)]
        finally:
            await place.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(live(directory))
