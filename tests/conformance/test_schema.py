"""Schema versions of one database: history, checks, scripts, rollback, rehearsal, redo."""

import sqlite3
from typing import Any

import pytest

from messagehub.errors import (
    ConstraintViolation,
    DeadlineExceeded,
    HubError,
    InvalidStatement,
    InvalidVersion,
    SchemaHistoryConflict,
    SchemaMismatch,
    StatementForbidden,
)
from messagehub.schema.scripts import checksum
from messagehub.storage.v1.participant_service_pb2 import ParticipantOperation
from storage.core.engine import Engine
from storage.core.transactions.engine_part import Step
from tests.conformance.engines import Place
from tests.conformance.operations import apply, done, operation, selected
from tests.conformance.schema_parts import change, control, part, rollback, update

HEROES = "CREATE TABLE heroes (id INTEGER PRIMARY KEY, name TEXT NOT NULL);"
NO_HEROES = "DROP TABLE heroes;"
LEVEL = "ALTER TABLE heroes ADD COLUMN level INTEGER NOT NULL DEFAULT 1;"
NO_LEVEL = "ALTER TABLE heroes DROP COLUMN level;"
TABLES_WITH_KEYS = """
CREATE TABLE parents (id INTEGER PRIMARY KEY);
CREATE TABLE children (parent INTEGER NOT NULL REFERENCES parents (id) ON DELETE CASCADE);
INSERT INTO parents VALUES (1), (2);
INSERT INTO children VALUES (1), (1), (2);
"""


async def shape_of(engine: Engine) -> tuple[str, list[str]]:
    described = await engine.schema()
    return described.version, [t.name for t in described.tables if t.name != "items"]


async def test_a_new_database_has_no_version(engine: Engine) -> None:
    described = await engine.schema()
    assert (described.version, list(described.history), described.drifted) == ("", [], False)
    assert [table.name for table in described.tables] == ["items"]


async def test_an_update_leaves_the_shape_the_history_and_the_events(engine: Engine) -> None:
    before = (await engine.journal(0, 100))[-1].sequence
    wanted = update("1.0.0", HEROES, NO_HEROES, description="heroes")
    (report,) = await change(engine, wanted)
    (step,) = report.steps
    assert (step.database, step.from_version, step.to_version) == ("items_db", "", "1.0.0")
    assert [s.statement for s in step.statements] == [HEROES.rstrip(";")]
    described = await engine.schema()
    (line,) = described.history
    assert (line.version, line.description, line.checksum) == ("1.0.0", "heroes", checksum(HEROES))
    assert (line.source_service, line.reversible) == ("items", True)
    assert described.version == "1.0.0"
    assert not described.drifted
    heroes = next(table for table in described.tables if table.name == "heroes")
    assert [(c.name, c.declared_type, c.not_null) for c in heroes.columns] == [
        ("id", "INTEGER", False),
        ("name", "TEXT", True),
    ]
    assert heroes.columns[0].primary_key_position == 1
    events = await engine.journal(before, 100)
    assert [event.type for event in events] == [
        "schema.update_completed",
        "storage.schema_updated",
        "transaction.committed",
    ]
    told = events[0].schema_updated
    assert (told.from_version, told.to_version, told.checksum) == ("", "1.0.0", checksum(HEROES))
    assert {event.correlation_id for event in events} == {"corr"}


@pytest.mark.parametrize("version", ["1.9.0", "1.8.0", "1.9.0-rc.1", "0.1.0"])
async def test_a_version_that_is_not_above_is_refused(engine: Engine, version: str) -> None:
    await change(engine, update("1.9.0"))
    with pytest.raises(InvalidVersion):
        await change(engine, update(version))
    await change(engine, update("1.10.0"))
    assert (await engine.schema()).version == "1.10.0"


async def test_a_version_that_was_reached_otherwise_is_a_conflict(engine: Engine) -> None:
    await change(engine, update("1.0.0", HEROES), update("1.1.0"))
    with pytest.raises(SchemaHistoryConflict):
        await change(engine, update("1.0.0", LEVEL))
    with pytest.raises(InvalidVersion):
        await change(engine, update("1.0.0", f"{HEROES}  \r\n"))


async def test_a_history_that_was_edited_is_refused(place: Place, engine: Engine) -> None:
    await change(engine, update("1.0.0", HEROES, NO_HEROES))
    raw = sqlite3.connect(place.file)  # type: ignore[attr-defined]
    raw.execute("UPDATE _messagehub_schema SET script = 'CREATE TABLE other (x)'")
    raw.commit()
    raw.close()
    for wanted in (update("2.0.0"), rollback("0.0.0")):
        with pytest.raises(SchemaHistoryConflict):
            await change(engine, wanted)


async def test_drift_is_seen(place: Place, engine: Engine) -> None:
    await change(engine, update("1.0.0", HEROES))
    await done(engine, "CREATE INDEX by_name ON heroes (name)")
    assert (await engine.schema()).drifted
    await done(engine, "DROP INDEX by_name")
    assert not (await engine.schema()).drifted
    raw = sqlite3.connect(place.file)  # type: ignore[attr-defined]
    raw.execute("ALTER TABLE heroes ADD COLUMN secret")
    raw.commit()
    raw.close()
    assert (await engine.schema()).drifted


@pytest.mark.parametrize(
    ("script", "error", "number"),
    [
        ("SELECT 1; SELEC 2;", InvalidStatement, "2"),
        ("SELECT 1; SELECT 2; BEGIN; SELECT 3", StatementForbidden, "3"),
        ("COMMIT", StatementForbidden, "1"),
        ("SAVEPOINT mine", StatementForbidden, "1"),
        ("DROP TABLE _messagehub_journal", StatementForbidden, "1"),
        ("UPDATE _messagehub_schema SET version = '9'", StatementForbidden, "1"),
        ("PRAGMA foreign_keys = ON", StatementForbidden, "1"),
        ("INSERT INTO items VALUES (1, 1), (1, 1)", ConstraintViolation, "1"),
        ("INSERT OR ROLLBACK INTO items VALUES (1, 1), (1, 1)", ConstraintViolation, "1"),
        ("INSERT INTO items VALUES (?, ?)", InvalidStatement, "1"),
        (f"{TABLES_WITH_KEYS} DELETE FROM parents WHERE id = 1", ConstraintViolation, "5"),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
         DeadlineExceeded, "1"),
    ],
)  # fmt: skip
async def test_a_script_fails_as_a_whole_and_says_where(
    engine: Engine, script: str, error: type[HubError], number: str
) -> None:
    with pytest.raises(error) as refusal:
        await change(engine, update("1.0.0", f"{HEROES}{script}", timeout_ms=300))
    placed = {"statement_number": str(int(number) + 1), "version": "1.0.0", "operation": "0"}
    assert refusal.value.metadata.items() >= placed.items()
    assert f"statement {placed['statement_number']} " in refusal.value.message
    assert await shape_of(engine) == ("", [])
    await change(engine, update("1.0.0", HEROES))
    await done(engine, "INSERT INTO heroes (name) VALUES ('Ada')")


async def test_a_table_that_is_built_anew_keeps_the_rows_that_refer_to_it(engine: Engine) -> None:
    await change(engine, update("1.0.0", TABLES_WITH_KEYS))
    rebuilt = """CREATE TABLE new (id INTEGER PRIMARY KEY, name TEXT);
    INSERT INTO new SELECT id, 'x' FROM parents;
    DROP TABLE parents;
    ALTER TABLE new RENAME TO parents;"""
    (report,) = await change(engine, update("1.1.0", rebuilt))
    assert [s.rows_affected for s in report.steps[0].statements] == [0, 2, 0, 0]
    assert any("drops the table parents" in w for w in report.steps[0].statements[2].warnings)
    assert await selected(engine, "SELECT count(*) FROM children") == [(3,)]
    # And afterwards they are enforced again, for parts and for single statements.
    orphan = "INSERT INTO children VALUES (99)"
    outcome = (await apply(engine, operation(orphan)))[0]
    assert isinstance(outcome.error, ConstraintViolation)
    statement = operation(orphan).statement
    with pytest.raises(ConstraintViolation):
        await engine.transactions.advance(part(ParticipantOperation(statement=statement)))


async def test_several_versions_in_one_part(engine: Engine) -> None:
    reports = await change(engine, update("1.0.0", HEROES), update("1.1.0", LEVEL))
    assert [r.steps[0].from_version for r in reports] == ["", "1.0.0"]
    with pytest.raises(InvalidStatement):
        await change(engine, update("1.2.0", "CREATE TABLE x (a)"), update("1.3.0", "nonsense"))
    assert await shape_of(engine) == ("1.1.0", ["heroes"])


async def test_a_rollback_takes_versions_back_newest_first(engine: Engine) -> None:
    await change(
        engine,
        update("1.0.0", HEROES, NO_HEROES),
        update("1.1.0", LEVEL, NO_LEVEL),
        update("1.2.0", "CREATE INDEX i ON heroes (level)", "DROP INDEX i"),
    )
    (report,) = await change(engine, rollback("1.0.0"))
    assert [(s.from_version, s.to_version) for s in report.steps] == [
        ("1.2.0", "1.1.0"),
        ("1.1.0", "1.0.0"),
    ]
    described = await engine.schema()
    assert (described.version, described.drifted) == ("1.0.0", False)
    assert [(c.version, c.HasField("rollback_time")) for c in described.history] == [
        ("1.0.0", False),
        ("1.1.0", True),
        ("1.2.0", True),
    ]
    await change(engine, update("1.1.0", LEVEL, NO_LEVEL))
    await change(engine, rollback("0.0.0"))
    assert await shape_of(engine) == ("", [])
    with pytest.raises(InvalidVersion):
        await change(engine, rollback("0.0.0"))


@pytest.mark.parametrize("to_version", ["2.0.0", "1.5.0", "1.2.0"])
async def test_a_rollback_leads_to_an_earlier_version_only(engine: Engine, to_version: str) -> None:
    await change(engine, update("1.0.0"), update("1.1.0"), update("1.2.0"))
    with pytest.raises(InvalidVersion):
        await change(engine, rollback(to_version))


async def test_a_rollback_without_a_script_is_refused_before_anything_runs(engine: Engine) -> None:
    await change(engine, update("1.0.0", HEROES), update("1.1.0", LEVEL, NO_LEVEL))
    with pytest.raises(InvalidVersion) as refusal:
        await change(engine, rollback("0.0.0"))
    assert refusal.value.metadata["missing"] == "1.0.0"
    assert "statement_number" not in refusal.value.metadata


async def test_a_baseline_is_recorded_without_being_run(engine: Engine) -> None:
    await done(engine, "CREATE TABLE heroes (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
    await change(engine, update("1.0.0", HEROES, NO_HEROES, baseline=True), update("1.1.0", LEVEL))
    described = await engine.schema()
    assert [(c.baseline, c.reversible) for c in described.history] == [
        (True, False),
        (False, False),
    ]
    with pytest.raises(InvalidVersion):
        await change(engine, update("2.0.0", baseline=True))
    with pytest.raises(InvalidVersion):
        await change(engine, rollback("0.0.0"))


async def test_a_rehearsal_reports_and_leaves_nothing(engine: Engine) -> None:
    await change(engine, update("1.0.0", HEROES))
    await done(engine, "INSERT INTO heroes (name) VALUES ('Ada'), ('Grace')")
    before = await engine.schema()
    end = (await engine.journal(0, 100))[-1].sequence
    script = (
        f"{LEVEL} UPDATE heroes SET level = 2; DELETE FROM heroes; CREATE INDEX i ON heroes (id)"
    )
    (report,) = await engine.transactions.rehearse([update("1.1.0", script)], control())
    told = [(s.number, s.rows_affected, list(s.warnings)) for s in report.steps[0].statements]
    assert told == [
        (1, 0, []),
        (2, 2, ["reads every row of heroes"]),
        (3, 2, ["deletes 2 rows"]),
        (4, 0, ["reads every row of heroes"]),
    ]
    assert await engine.schema() == before
    assert not await engine.journal(end, 100)
    assert await selected(engine, "SELECT count(*) FROM heroes") == [(2,)]


async def test_a_rehearsal_tells_which_statement_fails(engine: Engine) -> None:
    operations = [update("1.0.0", f"{HEROES} DROP TABLE nobody; SELECT 1"), update("1.1.0")]
    (report,) = await engine.transactions.rehearse(operations, control())
    assert [s.HasField("error") for s in report.steps[0].statements] == [False, True]
    with pytest.raises(InvalidVersion):
        await engine.transactions.rehearse([update("1.0.0"), update("1.0.0")], control())
    spoiling = "INSERT OR ROLLBACK INTO items VALUES (1, 1), (1, 1)"
    with pytest.raises(ConstraintViolation):
        await engine.transactions.rehearse([update("1.0.0", spoiling)], control())
    assert await shape_of(engine) == ("", [])


async def test_what_is_prepared_is_run_again_after_a_crash(place: Place, engine: Engine) -> None:
    script = f"{HEROES} INSERT INTO heroes (name) SELECT hex(randomblob(4)) FROM items; SELECT 1;"
    await done(engine, "INSERT INTO items VALUES (1, 1), (2, 2)")
    await engine.transactions.advance(part(update("1.0.0", script, "x"), step=Step.PREPARE))
    left = await place.crash(engine)
    for suffix in ("-prepared",):
        name = f"{place.file.name}{suffix}"  # type: ignore[attr-defined]
        content = (place.directory / name).read_bytes()  # type: ignore[attr-defined]
        (left.directory / name).write_bytes(content)  # type: ignore[attr-defined]
    again = left.make()
    position = await again.open()
    assert position.schema_version == ""
    recovered = await again.transactions.recover()
    assert recovered is not None
    advanced = await again.transactions.commit(forced=False)
    assert advanced.applied is not None
    assert advanced.applied.schema_version == "1.0.0"
    await again.transactions.forget()
    assert await shape_of(again) == ("1.0.0", ["heroes"])
    assert await selected(again, "SELECT count(DISTINCT name) FROM heroes") == [(2,)]
    await again.close()
    position = await again.open()
    assert position.schema_version == "1.0.0"


async def test_operations_are_checked_against_the_version(engine: Engine) -> None:
    await change(engine, update("1.2.0", HEROES))
    read: dict[str, Any] = {"schema_version": ">=1.2 <2"}
    for query in ("INSERT INTO heroes (name) VALUES ('Ada')", "SELECT * FROM heroes"):
        outcome = (await apply(engine, operation(query, **read)))[0]
        assert outcome.error is None
        assert outcome.schema_version == "1.2.0"
        outcome = (await apply(engine, operation(query, schema_version=">=2")))[0]
        assert isinstance(outcome.error, SchemaMismatch)
        assert outcome.error.metadata["actual"] == "1.2.0"
        assert outcome.sequence == 0
    for wanted, fits in ((">=1", True), (">=2", False)):
        one = ParticipantOperation(statement=operation("SELECT 1").statement, schema_version=wanted)
        if fits:
            await engine.transactions.advance(part(one))
        else:
            with pytest.raises(SchemaMismatch):
                await engine.transactions.advance(part(one))
    within = ParticipantOperation(statement=operation("SELECT 1").statement, schema_version="2.0.0")
    step = part(update("2.0.0"), within)
    advanced = await engine.transactions.advance(step)
    assert advanced.schema_version == "2.0.0"


async def test_the_report_of_a_long_script_stays_small(engine: Engine) -> None:
    insert = "INSERT INTO items (n) VALUES (1) -- " + "x" * 3000
    (report,) = await change(engine, update("1.0.0", f"{insert}\n;" * 1000))
    assert len(report.steps[0].statements) == 1000
    assert report.ByteSize() < 512 * 1024
    assert await selected(engine, "SELECT count(*) FROM items") == [(1000,)]
