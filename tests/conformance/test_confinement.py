"""A statement reaches nothing but its own database."""

import pytest

from messagehub.errors import InvalidStatement, StatementForbidden
from storage.core.engine import Engine
from tests.conformance.engines import PLACES, Place
from tests.conformance.operations import (
    apply,
    done,
    error_of,
    events,
    insert,
    operation,
    read,
    reasons,
    selected,
)

FORBIDDEN = [
    pytest.param(place, query, id=f"{place.name}: {query}")  # type: ignore[attr-defined]
    for place in PLACES
    for query in (*place.dialect.forbidden, *place.dialect.trespassing)  # type: ignore[attr-defined]
]


@pytest.mark.parametrize(("place", "query"), FORBIDDEN, indirect=["place"])
async def test_what_is_forbidden_is_refused_and_hurts_nobody(
    place: Place, engine: Engine, query: str
) -> None:
    await done(engine, "INSERT INTO items VALUES (1, 0)")
    before = await events(engine)
    outcomes = await apply(engine, insert(2), operation(query), insert(3), operation(query))
    assert reasons(outcomes) == ["", "STATEMENT_FORBIDDEN", "", "STATEMENT_FORBIDDEN"]
    assert await selected(engine) == [(1, 0), (2, 0), (3, 0)]
    assert len(await events(engine)) == len(before) + 4
    assert (await events(engine))[: len(before)] == before
    # Where it is sent as a read, it may also say that it needs the writer, which refuses it.
    outcome, quick = await read(engine, operation(query), operation("SELECT 1"))
    if outcome is not None:
        assert isinstance(error_of(outcome), StatementForbidden)
    assert quick is not None
    assert quick.error is None
    await engine.close()
    engine = await place.open()
    assert await selected(engine) == [(1, 0), (2, 0), (3, 0)]


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO items VALUES (1, 0); INSERT INTO items VALUES (2, 0)",
        "INSERT INTO items VALUES (1, 0); COMMIT",
        "",
        " ",
        "-- nothing",
        "/* nothing",
        ";",
        "INSERT INTO items VALUES (1, 0)\x00",
    ],
)
async def test_it_is_exactly_one_statement(engine: Engine, query: str) -> None:
    (outcome,) = await apply(engine, operation(query))
    assert isinstance(error_of(outcome), InvalidStatement)
    assert await selected(engine) == []
    assert reasons(await apply(engine, insert(3))) == [""]


async def test_statements_end_with_what_people_end_them_with(engine: Engine) -> None:
    endings = ("", ";", " ; ", ";\n", " -- done", ";  -- done", " /* done */", "\n")
    for number, ending in enumerate(endings):
        outcomes = await apply(engine, operation(f"INSERT INTO items VALUES ({number}, 0){ending}"))
        assert reasons(outcomes) == [""], ending
    assert len(await selected(engine)) == len(endings)
