"""The reading side of one file: statements and pages on read-only connections.

A reading statement is its own transaction, so it sees one snapshot.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from messagehub.errors import HubError, InternalError, InvalidStatement
from messagehub.schema.ranges import check_version
from messagehub.v1.statement_pb2 import Column, ResultSet, Statement
from storage.core.engine import Access
from storage.core.operation import Operation, Outcome
from storage.sqlite import failures
from storage.sqlite.declarations import Declarations, booleans, columns
from storage.sqlite.failures import FAILURES
from storage.sqlite.schema import history
from storage.sqlite.statements import Runner, access, rows_that_fit
from storage.sqlite.values import SHORTER_NAMES, append_rows, check_size, names_bytes

_log = logging.getLogger(__name__)

Take = Callable[[], Operation | None]
Deliver = Callable[[Operation, Outcome | None], None]


class Reader:
    """Reads on one connection; every method is called in the connection's thread.

    `renew` opens the connection anew. `sequence`, `shape` and `version` give the newest committed
    position, the state of the schema and its version.
    """

    def __init__(
        self,
        runner: Runner,
        renew: Callable[[], Runner],
        sequence: Callable[[], int],
        shape: Callable[[], int],
        version: Callable[[], str],
        *,
        database: str,
    ) -> None:
        self._runner = runner
        self._renew = renew
        self._declarations = Declarations(runner.raw)
        self._sequence = sequence
        self._shape = shape
        self._version = version
        self._database = database

    def _begin(self, operation: Operation, seconds_max: float) -> None:
        # A snapshot that is pinned on the connection stays where it is.
        if self._runner.spent and not self._runner.raw.in_transaction:
            self._runner = self._renew()
            self._declarations = Declarations(self._runner.raw)
        self._runner.begin(operation, seconds_max)

    def drain(self, take: Take, deliver: Deliver) -> None:
        """Runs reads until there are no more."""
        while (operation := take()) is not None:
            try:
                outcome = self._outcome(operation)
            except Exception:  # noqa: BLE001 - a defect that one read meets is that read's alone
                _log.exception("reader failed")
                outcome = Outcome(error=InternalError("the reader failed: its log says why"))
            deliver(operation, outcome)

    def _outcome(self, operation: Operation) -> Outcome | None:
        statement = operation.statement or Statement()
        sequence, version = self._sequence(), self._version()
        try:
            result = self._read(operation, statement)
            return Outcome(result=result, sequence=sequence, schema_version=version)
        except HubError as refusal:
            return Outcome(error=refusal)
        except FAILURES as failure:
            error = self._explain(operation, failure)
            unsure = access(statement) is Access.UNSURE and isinstance(error, InvalidStatement)
            if unsure or failures.is_read_only(failure):
                return None
            return Outcome(error=error)
        finally:
            self._runner.end()

    @contextmanager
    def _snapshot(self, operation: Operation) -> Iterator[None]:
        """One snapshot for a statement and for the question whether it fits the schema.

        Without a range the statement is its own snapshot. A pinned one stays as it is.
        """
        if not operation.schema_version:
            yield
            return
        raw = self._runner.raw
        pinned = raw.in_transaction
        if not pinned:
            raw.execute("BEGIN")
        try:
            check_version(operation.schema_version, history.current(raw), self._database)
            yield
        finally:
            if not pinned and raw.in_transaction:
                raw.execute("ROLLBACK")

    def _read(self, operation: Operation, statement: Statement) -> ResultSet:
        self._begin(operation, self._runner.limits.read_seconds_max)
        self._runner.check(statement)
        types = self._types(statement)
        with self._snapshot(operation):
            return self._runner.carefully(
                statement, lambda: self._rows(statement, types), lambda: None
            )

    def _rows(self, statement: Statement, types: list[str]) -> ResultSet:
        cursor = self._runner.start(statement)
        try:
            result = ResultSet(columns=columns(cursor, types))
            self._runner.fetch(cursor, result, booleans(list(result.columns)))
        finally:
            cursor.close()
        return result

    def _types(self, statement: Statement) -> list[str]:
        """From before the snapshot, so that no older types are kept under a newer shape."""
        return self._declarations.types(statement.query, self._shape())

    def _explain(self, operation: Operation, failure: sqlite3.Error | MemoryError) -> HubError:
        if failures.is_interrupt(failure):
            return self._runner.why_interrupted(operation)
        return failures.translate(failure, self._runner.guard)

    def pages(self, operation: Operation, page_rows: int, seconds_max: float) -> "Pages":
        """Begins a streamed read; raises as its statement does."""
        statement = operation.statement or Statement()
        try:
            self._begin(operation, seconds_max)
            self._runner.check(statement)
            types = self._types(statement)
            # Pages that were read are not read again, so a stream takes the long way at once.
            if self._runner.calls_costly(statement):
                self._runner.take_long_way()
            with ExitStack() as entered:
                entered.enter_context(self._snapshot(operation))
                cursor = self._runner.start(statement)
                names = columns(cursor, types)
                size = names_bytes(ResultSet(columns=names))
                check_size(size, self._runner.limits.result_bytes_max, SHORTER_NAMES)
                snapshot = entered.pop_all()
            return Pages(self, operation, cursor, names, page_rows, snapshot)
        except FAILURES as failure:
            if failures.is_read_only(failure):
                raise InvalidStatement(
                    "Query runs reading statements only: use Execute for one that writes",
                    fields={"statement.query": "writes"},
                ) from failure
            raise self._explain(operation, failure) from failure

    def next_rows(
        self, operation: Operation, cursor: sqlite3.Cursor, count: int
    ) -> list[tuple[None, ...]]:
        """Fetches the next rows of a streamed read."""
        try:
            return self._runner.fetch_some(cursor, count)
        except FAILURES as failure:
            raise self._explain(operation, failure) from failure

    def finish(self) -> None:
        """A streamed read is over."""
        self._runner.end()

    @property
    def page_bytes_max(self) -> int:
        """About how large a page may be."""
        return self._runner.limits.page_bytes_max


class Pages:
    """A streamed read: one snapshot, page after page."""

    def __init__(
        self,
        reader: Reader,
        operation: Operation,
        cursor: sqlite3.Cursor,
        names: list[Column],
        page_rows: int,
        snapshot: ExitStack,
    ) -> None:
        self._snapshot = snapshot
        self._reader = reader
        self._operation = operation
        self._cursor = cursor
        self._columns = names
        self._booleans = booleans(names)
        self._page_rows = page_rows
        self._fetch_rows = 1
        self.exhausted = False

    def next(self) -> ResultSet:
        """The next page: at most so many rows, and about so many bytes, but at least one row."""
        page = ResultSet(columns=self._columns)
        size, limit = 0, self._reader.page_bytes_max
        while len(page.rows) < self._page_rows and size < limit:
            wanted = min(self._fetch_rows, self._page_rows - len(page.rows))
            rows = self._reader.next_rows(self._operation, self._cursor, wanted)
            fetched = append_rows(page, rows, self._booleans)
            size += fetched
            if len(rows) < wanted:
                self.exhausted = True
                break
            self._fetch_rows = rows_that_fit(wanted, fetched, limit - size)
        return page

    def close(self) -> None:
        """Releases the snapshot."""
        self._cursor.close()
        self._snapshot.close()
        self._reader.finish()
