"""Statements that meet long values: done, refused or interrupted, but never for long."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from messagehub.errors import DeadlineExceeded, HubError, ResultTooLarge
from messagehub.v1.statement_pb2 import ResultSet
from storage.core.operation import Outcome
from storage.sqlite.schema_texts import SchemaTexts
from storage.sqlite.statements import Runner
from storage.sqlite.written_bytes import WrittenBytes
from tests.conformance.operations import operation
from tests.support.calls import rows
from tests.unit.storage.sqlite_parts import Clock, connect, limits, reader, runner, writer

SHORT = 1000
LONG = 20 * SHORT


class CountedRunner(Runner):
    """Counts how often statements were begun."""

    starts = 0

    def start(self, statement: Any) -> sqlite3.Cursor:
        self.starts += 1
        return super().start(statement)


def counted(file: Path) -> CountedRunner:
    raw, guard = connect(file)
    raw.execute("CREATE TABLE texts (content TEXT)")
    for size in (10, LONG):
        raw.execute("INSERT INTO texts VALUES (?)", ("a" * size + "b",))
    raw.execute("CREATE VIEW found AS SELECT instr(content, 'b') AS place FROM texts")
    schema = SchemaTexts()
    made = limits(function_value_bytes_max=SHORT)
    return CountedRunner(raw, guard, made, Clock(), schema)


@pytest.fixture(name="running")
def running_fixture(tmp_path: Path) -> Iterator[CountedRunner]:
    made = counted(tmp_path / "texts.db")
    yield made
    made.raw.close()


def read(running: Runner, query: str) -> Outcome:
    outcomes: list[Outcome | None] = []
    waiting = [operation(query)]
    reader(running).drain(
        lambda: waiting.pop() if waiting else None, lambda _, outcome: outcomes.append(outcome)
    )
    (outcome,) = outcomes
    assert outcome is not None
    return outcome


def values(outcome: Outcome) -> list[tuple[Any, ...]]:
    assert outcome.error is None, outcome.error
    return rows(outcome.result or ResultSet())


def test_short_values_meet_sqlites_own_functions_once(running: CountedRunner) -> None:
    query = "SELECT instr(content, 'b') FROM texts WHERE rowid = 1"
    assert values(read(running, query)) == [(11,)]
    assert running.starts == 1


def test_long_values_meet_linear_functions(running: CountedRunner) -> None:
    query = "SELECT instr(content, 'b') FROM texts"
    assert values(read(running, query)) == [(11,), (LONG + 1,)]
    assert running.starts == 2
    assert running.spent


def test_long_values_without_such_functions_are_read_once(running: CountedRunner) -> None:
    assert values(read(running, "SELECT length(content) FROM texts")) == [(11,), (LONG + 1,)]
    assert running.starts == 1


def test_a_view_that_calls_one_is_as_good_as_a_call(running: CountedRunner) -> None:
    query = "SELECT max(place) FROM found"
    assert values(read(running, query)) == [(LONG + 1,)]
    assert running.starts == 1, "nothing is known of the schema yet"
    running._schema.load(running.raw)
    assert values(read(running, query)) == [(LONG + 1,)]
    assert running.starts == 3


def test_what_is_too_long_for_a_function_is_the_statements_own_error(
    running: CountedRunner,
) -> None:
    outcome = read(running, "SELECT content LIKE '%_b' FROM texts")
    assert isinstance(outcome.error, ResultTooLarge)
    assert "function_value_bytes_max" in outcome.error.message


def test_a_stream_takes_the_long_way_at_once(running: CountedRunner) -> None:
    pages = reader(running).pages(operation("SELECT instr(content, 'b') FROM texts"), 1, 60.0)
    places = []
    while not pages.exhausted:
        places += rows(pages.next())
    pages.close()
    assert places == [(11,), (LONG + 1,)]
    assert running.starts == 1
    assert running.spent


def test_a_spent_connection_is_opened_anew_before_the_next_read(
    running: CountedRunner, tmp_path: Path
) -> None:
    again = runner(tmp_path / "texts.db", function_value_bytes_max=SHORT)
    renewed = []

    def renew() -> Runner:
        renewed.append(again)
        return again

    outcomes: list[Outcome | None] = []
    query = "SELECT instr(content, 'b') FROM texts"
    waiting = [operation(query), operation(query), operation("SELECT 1")]
    made = reader(running, renew=renew)
    made.drain(
        lambda: waiting.pop() if waiting else None, lambda _, outcome: outcomes.append(outcome)
    )
    assert [o and o.error for o in outcomes] == [None] * 3
    assert renewed == [again], "the first one to take the long way leaves it spent"
    again.raw.close()


def test_a_write_that_meets_a_long_value_is_done_once(tmp_path: Path) -> None:
    made, raw = writer(tmp_path / "items.db", function_value_bytes_max=SHORT)
    text = f"printf('%.{LONG}c', 'a')"
    group = [
        operation("CREATE TABLE t (a UNIQUE, b, CHECK (instr(a, 'z') = 0))"),
        operation("INSERT INTO t VALUES ('a', 0), ('b', 0), (" + text + ", 0)"),
        operation("UPDATE t SET b = b + 1, a = replace(a, 'a', 'c')"),
        operation("INSERT INTO t VALUES (replace(hex(zeroblob(600)), '00', 'zz'), 0)"),
    ]
    applied = made.apply(group)
    assert [o.error and o.error.reason for o in applied.outcomes] == [
        None,
        None,
        None,
        "CONSTRAINT_VIOLATION",
    ]
    assert [o.result.rows_affected for o in applied.outcomes[1:3] if o.result] == [3, 3]
    kept = raw.execute("SELECT length(a), substr(a, 1, 1), b FROM t ORDER BY rowid").fetchall()
    assert kept == [(1, "c", 1), (1, "b", 1), (LONG, "c", 1)]


def interrupting(running: Runner, clock: Clock) -> None:
    """The loop looks at the connection, late, each time that a function is called."""

    def late() -> int:
        clock.now += 1000.0
        running.watch.look()
        return 1

    running.raw.create_function("late", 0, late)


def test_what_the_loop_interrupts_ends_at_the_next_instruction() -> None:
    clock = Clock()
    running = runner(clock=clock)
    interrupting(running, clock)
    numbers = "WITH c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 10)"
    outcome = read(running, f"{numbers} SELECT sum(late()) FROM c")
    assert isinstance(outcome.error, DeadlineExceeded)
    assert values(read(running, "SELECT 1")) == [(1,)], "the connection stays usable"


@pytest.mark.parametrize("when", ["before it runs", "after it ran"])
def test_the_loop_does_not_interrupt_the_next_statement(when: str) -> None:
    clock = Clock()
    running = runner(clock=clock)
    asked = operation("SELECT 1")
    running.begin(asked, 60.0)
    cursor = running.start(asked.statement) if when == "after it ran" else None
    asked.cancelled = True
    running.watch.look()
    if cursor is not None:
        cursor.close()
    running.end()
    running.watch.look()
    assert values(read(running, "SELECT 2")) == [(2,)]


class Written(WrittenBytes):
    """Says how much the thread has written: five bytes more each time."""

    bytes = 0

    def _written(self) -> int:
        self.bytes += 5
        return self.bytes


def test_a_statement_that_writes_too_much_is_interrupted_and_told_why() -> None:
    running = runner(written_bytes_max=7)
    running._written = running.watch._written = Written(running.limits.written_bytes_max)

    def look() -> int:
        running.watch.look()
        return 1

    running.raw.create_function("look", 0, look)
    numbers = "WITH c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 10)"
    outcome = read(running, f"{numbers} SELECT sum(look()) FROM c")
    error: HubError | None = outcome.error
    assert isinstance(error, ResultTooLarge)
    assert error.metadata == {"limit_bytes": "7"}
    assert values(read(running, "SELECT look()")) == [(1,)]
