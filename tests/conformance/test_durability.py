"""Order and sequences, and what is left after a restart or a crash."""

import pytest

from messagehub.errors import DatabaseNotEmpty, DatabaseUnavailable, InvalidRequest, StorageFull
from storage.core.engine import Engine
from tests.conformance.engines import Place
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

REQUEST_ID = "0190a000-0000-7000-8000-000000000001"


async def test_a_new_database_stands_at_the_beginning_of_a_new_epoch(place: Place) -> None:
    engine = place.make()
    position = await engine.open()
    assert position.epoch
    assert (position.sequence, position.oldest_sequence) == (0, 0)
    assert await events(engine) == []


async def test_sequences_grow_by_the_order_of_effect_and_skip_what_was_not_recorded(
    engine: Engine,
) -> None:
    outcomes = await apply(
        engine, insert(1), insert(2, cancelled=True), insert(1), insert(3, deadline=0.0), insert(4)
    )
    assert [outcome.sequence for outcome in outcomes] == [2, 0, 3, 0, 4]
    (next_one,) = await apply(engine, insert(5))
    assert next_one.sequence == 5
    assert [event.sequence for event in await events(engine)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("crash", [True, False], ids=["crash", "restart"])
async def test_everything_that_was_acknowledged_is_there_afterwards(
    place: Place, crash: bool
) -> None:
    engine = place.make()
    before = await engine.open()
    await done(engine, CREATE)
    for number in range(300):
        await apply(engine, insert(number, n=number))
    told = await events(engine)
    if crash:
        place = await place.crash(engine)
    else:
        await engine.close()
    engine = place.make()
    position = await engine.open()
    assert position.epoch == before.epoch
    assert (position.sequence, position.oldest_sequence) == (301, 0)
    assert await selected(engine) == [(n, n) for n in range(300)]
    assert await events(engine) == told
    (outcome,) = await apply(engine, insert(1000))
    assert outcome.sequence == 302


async def test_sequences_are_not_used_again_after_everything_was_trimmed_and_lost(
    place: Place,
) -> None:
    engine = await place.open()
    await done(engine, CREATE, *(f"INSERT INTO items VALUES ({n}, 0)" for n in range(9)))
    await engine.trim(older_than_us=2**62, keep_rows=1, at_most=1000)
    place = await place.crash(engine)
    engine = place.make()
    position = await engine.open()
    assert (position.sequence, position.oldest_sequence) == (10, 9)
    (outcome,) = await apply(engine, insert(1000))
    assert outcome.sequence == 11


async def test_a_group_that_takes_too_long_is_ended_early_and_the_rest_not_begun(
    place: Place,
) -> None:
    engine = await place.open(group_seconds_max=1e-9)
    await done(engine, CREATE)
    group = [insert(number) for number in range(5)]
    applied = await engine.apply(group)
    assert len(applied.outcomes) == 1, "the first is always done"
    assert await selected(engine) == [(0, 0)]
    assert applied.sequence == 2
    assert [event.sequence for event in applied.events] == [2]


async def test_a_database_has_one_owner(place: Place) -> None:
    engine = await place.open()
    await done(engine, CREATE)
    second = place.make()
    with pytest.raises(DatabaseUnavailable) as caught:
        await second.open()
    assert "own" in caught.value.message
    assert caught.value.retry_after
    await second.close()
    assert reasons(await apply(engine, insert(1))) == [""], "the owner does not even notice"
    await engine.close()
    await second.open()
    assert await selected(second) == [(1, 0)]


async def test_an_empty_database_adopts_a_file_and_keeps_its_journal(place: Place) -> None:
    engine = place.make()
    before = await engine.open()
    # A journal that is not empty, in a database that is.
    (made,) = await apply(engine, operation(CREATE, request_id=REQUEST_ID))
    await done(engine, "DROP TABLE items")
    await apply(engine, publish("character.levelled_up", b"7"))
    told = await events(engine)
    assert await engine.adopt(place.adoptable()) == ["adopted"]
    assert await selected(engine, "SELECT n FROM adopted") == [(42,)]
    assert await events(engine) == told
    (again,) = await apply(engine, operation(CREATE, request_id=REQUEST_ID))
    assert (again.replayed, again.sequence) == (True, made.sequence), "outcomes stay"
    (outcome,) = await apply(engine, operation("INSERT INTO adopted VALUES (43)"))
    assert outcome.sequence == len(told) + 1, "no sequence is used twice"
    await engine.close()
    engine = place.make()
    after = await engine.open()
    assert after.epoch == before.epoch, "cursors from before stay good"
    assert after.sequence == outcome.sequence
    assert (await events(engine))[:-1] == told
    assert await selected(engine, "SELECT n FROM adopted") == [(42,), (43,)]


async def test_an_adoption_survives_the_loss_of_power(place: Place) -> None:
    engine = await place.open()
    await done(engine, CREATE, "DROP TABLE items")
    told = await events(engine)
    await engine.adopt(place.adoptable())
    engine = await (await place.crash(engine)).open()
    assert await selected(engine, "SELECT n FROM adopted") == [(42,)]
    assert await events(engine) == told


async def test_a_file_that_does_not_fit_beside_the_journal_is_not_adopted(place: Place) -> None:
    engine = await place.open(database_bytes_max=200_000)
    await done(engine, CREATE, "DROP TABLE items")
    await apply(engine, publish("character.levelled_up", b"x" * 100_000))
    told = await events(engine)
    file = place.adoptable(size_bytes=120_000)
    with pytest.raises(StorageFull):
        await engine.adopt(file)
    assert await events(engine) == told
    await done(engine, CREATE)


async def test_a_database_with_tables_adopts_nothing(place: Place, engine: Engine) -> None:
    await done(engine, "INSERT INTO items VALUES (1, 0)")
    with pytest.raises(DatabaseNotEmpty):
        await engine.adopt(place.adoptable())
    assert await selected(engine) == [(1, 0)]
    assert reasons(await apply(engine, insert(2))) == [""]


async def test_what_is_no_database_is_not_adopted(place: Place) -> None:
    engine = await place.open()
    file = place.adoptable()
    content = file.read_bytes()
    file.write_bytes(b"no database at all, only text. " * 400)
    with pytest.raises(InvalidRequest):
        await engine.adopt(file)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidRequest):
        await engine.adopt(file)
    await done(engine, CREATE)


async def test_an_engine_that_could_not_open_can_be_closed(place: Place) -> None:
    engine = await place.open()
    second = place.make()
    with pytest.raises(DatabaseUnavailable):
        await second.open()
    await second.close()
    await second.close()
    await done(engine, CREATE)
