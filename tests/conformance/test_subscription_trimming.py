"""What named subscriptions hold back of a journal, and what becomes of those too far behind."""

from messagehub.errors import CursorExpired
from storage.core.engine import Engine
from storage.core.extent import Place as At
from storage.core.subscriptions import Acknowledge, Delete, Edge
from tests.conformance.engines import DATABASE, Place
from tests.conformance.operations import CREATE, apply, done, events
from tests.conformance.test_subscriptions import (
    NAME,
    OWNER,
    acknowledge,
    changed,
    changing,
    epoch_of,
    filled,
    opening,
    refusal,
    standing,
    trim,
)


async def kept_sequences(engine: Engine) -> list[int]:
    oldest = (await standing(engine)).journal.oldest_sequence
    return [event.sequence for event in await events(engine, oldest)]


async def test_trimming_waits_for_what_is_not_acknowledged(engine: Engine) -> None:
    await filled(engine, 10)
    await changed(engine, opening(Edge.EARLIEST))
    assert (await trim(engine)).rows == 0
    assert await kept_sequences(engine) == list(range(1, 11))
    await acknowledge(engine, 4)
    trimmed = await trim(engine)
    assert (trimmed.rows, trimmed.oldest_sequence, len(trimmed.cut_off)) == (4, 4, 0)
    assert await kept_sequences(engine) == [5, 6, 7, 8, 9, 10]
    assert (await trim(engine)).oldest_sequence == 4
    await acknowledge(engine, 10)
    assert (await trim(engine)).oldest_sequence == 9


async def test_the_slowest_of_several_decides(engine: Engine) -> None:
    await filled(engine, 10)
    for name, sequence in (("a", 7), ("b", 3), ("c", 5)):
        await changed(engine, opening(Edge.EARLIEST, name=name))
        await acknowledge(engine, sequence, name)
    assert (await trim(engine)).oldest_sequence == 3
    await apply(engine, changing(Delete(OWNER, "b")))
    assert (await trim(engine)).oldest_sequence == 5


async def test_whoever_is_too_many_entries_behind_is_cut_off(place: Place) -> None:
    engine = await place.open(subscription_lag_rows_max=6)
    await done(engine, CREATE)
    for name in (NAME, "quick"):
        await changed(engine, opening(Edge.EARLIEST, name=name))
    await filled(engine, 6)
    assert not (await trim(engine)).cut_off, "it is behind by as much as it may"
    await acknowledge(engine, 2, "quick")
    await done(engine, "INSERT INTO items VALUES (100, 0)")
    trimmed = await trim(engine)
    assert [lost.kept.name for lost in trimmed.cut_off] == [NAME]
    assert trimmed.oldest_sequence == 2, "the other one still holds the rest"
    assert (await standing(engine)).kept.cut_off_us > 0
    assert (await standing(engine, "quick")).kept.cut_off_us == 0
    assert not (await trim(engine)).cut_off, "it is told once"


async def test_whoever_is_behind_for_too_long_is_cut_off(place: Place) -> None:
    engine = await place.open(subscription_lag_seconds_max=1e-6)
    await done(engine, CREATE)
    await filled(engine, 5)
    await changed(engine, opening(Edge.EARLIEST))
    await changed(engine, opening(name="done"))
    trimmed = await trim(engine)
    assert [lost.kept.name for lost in trimmed.cut_off] == [NAME]
    assert trimmed.oldest_sequence == 4
    assert (await standing(engine, "done")).kept.cut_off_us == 0


async def test_nobody_is_cut_off_who_loses_nothing(place: Place) -> None:
    engine = await place.open(subscription_lag_rows_max=1)
    await done(engine, CREATE)
    await filled(engine, 10)
    await changed(engine, opening(Edge.EARLIEST))
    await acknowledge(engine, 5)
    trimmed = await trim(engine, keep_rows=5)
    assert (trimmed.oldest_sequence, len(trimmed.cut_off)) == (5, 0)
    assert (await trim(engine, keep_rows=4)).cut_off


async def cut_off(place: Place) -> Engine:
    """An engine with a subscription that lost the entries up to 9."""
    engine = await place.open(subscription_lag_rows_max=1)
    await done(engine, CREATE)
    await filled(engine, 10)
    await changed(engine, opening(Edge.EARLIEST))
    assert (await trim(engine)).cut_off
    return engine


async def test_whoever_was_cut_off_is_told_whatever_it_does(place: Place) -> None:
    engine = await cut_off(place)
    engine = await (await place.crash(engine)).open()
    epoch = await epoch_of(engine)
    for change in (
        opening(Edge.EARLIEST),
        opening(Edge.LATEST),
        opening(At(epoch, 10)),
        Acknowledge(OWNER, NAME, At(epoch, 10)),
        Acknowledge(OWNER, NAME, At(epoch, 0)),
    ):
        failure = await refusal(engine, change)
        assert isinstance(failure, CursorExpired)
        assert failure.metadata == {"database": DATABASE, "epoch": epoch, "oldest_sequence": "9"}


async def test_whoever_was_cut_off_begins_again_when_it_was_deleted(place: Place) -> None:
    engine = await cut_off(place)
    epoch = await epoch_of(engine)
    await apply(engine, changing(Delete(OWNER, NAME)))
    assert isinstance(await refusal(engine, opening(At(epoch, 8))), CursorExpired)
    assert (await changed(engine, opening(At(epoch, 9)))).place.sequence == 9
    assert (await acknowledge(engine, 10)).place.sequence == 10


async def test_a_held_journal_is_trimmed_in_bounded_pieces(engine: Engine) -> None:
    await filled(engine, 10)
    await changed(engine, opening(Edge.EARLIEST))
    await acknowledge(engine, 5)
    told = [(await trim(engine, at_most=3)).rows for _ in range(3)]
    assert told == [3, 2, 0]
