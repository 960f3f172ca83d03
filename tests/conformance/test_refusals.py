"""A refusal is recorded as the outcome of an operation, unless it has one, and then it is final."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messagehub.errors import DeadlineExceeded, InternalError
from storage.core.engine import Engine
from storage.core.operation import Operation
from tests.conformance.engines import PLACES, Place
from tests.conformance.operations import (
    CREATE,
    apply,
    done,
    error_of,
    events,
    insert,
    publish,
    reasons,
    selected,
)
from tests.conformance.test_predecessors import MISSING, chain, fresh_ids

TOO_OLD = DeadlineExceeded("waited too long", metadata={"days": "3"})


def refusal(number: int, **more: Any) -> Operation:
    return insert(number, refusal=TOO_OLD, submitted=True, **more)


async def test_no_copy_is_done_after_a_refusal(engine: Engine) -> None:
    (request_id,) = fresh_ids(1)
    (refused,) = await apply(engine, refusal(1, request_id=request_id))
    assert error_of(refused).message == TOO_OLD.message
    assert error_of(refused).metadata == TOO_OLD.metadata
    assert refused.event_id
    assert not refused.replayed
    late, again = await apply(
        engine, insert(1, request_id=request_id), refusal(1, request_id=request_id)
    )
    assert reasons([late, again]) == ["DEADLINE_EXCEEDED"] * 2
    assert (late.replayed, again.replayed) == (True, True)
    assert late.sequence == again.sequence == refused.sequence
    assert await selected(engine) == []
    known = await engine.recorded(request_id)
    assert known is not None
    assert error_of(known.outcome).message == TOO_OLD.message
    failed = (await events(engine))[-1]
    assert failed.type == "storage.operation_failed"
    assert failed.operation_failed.request_id == request_id
    assert failed.operation_failed.query == "INSERT INTO items VALUES (1, 0)"


async def test_what_has_an_outcome_is_not_refused_any_more(engine: Engine) -> None:
    first, second = fresh_ids(2)
    await done(engine, "INSERT INTO items VALUES (9, 9)")
    await apply(engine, insert(1, request_id=first), insert(9, request_id=second))
    kept, failed = await apply(engine, refusal(1, request_id=first), refusal(9, request_id=second))
    assert kept.error is None
    assert kept.replayed
    assert reasons([failed]) == ["CONSTRAINT_VIOLATION"]
    assert await selected(engine) == [(1, 0), (9, 9)]


async def test_other_content_of_the_same_id_is_not_refused_in_its_place(engine: Engine) -> None:
    (request_id,) = fresh_ids(1)
    await apply(engine, insert(1, request_id=request_id))
    assert reasons(await apply(engine, refusal(2, request_id=request_id))) == ["REQUEST_ID_REUSED"]


async def test_a_refusal_lets_the_next_one_go_on(engine: Engine) -> None:
    ids = fresh_ids(2)
    first, second = chain(ids)
    assert reasons(await apply(engine, second)) == [MISSING]
    await apply(engine, refusal(0, request_id=ids[0]))
    assert reasons(await apply(engine, second)) == [""]
    assert reasons(await apply(engine, first)) == ["DEADLINE_EXCEEDED"]
    assert await selected(engine) == [(1, 0)]


async def test_a_refusal_survives_its_server(place: Place) -> None:
    engine = await place.open()
    await done(engine, CREATE)
    (request_id,) = fresh_ids(1)
    await apply(engine, refusal(1, request_id=request_id))
    await engine.close()
    engine = await place.open()
    assert reasons(await apply(engine, insert(1, request_id=request_id))) == ["DEADLINE_EXCEEDED"]
    assert await selected(engine) == []


async def test_an_event_that_is_refused_is_not_published(engine: Engine) -> None:
    (request_id,) = fresh_ids(1)
    defect = InternalError("a defect")
    await apply(engine, publish("a.b", request_id=request_id, refusal=defect))
    assert reasons(await apply(engine, publish("a.b", request_id=request_id))) == ["INTERNAL"]
    told = await events(engine)
    assert [event.type for event in told][-1] == "storage.operation_failed"
    assert "a.b" not in {event.type for event in told}


# Copies and refusals of some operations, in any order and any groups.
sendings = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=6),
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
def test_the_first_that_comes_decides(kind: Any, sent: list[list[tuple[int, bool]]]) -> None:
    async def live(directory: str) -> None:
        place: Place = kind(Path(directory) / "place")
        try:
            engine = await place.open()
            await done(engine, CREATE)
            ids = fresh_ids(5)
            decided: dict[int, bool] = {}
            for group in sent:
                make = {True: refusal, False: insert}
                copies = [make[bars](number, request_id=ids[number]) for number, bars in group]
                outcomes = await apply(engine, *copies)
                for (number, bars), outcome in zip(group, outcomes, strict=True):
                    refused = decided.setdefault(number, bars)
                    assert (outcome.error is not None) == refused
            there = sorted(number for number, refused in decided.items() if not refused)
            assert sorted(row[0] for row in await selected(engine)) == there
        finally:
            await place.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(live(directory))
