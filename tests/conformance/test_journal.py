"""The journal: what every write leaves behind, in commit order, and how it is forgotten."""

import time
import uuid

import pytest

from messagehub.errors import CursorExpired
from storage.core.engine import Engine
from tests.conformance.engines import Place
from tests.conformance.operations import (
    CREATE,
    apply,
    apply_all,
    done,
    events,
    insert,
    operation,
    publish,
    read,
)

ALWAYS_US = 2**62
MICROSECONDS = 1_000_000


async def filled(engine: Engine, count: int) -> None:
    """Makes the journal `count` long, with the entry of the table."""
    await done(engine, *(f"INSERT INTO items VALUES ({n}, 0)" for n in range(count - 1)))


async def sequences(engine: Engine, after: int = 0) -> list[int]:
    return [event.sequence for event in await events(engine, after)]


async def test_an_event_tells_what_was_done(place: Place) -> None:
    engine = place.make()
    position = await engine.open()
    await done(engine, CREATE)
    request_id, began = str(uuid.uuid4()), time.time()
    applied = await apply_all(
        engine,
        (
            operation(
                "INSERT INTO items VALUES (7, 1), (8, 2)",
                request_id=request_id,
                correlation_id="why",
                service="campaign",
            ),
            insert(7, correlation_id="why not"),
            publish("campaign.made", b"\x00", correlation_id="because"),
        ),
    )
    completed, failed, published = await events(engine, 1)
    assert applied.events == [completed, failed, published], "live and later they are the same"
    assert completed.type == "storage.operation_completed"
    assert completed.id == f"{completed.subject}/{position.epoch}/2"
    assert (completed.source, completed.correlation_id) == ("campaign", "why")
    assert completed.operation_completed.request_id == request_id
    assert completed.operation_completed.query == "INSERT INTO items VALUES (7, 1), (8, 2)"
    assert completed.operation_completed.rows_affected == 2
    assert completed.operation_completed.last_insert_id == 8
    assert began - 1 < completed.time.ToMicroseconds() / MICROSECONDS < time.time() + 1
    assert failed.type == "storage.operation_failed"
    assert failed.operation_failed.request_id == ""
    assert failed.operation_failed.error.code
    assert (published.type, published.custom) == ("campaign.made", b"\x00")
    assert published.data_content_type == "text/plain"
    assert published.subject == completed.subject


async def test_reads_leave_nothing_behind(engine: Engine) -> None:
    await read(engine, operation("SELECT 1"), operation("SELECT nonsense"))
    assert await sequences(engine) == [1]


async def test_the_journal_is_read_by_parts_from_any_position(engine: Engine) -> None:
    await filled(engine, 10)
    for after in range(12):
        for limit in (1, 3, 100):
            found = [event.sequence for event in await engine.journal(after, limit)]
            assert found == list(range(after + 1, 11))[:limit]


async def test_what_is_old_is_forgotten_but_never_the_newest(engine: Engine) -> None:
    await filled(engine, 10)
    trimmed = await engine.trim(older_than_us=ALWAYS_US, keep_rows=1000, at_most=1000)
    assert (trimmed.rows, trimmed.oldest_sequence) == (9, 9)
    assert await sequences(engine, trimmed.oldest_sequence) == [10]
    trimmed = await engine.trim(older_than_us=ALWAYS_US, keep_rows=0, at_most=1000)
    assert (trimmed.rows, trimmed.oldest_sequence) == (0, 9)
    assert await sequences(engine, 9) == [10]


async def test_what_is_young_is_kept(engine: Engine) -> None:
    await filled(engine, 10)
    hour_ago = int((time.time() - 3600) * MICROSECONDS)
    trimmed = await engine.trim(older_than_us=hour_ago, keep_rows=1000, at_most=1000)
    assert (trimmed.rows, trimmed.oldest_sequence) == (0, 0)
    assert await sequences(engine) == list(range(1, 11))


@pytest.mark.parametrize(("keep", "kept"), [(0, 1), (1, 1), (4, 4), (9, 9), (10, 10), (11, 10)])
async def test_what_is_too_much_is_forgotten(engine: Engine, keep: int, kept: int) -> None:
    await filled(engine, 10)
    trimmed = await engine.trim(older_than_us=0, keep_rows=keep, at_most=1000)
    assert trimmed.rows == 10 - kept
    assert await sequences(engine, trimmed.oldest_sequence) == list(range(11 - kept, 11))


async def test_a_trim_is_bounded_so_that_writers_get_their_turn(engine: Engine) -> None:
    await filled(engine, 10)
    told = []
    for _ in range(5):
        trimmed = await engine.trim(older_than_us=ALWAYS_US, keep_rows=1000, at_most=4)
        told.append((trimmed.rows, trimmed.oldest_sequence))
    assert told == [(4, 4), (4, 8), (1, 9), (0, 9), (0, 9)]


async def test_an_empty_journal_can_be_trimmed(place: Place) -> None:
    engine = await place.open()
    trimmed = await engine.trim(older_than_us=ALWAYS_US, keep_rows=0, at_most=4)
    assert (trimmed.rows, trimmed.oldest_sequence) == (0, 0)


async def test_a_position_that_was_forgotten_is_refused_not_skipped(engine: Engine) -> None:
    await filled(engine, 10)
    await engine.trim(older_than_us=ALWAYS_US, keep_rows=1000, at_most=4)
    with pytest.raises(CursorExpired) as caught:
        await engine.journal(3, 100)
    assert caught.value.metadata["oldest_sequence"] == "4"
    assert caught.value.metadata["epoch"]
    assert await sequences(engine, 4) == [5, 6, 7, 8, 9, 10]


async def test_a_request_id_that_was_forgotten_is_new_again(engine: Engine) -> None:
    request_id = str(uuid.uuid4())
    await apply(engine, operation("UPDATE items SET n = 1", request_id=request_id))
    await filled(engine, 3)
    await engine.trim(older_than_us=ALWAYS_US, keep_rows=1000, at_most=1000)
    assert await engine.recorded(request_id) is None
    (again,) = await apply(engine, operation("UPDATE items SET n = 1", request_id=request_id))
    assert not again.replayed


async def test_a_long_statement_is_kept_cut(engine: Engine) -> None:
    query = f"INSERT INTO items VALUES (1, 0) -- {'é' * 5000}"
    await apply(engine, operation(query))
    (event,) = await events(engine, 1)
    kept = event.operation_completed.query
    assert query.startswith(kept)
    assert 0 < len(kept) <= 1024
