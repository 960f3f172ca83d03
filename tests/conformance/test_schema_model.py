"""Any sequence of updates, rollbacks, rehearsals and crashes: version, history and shape agree."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messagehub.errors import HubError
from messagehub.storage.v1.schema_pb2 import SchemaOperation
from storage.core.engine import Engine
from storage.core.transactions.engine_part import Step
from tests.conformance.engines import PLACES, Place
from tests.conformance.schema_parts import control, part, rollback, update

numbers = st.integers(1, 6)
updates = st.tuples(st.just("update"), numbers, st.booleans())
rollbacks = st.tuples(st.just("rollback"), st.integers(0, 6), st.booleans())
ways = st.sampled_from(["commit", "rehearse", "crash-commit", "crash-back", "crash-open"])
steps = st.lists(st.tuples(st.one_of(updates, rollbacks), ways), max_size=10)


class Model:
    """The versions that are in effect, and every line of the history."""

    def __init__(self) -> None:
        self.effective: list[int] = []
        self.history: list[int] = []

    def allows(self, kind: str, number: int, *, good: bool) -> bool:
        if kind == "update":
            return good and number > max(self.effective, default=0)
        return bool(self.effective) and (
            number in self.effective[:-1] or (number == 0 and bool(self.effective))
        )

    def apply(self, kind: str, number: int) -> None:
        if kind == "update":
            self.effective.append(number)
            self.history.append(number)
        else:
            self.effective = [one for one in self.effective if one <= number]


def operation_of(kind: str, number: int, *, good: bool) -> SchemaOperation:
    if kind == "rollback":
        return rollback(f"{number}.0.0")
    script = f"CREATE TABLE t{number} (a); INSERT INTO t{number} VALUES (random());"
    return update(f"{number}.0.0", script + ("" if good else "nonsense"), f"DROP TABLE t{number}")


async def check(engine: Engine, model: Model) -> None:
    described = await engine.schema()
    assert described.version == (f"{model.effective[-1]}.0.0" if model.effective else "")
    assert [change.version for change in described.history] == [f"{n}.0.0" for n in model.history]
    in_effect = [c.version for c in described.history if not c.HasField("rollback_time")]
    assert in_effect == [f"{number}.0.0" for number in model.effective]
    assert {t.name for t in described.tables} == {f"t{number}" for number in model.effective}
    assert not described.drifted


async def reopened(place: Place, engine: Engine) -> Engine:
    await engine.close()
    again = place.make()
    await again.open()
    return again


async def take(place: Place, engine: Engine, model: Model, step: Any) -> Engine:
    (kind, number, good), way = step
    operation = operation_of(kind, number, good=good)
    allowed = model.allows(kind, number, good=good)
    try:
        if way == "rehearse":
            reports = await engine.transactions.rehearse([operation], control())
            failed = any(s.HasField("error") for s in reports[0].steps[-1].statements)
            assert failed is not allowed
            return engine
        wanted = {"commit": Step.COMMIT, "crash-open": Step.STAY_OPEN}.get(way, Step.PREPARE)
        await engine.transactions.advance(part(operation, step=wanted))
    except HubError:
        assert not allowed
        await engine.transactions.roll_back()
        return engine
    assert allowed
    if way == "commit":
        model.apply(kind, number)
        return engine
    engine = await reopened(place, engine)
    recovered = await engine.transactions.recover()
    assert (recovered is not None) is (way != "crash-open")
    if way == "crash-commit":
        await engine.transactions.commit(forced=False)
        model.apply(kind, number)
    else:
        await engine.transactions.roll_back()
    await engine.transactions.forget()
    return engine


async def live(place: Place, taken: list[Any]) -> None:
    engine = await place.open()
    try:
        model = Model()
        for step in taken:
            engine = await take(place, engine, model, step)
            await check(engine, model)
        engine = await reopened(place, engine)
        await check(engine, model)
    finally:
        await place.close()


@pytest.mark.parametrize("make_place", PLACES)
@settings(max_examples=40, deadline=None)
@given(taken=steps)
def test_version_history_and_shape_agree(
    make_place: Callable[[Path], Place], taken: list[Any]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(live(make_place(Path(directory) / "place"), taken))
