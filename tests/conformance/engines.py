"""The engines that the conformance suite runs against.

An engine comes with a `Place`, where its databases live, and a `Dialect`: the few statements that
are its own. Everything else in the suite is standard SQL and the port of the core.
"""

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from storage.config import StorageConfig
from storage.core.engine import Engine
from storage.server import _engine_factory

DATABASE: Final = "items_db"


@dataclass(frozen=True)
class Dialect:
    """What the suite cannot say in standard SQL."""

    # Statements that reach beyond the database, or control the transaction or the engine.
    forbidden: tuple[str, ...]
    # Statements that read or change the engine's own tables.
    trespassing: tuple[str, ...]
    # What ends or spoils the whole transaction when it fails: preparation, then the statement.
    # The table `items` is there and holds an item 1.
    spoiling: tuple[tuple[tuple[str, ...], str], ...]


class Place(Protocol):
    """Where databases of one engine live; fresh for every test."""

    name: str
    dialect: Dialect

    def make(self, **settings: Any) -> Engine:
        """An engine for the one database, not open; `settings` are those of `StorageConfig`."""

    async def open(self, **settings: Any) -> Engine:
        """The engine, open."""

    async def crash(self, engine: Engine) -> "Place":
        """Ends an engine as if its machine had been switched off; gives what is left of it."""

    async def close(self) -> None:
        """Closes every engine that was opened here."""

    def adoptable(self, size_bytes: int = 0) -> Path:
        """A file that the engine can adopt: a table `adopted` that holds the number 42.

        It has at least so many bytes.
        """


def _raising(how: str) -> str:
    return (
        "CREATE TRIGGER t BEFORE INSERT ON items WHEN new.id = 13 "
        f"BEGIN SELECT raise({how}, 'never'); END"
    )


class SqlitePlace:
    """SQLite: a directory."""

    name = "sqlite"
    dialect = Dialect(
        forbidden=(
            "BEGIN",
            "COMMIT",
            "ROLLBACK",
            "SAVEPOINT mine",
            "RELEASE operation",
            "ROLLBACK TO operation",
            "ATTACH ':memory:' AS other",
            "DETACH main",
            "VACUUM",
            "VACUUM INTO 'elsewhere.db'",
            "PRAGMA journal_mode = DELETE",
            "PRAGMA synchronous = OFF",
            "PRAGMA wal_checkpoint",
            "PRAGMA user_version = 7",
            "SELECT load_extension('x')",
            "CREATE TEMP TABLE mine (a)",
        ),
        trespassing=(
            "SELECT * FROM _messagehub_journal",
            "DELETE FROM _messagehub_journal",
            "UPDATE _messagehub_meta SET value = 'x'",
            "DROP TABLE _messagehub_journal",
            "CREATE INDEX i ON _messagehub_journal (time_us)",
            "CREATE TABLE _messagehub_mine (a)",
            "ALTER TABLE items RENAME TO _messagehub_mine",
            "ALTER TABLE _messagehub_journal RENAME TO mine",
            "CREATE TRIGGER t AFTER INSERT ON _messagehub_journal BEGIN SELECT 1; END",
        ),
        spoiling=(
            ((), "INSERT OR ROLLBACK INTO items VALUES (1, 0)"),
            ((), "INSERT OR FAIL INTO items VALUES (101, 0), (102, 0), (1, 0), (103, 0)"),
            ((), "UPDATE OR ROLLBACK items SET n = NULL"),
            ((_raising("ROLLBACK"),), "INSERT INTO items VALUES (101, 0), (13, 0)"),
            ((_raising("FAIL"),), "INSERT INTO items VALUES (102, 0), (13, 0)"),
        ),
    )

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._made: list[Engine] = []
        self._lives: list[SqlitePlace] = []

    @property
    def file(self) -> Path:
        """The database's file."""
        return self.directory / f"{DATABASE}.db"

    def make(self, **settings: Any) -> Engine:
        """See `Place`."""
        engine = _engine_factory(StorageConfig(**settings), self.directory)(DATABASE)
        self._made.append(engine)
        return engine

    async def open(self, **settings: Any) -> Engine:
        """See `Place`."""
        engine = self.make(**settings)
        await engine.open()
        return engine

    async def crash(self, engine: Engine) -> "SqlitePlace":
        """See `Place`. The files as they are now, without the shared memory, are what is left."""
        left = SqlitePlace(self.directory.with_name(f"{self.directory.name}-left"))
        left.directory.mkdir()
        for suffix in ("", "-wal", "-prepared"):
            name = self.file.name + suffix
            if (self.directory / name).exists():
                shutil.copy(self.directory / name, left.directory / name)
        self._lives.append(left)
        await engine.close()
        return left

    async def close(self) -> None:
        """See `Place`."""
        for engine in self._made:
            await engine.close()
        for life in self._lives:
            await life.close()

    def adoptable(self, size_bytes: int = 0) -> Path:
        """See `Place`."""
        path = self.directory.with_name(f"{self.directory.name}-adoptable.db")
        raw = sqlite3.connect(path)
        raw.execute("CREATE TABLE adopted (n INTEGER)")
        raw.execute("INSERT INTO adopted VALUES (42)")
        if size_bytes:
            raw.execute("CREATE TABLE filler (content BLOB)")
            raw.execute("INSERT INTO filler VALUES (zeroblob(?))", (size_bytes,))
        raw.commit()
        raw.close()
        return path


PLACES: Final[tuple[Callable[[Path], Place], ...]] = (SqlitePlace,)
