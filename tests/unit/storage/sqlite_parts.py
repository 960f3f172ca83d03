"""The parts of the SQLite engine on a real sqlite3 connection, put together by hand."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from storage.sqlite import journal
from storage.sqlite.guard import Guard
from storage.sqlite.reader import Reader
from storage.sqlite.schema import history
from storage.sqlite.schema_texts import SchemaTexts
from storage.sqlite.statements import Runner, StatementLimits
from storage.sqlite.transactions import records
from storage.sqlite.writer import Writer

EPOCH: Final = "e1"


class Clock:
    """Stands still until the test moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FailingConnection(sqlite3.Connection):
    """Fails statements that begin with given words, with given result codes, once each."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.failing: list[tuple[str, int]] = []
        self.executed: list[str] = []

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        self._look(statement)
        return super().execute(statement, *parameters)

    def executemany(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        self._look(statement)
        return super().executemany(statement, *parameters)

    def _look(self, statement: str) -> None:
        self.executed.append(statement)
        if self.failing and statement.startswith(self.failing[0][0]):
            raise made(self.failing.pop(0)[1])


def made(code: int) -> sqlite3.OperationalError:
    """The error that SQLite's result code comes as."""
    failure = sqlite3.OperationalError("disk trouble")
    failure.sqlite_errorcode = code
    return failure


def limits(**more: Any) -> StatementLimits:
    defaults: dict[str, Any] = {
        "statement_bytes_max": 100_000,
        "parameters_max": 100,
        "value_bytes_max": 1_000_000,
        "function_value_bytes_max": 10_000,
        "expanded_words_max": 10_000,
        "heap_bytes_max": 4_000_000_000,
        "written_bytes_max": 100_000_000,
        "result_rows_max": 1000,
        "result_bytes_max": 100_000,
        "page_bytes_max": 1000,
        "read_seconds_max": 60.0,
        "write_seconds_max": 60.0,
    }
    return StatementLimits(**(defaults | more))


def connect(file: Path | str = ":memory:") -> tuple[FailingConnection, Guard]:
    """A connection behind a guard, as the engine has it."""
    raw = sqlite3.connect(file, isolation_level=None, factory=FailingConnection)
    guard = Guard()
    guard.install(raw)
    return raw, guard


def runner(file: Path | str = ":memory:", clock: Clock | None = None, **more: Any) -> Runner:
    raw, guard = connect(file)
    return Runner(raw, guard, limits(**more), clock or Clock(), SchemaTexts())


def writer(file: Path, clock: Clock | None = None, **more: Any) -> tuple[Writer, FailingConnection]:
    """A writer on a file in WAL mode, with a journal."""
    group_seconds_max = more.pop("group_seconds_max", 60.0)
    running = runner(file, clock, **more)
    raw: Any = running.raw
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("PRAGMA foreign_keys = ON")
    journal.set_up(raw, EPOCH)
    records.set_up(raw)
    history.set_up(raw)
    made_writer = Writer(
        running,
        clock or Clock(),
        lambda: 1_700_000_000_000_000,
        database="items_db",
        group_seconds_max=group_seconds_max,
        subscriptions_max=100,
    )
    return made_writer, raw


def reader(
    running: Runner,
    sequence: int = 0,
    shape: int = 0,
    renew: Callable[[], Runner] | None = None,
) -> Reader:
    return Reader(
        running,
        renew or (lambda: running),
        lambda: sequence,
        lambda: shape,
        lambda: "",
        database="main",
    )
