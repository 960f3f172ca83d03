"""A part of a transaction is all or nothing, prepared for good, and the same when it runs again."""

import uuid
from pathlib import Path

import pytest

from messagehub.errors import (
    ConstraintViolation,
    HubError,
    MessageTooLarge,
    RequestIdReused,
    TransactionExpired,
)
from messagehub.storage.v1.participant_service_pb2 import (
    ParticipantState,
    TransactionHeader,
    TransactionRecord,
)
from messagehub.v1.event_pb2 import Event
from storage.core.engine import Engine, EngineLost
from storage.core.operation import Operation
from storage.core.transactions.engine_part import Ending, Step, Whole
from tests.conformance.engines import Place
from tests.conformance.operations import CREATE, apply, done, error_of, events, selected
from tests.conformance.transaction_parts import (
    CLOCK_US,
    DATABASE,
    HOME,
    advance,
    control,
    decision,
    header,
    of,
)

COMMITTED = ParticipantState.PARTICIPANT_STATE_COMMITTED
ROLLED_BACK = ParticipantState.PARTICIPANT_STATE_ROLLED_BACK
INSERT = "INSERT INTO items VALUES (1, 1)"
PUBLISHED = Event(type="item.made", data_content_type="text/plain", custom=b"1")


def ending(to: TransactionHeader, **more: object) -> Operation:
    made = control()
    record = TransactionRecord(header=to, state=ROLLED_BACK)
    made.transaction = Ending(record, **more)  # type: ignore[arg-type]
    return made


def whole(to: TransactionHeader, *queries: str, request_id: str = "") -> Operation:
    made = control()
    made.transaction = Whole(to, of(*queries), [PUBLISHED], decision(request_id=request_id))
    return made


async def test_what_is_prepared_is_unseen_until_it_is_committed(engine: Engine) -> None:
    to = header()
    prepared = await advance(engine, to, "INSERT INTO items VALUES (1, 7)", events=(PUBLISHED,))
    assert await selected(engine) == []
    committed = await engine.transactions.commit(forced=False)
    await engine.transactions.forget()
    assert await selected(engine) == [(1, 7)]
    assert committed.record is not None
    assert committed.record.state == COMMITTED
    assert prepared.sequence == committed.sequence == 4


async def test_its_events_follow_each_other_and_bear_its_name(engine: Engine) -> None:
    to = header()
    await advance(engine, to, "INSERT INTO items VALUES (1, 7)", "SELECT 1", events=(PUBLISHED,))
    committed = await engine.transactions.commit(forced=False)
    journal = (await events(engine))[1:]
    assert [event.type for event in journal] == [
        "storage.operation_completed",
        "item.made",
        "transaction.committed",
    ]
    assert {event.transaction_id for event in journal} == {to.transaction_id}
    assert [event.sequence for event in journal] == [2, 3, 4]
    assert list(journal[-1].transaction_finished.databases) == [DATABASE, HOME]
    assert committed.applied is not None
    assert committed.applied.events == journal


async def test_a_statement_that_fails_on_the_way_to_prepare_undoes_the_part(engine: Engine) -> None:
    with pytest.raises(ConstraintViolation) as failed:
        await advance(engine, header(), INSERT, INSERT)
    assert failed.value.metadata["operation"] == "1"
    assert not engine.transactions.is_open
    assert await selected(engine) == []


async def test_a_statement_that_fails_in_an_open_part_undoes_itself_alone(engine: Engine) -> None:
    to = header()
    await advance(engine, to, INSERT, step=Step.STAY_OPEN)
    with pytest.raises(ConstraintViolation):
        await advance(
            engine, to, "INSERT INTO items VALUES (2, 2), (1, 1)", step=Step.STAY_OPEN, begins=False
        )
    assert engine.transactions.is_open
    await advance(engine, to, "INSERT INTO items VALUES (3, 3)", step=Step.COMMIT, begins=False)
    assert await selected(engine) == [(1, 1), (3, 3)]


async def test_the_home_records_participants_and_results(engine: Engine) -> None:
    to, request_id = header(home=DATABASE), str(uuid.uuid4())
    decided = await advance(
        engine,
        to,
        "INSERT INTO items VALUES (1, 1) RETURNING id",
        step=Step.COMMIT,
        decision=decision("other_db", request_id=request_id),
    )
    for known in (
        await engine.transactions.look_up(to.transaction_id),
        await engine.transactions.look_up("", request_id),
    ):
        assert known is not None
        assert known.state == COMMITTED
        assert [one.database for one in known.participants] == ["other_db"]
        assert list(known.results) == decided.results
        assert known.sequence == decided.sequence
        assert known.header.seed == b""


async def test_a_request_id_is_decided_once(engine: Engine) -> None:
    request_id = str(uuid.uuid4())
    first, again = header(home=DATABASE), header(home=DATABASE)
    decided = await advance(
        engine, first, INSERT, step=Step.COMMIT, decision=decision(request_id=request_id)
    )
    replayed = await advance(
        engine, again, INSERT, step=Step.COMMIT, decision=decision(request_id=request_id)
    )
    assert replayed.replayed
    assert replayed.record is not None
    assert replayed.record.header.transaction_id == first.transaction_id
    assert replayed.results == decided.results
    other = decision(request_id=request_id)
    other.fingerprint = b"something else"
    with pytest.raises(RequestIdReused):
        await advance(engine, again, INSERT, step=Step.COMMIT, decision=other)
    assert not engine.transactions.is_open


async def test_a_transaction_that_ended_never_begins_again(engine: Engine) -> None:
    late, twice = header(), header(home=DATABASE)
    (outcome,) = await apply(engine, ending(late, error=TransactionExpired("given up")))
    assert outcome.error is None
    with pytest.raises(TransactionExpired, match="given up"):
        await advance(engine, late, INSERT)
    await advance(engine, twice, "INSERT INTO items VALUES (2, 2)", step=Step.COMMIT)
    again = await advance(engine, twice, "INSERT INTO items VALUES (3, 3)", step=Step.COMMIT)
    assert again.record is not None
    assert again.record.state == COMMITTED
    assert await selected(engine) == [(2, 2)]


async def test_an_end_is_written_once(engine: Engine) -> None:
    to = header(home=DATABASE)
    await advance(engine, to, INSERT, step=Step.COMMIT)
    before = await events(engine)
    (outcome,) = await apply(engine, ending(to))
    assert outcome.advanced is not None
    assert outcome.advanced.record is not None
    assert outcome.advanced.record.state == COMMITTED
    assert await events(engine) == before


async def test_a_whole_transaction_shares_the_commit_of_its_group(engine: Engine) -> None:
    request_id = str(uuid.uuid4())
    to, failing = header(home=DATABASE), header(home=DATABASE)
    outcomes = await apply(
        engine,
        whole(to, INSERT, "UPDATE items SET n = 9", request_id=request_id),
        whole(failing, "INSERT INTO items VALUES (2, 2)", INSERT),
        whole(header(home=DATABASE), "INSERT INTO items VALUES (5, 5)", request_id=request_id),
    )
    assert isinstance(error_of(outcomes[1]), ConstraintViolation)
    assert error_of(outcomes[1]).metadata["operation"] == "1"
    assert outcomes[2].advanced is not None
    assert outcomes[2].advanced.replayed
    assert await selected(engine) == [(1, 9)]
    recorded = await engine.transactions.look_up(failing.transaction_id)
    assert recorded is not None
    assert recorded.state == ROLLED_BACK
    assert [event.type for event in (await events(engine))[1:]] == [
        "storage.operation_completed",
        "storage.operation_completed",
        "item.made",
        "transaction.committed",
        "transaction.rolled_back",
    ]


async def test_a_snapshot_stays_as_it_was(engine: Engine) -> None:
    await done(engine, INSERT)
    snapshot = await engine.transactions.pin()
    await done(engine, "INSERT INTO items VALUES (2, 2)")
    (counted,) = await snapshot.run(of("SELECT count(*) FROM items"), control())
    assert counted.result.rows[0].values[0].integer == 1
    assert counted.sequence == snapshot.sequence == 2
    with pytest.raises(HubError, match="reading"):
        await snapshot.run(of("DELETE FROM items"), control())
    await snapshot.close()
    assert len(await selected(engine)) == 2


async def test_a_trigger_may_fill_a_full_text_index_on_every_path(engine: Engine) -> None:
    await done(
        engine,
        "CREATE VIRTUAL TABLE texts USING fts5 (body)",
        """CREATE TRIGGER filled AFTER INSERT ON items BEGIN
            INSERT INTO texts VALUES ('number ' || new.id); END""",
        INSERT,
    )
    await advance(engine, header(), "INSERT INTO items VALUES (2, 2)", step=Step.COMMIT)
    assert await selected(engine, "SELECT body FROM texts") == [("number 1",), ("number 2",)]


# What makes a redo differ unless time and chance are recorded, and what SQLite keeps beside rows.
SCHEMA = (
    """CREATE TABLE moments (id INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT DEFAULT CURRENT_TIMESTAMP, day TEXT DEFAULT CURRENT_DATE,
        hour TEXT DEFAULT CURRENT_TIME, chance DEFAULT (random()),
        bytes BLOB DEFAULT (randomblob(16)), of_at TEXT GENERATED ALWAYS AS (date(at)) STORED)""",
    "CREATE INDEX by_day ON moments (strftime('%Y', at))",
    "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
    "CREATE TABLE children (id INTEGER PRIMARY KEY, parent REFERENCES parents ON DELETE CASCADE)",
    "CREATE TABLE keyed (k TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID",
    "CREATE TABLE log (what TEXT, at REAL)",
    """CREATE TRIGGER logged AFTER INSERT ON moments BEGIN
        INSERT INTO log VALUES ('made ' || new.id, julianday('now')); END""",
    "CREATE VIRTUAL TABLE texts USING fts5 (body)",
    "INSERT INTO parents VALUES (1), (2)",
    "INSERT INTO children VALUES (1, 1), (2, 1), (3, 2)",
)
CHANGES = (
    "INSERT INTO moments DEFAULT VALUES RETURNING *",
    "INSERT INTO moments (at) VALUES (datetime('now', '+1 day')), (datetime()), (time('now'))",
    "INSERT INTO log SELECT 'last ' || last_insert_rowid(), unixepoch()",
    "INSERT INTO log VALUES (hex(randomblob(8)), random())",
    "DELETE FROM parents WHERE id = 1",
    "INSERT INTO keyed VALUES ('a', 1), ('b', 2) ON CONFLICT (k) DO UPDATE SET n = n + 1",
    "INSERT INTO keyed VALUES ('a', 5) ON CONFLICT (k) DO UPDATE SET n = n + excluded.n",
    "INSERT INTO texts VALUES ('the quick brown fox'), ('a lazy dog')",
    ("INSERT INTO log VALUES ('large', ?)", b"\x00\xff" * 500_000),
    "UPDATE moments SET chance = random() WHERE id > 2",
    "CREATE TABLE made_within (at TEXT DEFAULT CURRENT_TIMESTAMP, total)",
    "INSERT INTO made_within (total) VALUES (total_changes())",
    "SELECT count(*), strftime('%s', 'now') FROM moments ORDER BY random()",
)
TABLES = ("moments", "parents", "children", "keyed", "log", "texts", "made_within")


async def contents(engine: Engine) -> list[object]:
    return [await selected(engine, f"SELECT * FROM {table}") for table in TABLES]


async def test_a_redo_after_a_crash_gives_the_very_same(place: Place, tmp_path: Path) -> None:
    """The same transaction once without and once with a crash after it was prepared."""
    engine = await place.open()
    await done(engine, *SCHEMA)
    calm = type(place)(tmp_path / "calm")  # type: ignore[call-arg]
    undisturbed = await calm.open()
    await done(undisturbed, *SCHEMA)
    to = header(create_time_us=CLOCK_US)

    expected = await advance(undisturbed, to, *CHANGES, events=(PUBLISHED,))
    await undisturbed.transactions.commit(forced=False)

    prepared = await advance(engine, to, *CHANGES, events=(PUBLISHED,))
    assert prepared.results == expected.results
    left = await place.crash(engine)
    again = await left.open()
    recovered = await again.transactions.recover()
    assert recovered is not None
    assert recovered.header == to
    assert recovered.advanced.sequence == prepared.sequence
    await again.transactions.commit(forced=False)
    await again.transactions.forget()
    assert await contents(again) == await contents(undisturbed)
    assert await again.transactions.recover() is None
    await calm.close()


# After a statement that fails, nothing of it may be seen by those that follow: they run again
# without it.
FAILING = (
    ("INSERT INTO items VALUES (1, 1)", "SELECT changes(), total_changes(), last_insert_rowid()"),
    (
        "INSERT OR FAIL INTO items VALUES (7, 7), (1, 1)",
        "INSERT INTO items VALUES (50 + changes(), last_insert_rowid()) RETURNING *",
    ),
    (
        "INSERT INTO items VALUES (1, 1)",
        "INSERT INTO items VALUES (60 + total_changes(), total_changes()) RETURNING *",
    ),
    ("nonsense", "INSERT INTO items SELECT 70, strftime('%s', x'6e6f77') RETURNING *"),
)


@pytest.mark.parametrize(("failing", "following"), FAILING)
async def test_a_redo_is_the_same_without_what_failed(
    place: Place, tmp_path: Path, failing: str, following: str
) -> None:
    to = header()

    async def prepare(at: Place) -> Engine:
        engine = await at.open()
        await done(engine, CREATE)
        await advance(engine, to, INSERT, "INSERT INTO items VALUES (2, 2)", step=Step.STAY_OPEN)
        for query in (failing, following, failing):
            try:
                await advance(engine, to, query, step=Step.STAY_OPEN, begins=False)
            except HubError:
                assert query == failing
        await advance(engine, to, begins=False)
        return engine

    calm = type(place)(tmp_path / "calm")  # type: ignore[call-arg]
    undisturbed = await prepare(calm)
    await undisturbed.transactions.commit(forced=False)
    left = await place.crash(await prepare(place))
    again = await left.open()
    assert await again.transactions.recover() is not None
    await again.transactions.commit(forced=False)
    assert await selected(again) == await selected(undisturbed)
    await calm.close()


async def test_a_redo_may_take_longer_than_a_statement_may(place: Place) -> None:
    engine = await place.open()
    await done(engine, CREATE)
    count = "INSERT INTO items WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c"
    await advance(engine, header(), f"{count} LIMIT 300000) SELECT n, n FROM c")
    left = await place.crash(engine)
    again = await left.open(write_seconds_max=0.001)
    assert await again.transactions.recover() is not None
    await again.transactions.commit(forced=False)
    assert await selected(again, "SELECT count(*) FROM items") == [(300_000,)]


async def test_a_part_remembers_so_many_bytes(place: Place) -> None:
    engine = await place.open(part_bytes_max=100_000)
    await done(engine, CREATE)
    to = header()
    await advance(engine, to, ("SELECT length(?)", b"x" * 90_000), step=Step.STAY_OPEN)
    write = ("INSERT INTO items VALUES (1, length(?))", b"x" * 60_000)
    await advance(engine, to, write, step=Step.STAY_OPEN, begins=False)
    with pytest.raises(MessageTooLarge, match="part_bytes_max"):
        await advance(engine, to, write, step=Step.STAY_OPEN, begins=False)
    await advance(engine, to, begins=False)
    await engine.transactions.commit(forced=False)
    assert await selected(engine) == [(1, 60_000)]


async def test_writes_go_on_beside_a_log_that_transactions_made_long(engine: Engine) -> None:
    await done(engine, "CREATE TABLE large (content)")
    for number in range(8):
        write = ("INSERT INTO large VALUES (?)", b"x" * 1_000_000)
        await advance(engine, header(), write, step=Step.COMMIT)
        await done(engine, f"INSERT INTO items VALUES ({number}, 0)")
    assert len(await selected(engine)) == 8


async def test_what_was_committed_is_not_done_again(place: Place, engine: Engine) -> None:
    """The crash comes after the commit and before the record is cleared."""
    await advance(engine, header(), INSERT)
    await engine.transactions.commit(forced=False)
    left = await place.crash(engine)
    again = await left.open()
    assert await again.transactions.recover() is None
    assert await selected(again) == [(1, 1)]


async def test_what_was_rolled_back_does_not_come_back(place: Place, engine: Engine) -> None:
    """The crash comes after the end was written and before the record is cleared."""
    to = header()
    await advance(engine, to, INSERT)
    await engine.transactions.roll_back()
    await apply(engine, ending(to))
    left = await place.crash(engine)
    again = await left.open()
    assert await again.transactions.recover() is None
    assert await selected(again) == []


async def test_an_open_part_is_gone_after_a_crash(place: Place, engine: Engine) -> None:
    to = header()
    await advance(engine, to, INSERT, step=Step.STAY_OPEN)
    left = await place.crash(engine)
    again = await left.open()
    assert await again.transactions.recover() is None
    assert await selected(again) == []


async def test_a_redo_that_meets_other_data_is_refused_loudly(place: Place, engine: Engine) -> None:
    await advance(engine, header(), "INSERT INTO items VALUES (1, 1) RETURNING n")
    left = await place.crash(engine)
    meddler = await left.open()
    await done(meddler, "INSERT INTO items VALUES (1, 2)")
    with pytest.raises(EngineLost, match="cannot be brought back"):
        await meddler.transactions.recover()
