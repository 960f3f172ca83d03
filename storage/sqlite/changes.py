"""One statement of a caller on a connection that writes: what it gives, what it may not leave."""

import sqlite3
from typing import Final

from messagehub.errors import AccessDenied, StatementForbidden
from messagehub.v1.statement_pb2 import ResultSet, Statement
from storage.core.engine import Access
from storage.sqlite import failures, journal
from storage.sqlite.declarations import Declarations, booleans, columns
from storage.sqlite.guard import RESERVED_PREFIX
from storage.sqlite.statements import RETURN_LESS, STREAM, Runner, access, inserts

# A table of the connection's own: inserting 0 into it makes `last_insert_rowid` 0, which nothing
# else can, so that a statement that inserts no row does not report an earlier one's.
_ZERO: Final = f"{RESERVED_PREFIX}zero"
_CREATE_ZERO: Final = f"CREATE TEMP TABLE {_ZERO} (zero INTEGER PRIMARY KEY)"
_RESET_ROWID: Final = f"REPLACE INTO temp.{_ZERO} VALUES (0)"


class Changes:
    """Runs statements within the transaction that is open; every method is called in its thread.

    `shaped` says that one of them changed tables or views.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._raw = runner.raw
        self._own_tables = journal.own_tables(self._raw)
        self._declarations = Declarations(self._raw)
        self._generation = 0
        self.shaped = False
        self._raw.execute(_CREATE_ZERO)

    def begin(self) -> None:
        """A transaction begins: nothing is changed so far, and what was known may be old."""
        self.shaped = False
        self._generation += 1

    def forget_rowid(self) -> None:
        """Nothing was inserted so far, as far as the next statement can see."""
        self._raw.execute(_RESET_ROWID)

    def run_behind_savepoint(self, statement: Statement, *, read_only: bool = False) -> ResultSet:
        """Runs a statement that leaves nothing if it fails, unless it ends the transaction.

        With `read_only` it may not write; raises `AccessDenied` if it would.
        """
        if read_only:
            return self._run_read_only(statement)
        self._raw.execute("SAVEPOINT operation")
        try:
            result = self._runner.carefully(
                statement, lambda: self._run(statement), self._back_to_savepoint
            )
        except BaseException:
            if self._raw.in_transaction:
                self._raw.execute("ROLLBACK TO operation")
                self._raw.execute("RELEASE operation")
            raise
        self._raw.execute("RELEASE operation")
        return result

    def _run_read_only(self, statement: Statement) -> ResultSet:
        self._raw.execute("PRAGMA query_only = ON")
        try:
            return self._runner.carefully(statement, lambda: self._run(statement), lambda: None)
        except sqlite3.Error as failure:
            if not failures.is_read_only(failure):
                raise
            raise AccessDenied(
                "the calling service may only read this database: grant it to write in the "
                "configuration of the hub"
            ) from failure
        finally:
            self._raw.execute("PRAGMA query_only = OFF")

    def _back_to_savepoint(self) -> None:
        self._raw.execute("ROLLBACK TO operation")

    def _run(self, statement: Statement) -> ResultSet:
        reads = access(statement) is Access.READ
        types = self._declarations.types(statement.query, self._generation) if reads else []
        changes = self._raw.total_changes
        cursor = self._runner.start(statement)
        guard = self._runner.guard
        if guard.shaped:
            self.shaped = True
            self._generation += 1
        if guard.altered and journal.own_tables(self._raw) != self._own_tables:
            raise StatementForbidden(
                f"names that begin with {RESERVED_PREFIX} belong to the hub: choose another",
                fields={"statement.query": f"makes a name that begins with {RESERVED_PREFIX}"},
            )
        if guard.shaped and journal.is_referenced(self._raw):
            raise StatementForbidden(
                "a foreign key may not reference the hub's own tables: reference your own",
                fields={"statement.query": "references the hub's own tables"},
            )
        try:
            result = ResultSet()
            if cursor.description is not None:
                result.columns.extend(columns(cursor, types))
                remedy = STREAM if reads else RETURN_LESS
                self._runner.fetch(cursor, result, booleans(list(result.columns)), remedy)
            result.rows_affected = self._affected(cursor, changes)
            if inserts(statement) and self._raw.total_changes != changes:
                result.last_insert_id = cursor.lastrowid or 0
        finally:
            cursor.close()
        return result

    def _affected(self, cursor: sqlite3.Cursor, changes_before: int) -> int:
        """Rows that the statement changed; Python counts only for some first words."""
        if cursor.rowcount >= 0:
            return cursor.rowcount
        if self._raw.total_changes == changes_before:
            return 0
        changes: int = self._raw.execute("SELECT changes()").fetchone()[0]
        return changes
