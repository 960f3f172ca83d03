"""Named subscriptions: where they stand, who reads for them, and what outlives a crash."""

import math
from dataclasses import replace

import pytest

from messagehub.errors import CursorEpochChanged, CursorExpired, HubError
from storage.core.engine import Engine, Trimmed
from storage.core.extent import Place as At
from storage.core.operation import Operation
from storage.core.subscriptions import (
    Acknowledge,
    Change,
    Delete,
    Edge,
    Hold,
    Open,
    Standing,
    Subscription,
)
from tests.conformance.engines import DATABASE, Place
from tests.conformance.operations import (
    CREATE,
    apply,
    apply_all,
    done,
    error_of,
    events,
    insert,
    operation,
    reasons,
)

OWNER = "character"
NAME = "billing"
HOUR_US = 3_600_000_000
# Over by the time that anybody looks.
INSTANT_US = 1
ALWAYS_US = 2**62


def changing(change: Change, deadline: float = math.inf) -> Operation:
    return Operation(
        source_service=change.source_service,
        correlation_id="c",
        request_id="",
        deadline=deadline,
        deliver=lambda _: None,
        subscription=change,
    )


def opening(begin: Edge | At = Edge.LATEST, **fields: object) -> Open:
    plain = Open(OWNER, NAME, (DATABASE,), begin, "stream", "", 0)
    return replace(plain, **fields)  # type: ignore[arg-type]


async def changed(engine: Engine, change: Change) -> Subscription:
    (outcome,) = await apply(engine, changing(change))
    assert outcome.error is None, outcome.error
    assert outcome.subscription is not None
    return outcome.subscription


async def refusal(engine: Engine, change: Change) -> HubError:
    (outcome,) = await apply(engine, changing(change))
    assert outcome.subscription is None
    return error_of(outcome)


async def epoch_of(engine: Engine) -> str:
    kept = await changed(engine, opening(name="asker"))
    await apply(engine, changing(Delete(OWNER, "asker")))
    return kept.place.epoch


async def acknowledge(engine: Engine, sequence: int, name: str = NAME) -> Subscription:
    return await changed(engine, Acknowledge(OWNER, name, At(await epoch_of(engine), sequence)))


async def standing(engine: Engine, name: str = NAME) -> Standing:
    (found,) = await engine.subscriptions(OWNER, name)
    return found


async def filled(engine: Engine, count: int) -> None:
    """Makes the journal `count` long, with the entry of the table."""
    await done(engine, *(f"INSERT INTO items VALUES ({n}, 0)" for n in range(count - 1)))


async def trim(engine: Engine, keep_rows: int = 1, at_most: int = 1000) -> Trimmed:
    return await engine.trim(older_than_us=0, keep_rows=keep_rows, at_most=at_most)


# Where a subscription stands.


@pytest.mark.parametrize(("begin", "sequence"), [(Edge.LATEST, 10), (Edge.EARLIEST, 4)])
async def test_a_new_one_begins_where_it_is_told(
    engine: Engine, begin: Edge, sequence: int
) -> None:
    await filled(engine, 10)
    await trim(engine, keep_rows=6)
    assert (await changed(engine, opening(begin))).place.sequence == sequence


async def test_a_new_one_begins_at_a_position_of_this_journal(engine: Engine) -> None:
    await filled(engine, 10)
    await trim(engine, keep_rows=6)
    epoch = await epoch_of(engine)
    for sequence in (4, 7, 10):
        assert (await changed(engine, opening(At(epoch, sequence), name=f"n{sequence}"))).place == (
            epoch,
            sequence,
        )
    assert isinstance(await refusal(engine, opening(At(epoch, 3))), CursorExpired)
    assert isinstance(await refusal(engine, opening(At(epoch, 11))), CursorEpochChanged)
    failure = await refusal(engine, opening(At("other", 5)))
    assert isinstance(failure, CursorEpochChanged)
    assert failure.metadata == {"database": DATABASE, "epoch": epoch, "oldest_sequence": "4"}
    assert await engine.subscriptions(OWNER, NAME) == []


async def test_a_known_one_goes_on_where_it_was_acknowledged(engine: Engine) -> None:
    await filled(engine, 10)
    await changed(engine, opening(Edge.EARLIEST))
    await acknowledge(engine, 6)
    epoch = await epoch_of(engine)
    for begin in (Edge.EARLIEST, Edge.LATEST, At(epoch, 2), At("other", 99)):
        assert (await changed(engine, opening(begin))).place == (epoch, 6)


async def test_latest_is_after_the_writes_before_it_and_before_those_after_it(
    engine: Engine,
) -> None:
    applied = await apply_all(engine, (insert(1), changing(opening()), insert(2)))
    assert reasons(applied.outcomes) == ["", "", ""]
    made = applied.outcomes[1].subscription
    assert made is not None
    assert made.place.sequence == applied.outcomes[0].sequence
    assert [event.sequence for event in applied.events] == [2, 3]
    assert applied.outcomes[2].sequence == 3


async def test_earliest_in_a_new_journal_is_before_what_the_same_group_writes(
    place: Place,
) -> None:
    engine = await place.open()
    created, opened = await apply(engine, operation(CREATE), changing(opening(Edge.EARLIEST)))
    assert created.sequence == 1
    assert opened.subscription is not None
    assert opened.subscription.place.sequence == 0


async def test_they_leave_no_events(engine: Engine) -> None:
    await changed(engine, opening(Edge.EARLIEST, lease_us=HOUR_US))
    await acknowledge(engine, 1)
    await changed(engine, Hold(OWNER, NAME, "stream", 0))
    await apply(engine, changing(Delete(OWNER, NAME)))
    assert [event.sequence for event in await events(engine)] == [1]


async def test_acknowledging_moves_on_and_never_back(engine: Engine) -> None:
    await filled(engine, 10)
    made = await changed(engine, opening(Edge.EARLIEST))
    assert made.acknowledged_us == 0
    first = await acknowledge(engine, 6)
    assert first.place.sequence == 6
    assert first.acknowledged_us >= made.created_us
    for older in (6, 5, 0):
        assert await acknowledge(engine, older) == first
    assert (await acknowledge(engine, 10)).place.sequence == 10


async def test_what_cannot_have_been_handled_is_refused(engine: Engine) -> None:
    await filled(engine, 10)
    await changed(engine, opening(Edge.EARLIEST))
    epoch = await epoch_of(engine)
    for ahead in (At(epoch, 11), At("other", 1), At("", 1)):
        failure = await refusal(engine, Acknowledge(OWNER, NAME, ahead))
        assert isinstance(failure, CursorEpochChanged)
        assert failure.metadata["epoch"] == epoch
    assert (await standing(engine)).kept.place.sequence == 0


async def test_a_refused_change_leaves_the_others_of_its_group_alone(engine: Engine) -> None:
    outcomes = await apply(
        engine,
        insert(1),
        changing(Acknowledge(OWNER, NAME, At("other", 1))),
        changing(opening(), deadline=0.0),
        changing(opening(name="fine")),
        insert(2),
    )
    assert reasons(outcomes) == ["", "SUBSCRIPTION_NOT_FOUND", "DEADLINE_EXCEEDED", "", ""]
    assert [found.kept.name for found in await engine.subscriptions(OWNER, "")] == ["fine"]


async def test_a_change_survives_that_its_group_is_lost(place: Place, engine: Engine) -> None:
    await done(engine, "INSERT INTO items VALUES (1, 0)")
    preparations, spoiling = place.dialect.spoiling[0]
    await done(engine, *preparations)
    (first, culprit, second) = await apply(
        engine,
        changing(opening(name="first")),
        replace_statement(insert(9), spoiling),
        changing(opening(name="second")),
    )
    assert culprit.error is not None
    assert reasons([first, second]) == ["", ""]
    found = [one.kept.name for one in await engine.subscriptions(OWNER, "")]
    assert found == ["first", "second"]


def replace_statement(operation: Operation, query: str) -> Operation:
    assert operation.statement is not None
    operation.statement.query = query
    return operation


# What outlives what.


async def test_what_was_answered_survives_the_loss_of_power(place: Place, engine: Engine) -> None:
    await filled(engine, 10)
    await changed(engine, opening(Edge.EARLIEST, lease_us=HOUR_US, consumer="me"))
    last = await acknowledge(engine, 7)
    engine = await (await place.crash(engine)).open()
    assert (await standing(engine)).kept == last
    assert last.consumer == "me"


async def test_a_deletion_survives_the_loss_of_power(place: Place, engine: Engine) -> None:
    await changed(engine, opening())
    (outcome,) = await apply(engine, changing(Delete(OWNER, NAME)))
    assert reasons([outcome]) == [""]
    engine = await (await place.crash(engine)).open()
    assert await engine.subscriptions(OWNER, "") == []


async def test_they_stay_when_another_file_takes_the_databases_place(place: Place) -> None:
    engine = await place.open()
    await apply(engine, *(changing(opening(name=name)) for name in ("behind", "done")))
    await done(engine, CREATE, "DROP TABLE items")
    await acknowledge(engine, 2, "done")
    before = await engine.subscriptions(OWNER, "")
    await engine.adopt(place.adoptable())
    after = await engine.subscriptions(OWNER, "")
    assert [one.kept for one in after] == [one.kept for one in before]
    assert after[0].journal.epoch == before[0].journal.epoch


# Who may read for a name.


async def test_one_stream_at_a_time_holds_a_name(engine: Engine) -> None:
    await changed(engine, opening(holder="a", consumer="first", lease_us=HOUR_US))
    for other in (opening(holder="b", lease_us=HOUR_US), opening(holder="b", consumer="second")):
        failure = await refusal(engine, other)
        assert failure.reason == "SUBSCRIPTION_IN_USE"
        assert failure.metadata == {"consumer": "first"}
        assert failure.retry_after is not None
        assert 0 < failure.retry_after <= 3600
    assert (await refusal(engine, Delete(OWNER, NAME))).reason == "SUBSCRIPTION_IN_USE"
    assert (await refusal(engine, Hold(OWNER, NAME, "b", HOUR_US))).reason == "SUBSCRIPTION_IN_USE"
    assert (await refusal(engine, Hold(OWNER, NAME, "b", 0))).reason == "SUBSCRIPTION_IN_USE"
    assert (await standing(engine)).kept.holder == "a"


async def test_a_consumer_takes_over_from_itself(engine: Engine) -> None:
    await changed(engine, opening(holder="a", consumer="me", lease_us=HOUR_US))
    await changed(engine, opening(holder="b", consumer="me", lease_us=HOUR_US))
    assert (await refusal(engine, Hold(OWNER, NAME, "a", HOUR_US))).reason == "SUBSCRIPTION_IN_USE"
    assert (await refusal(engine, Hold(OWNER, NAME, "a", 0))).reason == "SUBSCRIPTION_IN_USE"
    assert (await standing(engine)).kept.holder == "b"
    await changed(engine, Hold(OWNER, NAME, "b", HOUR_US))


async def test_a_lease_that_is_given_up_is_free_at_once(engine: Engine) -> None:
    await changed(engine, opening(holder="a", lease_us=HOUR_US))
    await changed(engine, Hold(OWNER, NAME, "a", 0))
    now = (await standing(engine)).journal.now_us
    assert (await standing(engine)).kept.lease_left_us(now) == 0
    await changed(engine, opening(holder="b", lease_us=HOUR_US))


async def test_a_lease_that_nobody_prolongs_ends(engine: Engine) -> None:
    await changed(engine, opening(holder="a", lease_us=INSTANT_US))
    await changed(engine, Hold(OWNER, NAME, "a", INSTANT_US))
    await changed(engine, opening(holder="b", lease_us=INSTANT_US))
    assert (await refusal(engine, Hold(OWNER, NAME, "a", HOUR_US))).reason == "SUBSCRIPTION_IN_USE"
    (outcome,) = await apply(engine, changing(Delete(OWNER, NAME)))
    assert reasons([outcome]) == [""]


async def test_names_belong_to_their_service(engine: Engine) -> None:
    await filled(engine, 3)
    await changed(engine, opening(Edge.EARLIEST, lease_us=HOUR_US))
    await changed(engine, opening(source_service="auth", lease_us=HOUR_US))
    (mine,) = await engine.subscriptions(OWNER, "")
    (theirs,) = await engine.subscriptions("auth", "")
    assert (mine.kept.place.sequence, theirs.kept.place.sequence) == (0, 3)
    assert await engine.subscriptions("metrics", "") == []
    assert (await refusal(engine, Delete("metrics", NAME))).reason == "SUBSCRIPTION_NOT_FOUND"


async def test_what_is_not_there_is_not_found(engine: Engine) -> None:
    for change in (
        Acknowledge(OWNER, NAME, At("e", 0)),
        Hold(OWNER, NAME, "a", HOUR_US),
        Delete(OWNER, NAME),
    ):
        assert (await refusal(engine, change)).reason == "SUBSCRIPTION_NOT_FOUND"


async def test_there_is_a_limit_to_how_many_are_kept(place: Place) -> None:
    engine = await place.open(subscriptions_max=2)
    await changed(engine, opening(name="a"))
    await changed(engine, opening(name="b"))
    failure = await refusal(engine, opening(name="c"))
    assert (failure.reason, failure.metadata) == ("QUEUE_FULL", {"limit": "2"})
    await changed(engine, opening(name="b", holder="again"))


async def test_the_databases_that_it_reads_only_grow(engine: Engine) -> None:
    await changed(engine, opening(databases=("b_db", DATABASE)))
    assert (await changed(engine, opening())).databases == ("b_db", DATABASE)
    grown = await changed(engine, opening(databases=("a_db", DATABASE)))
    assert grown.databases == ("a_db", "b_db", DATABASE)


# How far behind.


async def test_the_lag_is_told_by_the_clock(engine: Engine) -> None:
    await filled(engine, 5)
    await changed(engine, opening(Edge.EARLIEST))
    behind = await standing(engine)
    waiting = events_by_sequence(await events(engine))[1]
    assert behind.journal.newest_sequence - behind.kept.place.sequence == 5
    assert behind.lag_us == behind.journal.now_us - waiting
    assert (await standing(engine)).lag_us > behind.lag_us, "it grows while nothing happens"
    await acknowledge(engine, 5)
    assert (await standing(engine)).lag_us == 0


def events_by_sequence(found: list) -> dict[int, int]:  # type: ignore[type-arg]
    return {event.sequence: event.time.ToMicroseconds() for event in found}
