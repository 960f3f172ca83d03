"""Running one statement of a caller on a connection: limits, parameters, rows, interruption."""

import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar

from messagehub.errors import (
    DeadlineExceeded,
    HubError,
    InvalidRequest,
    InvalidStatement,
    MessageTooLarge,
    ResultTooLarge,
    StatementForbidden,
)
from messagehub.v1.statement_pb2 import ResultSet, Statement
from storage.core.engine import Access
from storage.core.operation import Operation
from storage.sqlite import costly
from storage.sqlite.connection import LIKE_PATTERN_BYTES_MAX, PROGRESS_INSTRUCTIONS
from storage.sqlite.declarations import parameter_names
from storage.sqlite.guard import Guard, caller_text
from storage.sqlite.linear import LinearFunctions
from storage.sqlite.schema_texts import SchemaTexts
from storage.sqlite.statement_cache import StatementCache
from storage.sqlite.values import (
    SHORTER_NAMES,
    append_rows,
    check_size,
    names_bytes,
    parameters,
)
from storage.sqlite.watch import Watch
from storage.sqlite.written_bytes import WrittenBytes

Result = TypeVar("Result")

FETCH_ROWS_MAX: Final = 256
FIRST_ROWS: Final = 2
NAMES_TOLD_MAX: Final = 5
TEXTS_REMEMBERED: Final = 4096
# Longer texts are looked at again each time, so that what is remembered stays small.
TEXT_CHARACTERS_REMEMBERED: Final = 4096

# Both patterns are made so that no text takes more than one pass: what was matched is not given
# back (`(?>…)`, `*+`), and what is not closed reaches to the end.
# A byte order mark is white space to SQLite.
_FIRST_WORD: Final = re.compile(
    r"(?>[\s\ufeff]+|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*+([A-Za-z]+)", re.DOTALL
)
# What a text is made of, as far as it matters to find its words outside of parentheses.
_PARTS: Final = re.compile(
    r"""'(?>[^']|'')*+(?:'|\Z)|"(?>[^"]|"")*+(?:"|\Z)|`(?>[^`]|``)*+(?:`|\Z)|\[[^\]]*+(?:\]|\Z)"""
    r"""|--[^\n]*|/\*.*?(?:\*/|\Z)|[()]|\w+""",
    re.DOTALL,
)
_READING: Final = frozenset({"SELECT", "VALUES", "EXPLAIN", "PRAGMA"})
_CHANGING: Final = frozenset({"INSERT", "REPLACE", "UPDATE", "DELETE"})
_INSERTING: Final = frozenset({"INSERT", "REPLACE", "WITH"})
_NOTHING: Final[frozenset[int]] = frozenset()
_BLANK: Final = " \t\r\n\f\v\ufeff"

# What to do about a result that is too large.
STREAM: Final = "use Query, which streams, or select less"
RETURN_LESS: Final = "nothing was changed; return less, and read the rest with Query"


@dataclass(slots=True, frozen=True)
class StatementLimits:
    """Bounds of one statement; see `StorageConfig` for units and defaults."""

    statement_bytes_max: int
    parameters_max: int
    value_bytes_max: int
    function_value_bytes_max: int
    expanded_words_max: int
    heap_bytes_max: int
    written_bytes_max: int
    result_rows_max: int
    result_bytes_max: int
    page_bytes_max: int
    read_seconds_max: float
    write_seconds_max: float


def _words(query: str) -> tuple[str, str]:
    found = _FIRST_WORD.match(query)
    first = found.group(1).upper() if found else ""
    return first, _main_word(query) if first == "WITH" else first


def _main_word(query: str) -> str:
    """The keyword after the common table expressions; empty if there is none."""
    depth = 0
    for part in _PARTS.finditer(query):
        word = part.group().upper()
        depth += (word == "(") - (word == ")")
        if not depth and (word in _READING or word in _CHANGING):
            return word
    return ""


_remembered_words = lru_cache(maxsize=TEXTS_REMEMBERED)(_words)


def _words_of(query: str) -> tuple[str, str]:
    if len(query) > TEXT_CHARACTERS_REMEMBERED:
        return _words(query)
    return _remembered_words(query)


def first_word(query: str) -> str:
    """The keyword that a statement begins with, in capitals; empty if there is none."""
    return _words_of(query)[0]


def access(statement: Statement) -> Access:
    """Tells where a statement belongs. Only a hint: a reader's connection cannot write at all.

    Still it should be right: a write that goes to a reader first loses its place among the writes
    of its caller.
    """
    first, main = _words_of(statement.query)
    if main in _READING:
        return Access.READ
    return Access.UNSURE if first == "WITH" and main not in _CHANGING else Access.WRITE


def inserts(statement: Statement) -> bool:
    """True if the statement may set the last inserted rowid."""
    return first_word(statement.query) in _INSERTING


def rows_that_fit(fetched_rows: int, fetched_bytes: int, room: int) -> int:
    """How many rows to fetch next, by the size of the last ones: large rows come one by one."""
    fitting = room * fetched_rows // max(1, fetched_bytes)
    return max(1, min(FETCH_ROWS_MAX, 2 * fetched_rows, fitting))


class Runner:
    """Runs statements on one connection; every method is called in the connection's thread.

    `clock` gives the time of `Operation.deadline`. `schema` is what is known of the texts of the
    database's schema, shared by all its connections.
    """

    def __init__(
        self,
        raw: sqlite3.Connection,
        guard: Guard,
        limits: StatementLimits,
        clock: Callable[[], float],
        schema: SchemaTexts,
    ) -> None:
        self.raw = raw
        self.guard = guard
        self.limits = limits
        self._written = WrittenBytes(limits.written_bytes_max)
        self.watch = Watch(raw, clock, self._written)
        self._clock = clock
        self._schema = schema
        self._cache = StatementCache(raw)
        self._linear = LinearFunctions(
            raw,
            short_bytes=limits.function_value_bytes_max,
            value_bytes_max=limits.value_bytes_max,
            pattern_bytes=LIKE_PATTERN_BYTES_MAX,
        )
        # For the whole process, and it can only become less (sqlite.org/pragma.html).
        raw.execute(f"PRAGMA hard_heap_limit = {limits.heap_bytes_max}").close()
        raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.value_bytes_max)
        raw.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, limits.parameters_max)
        raw.set_progress_handler(self._interrupt, PROGRESS_INSTRUCTIONS)

    def begin(self, operation: Operation, seconds_max: float) -> None:
        """From here on, `operation` is what the progress handler looks at."""
        now = self._clock()
        overdue = operation.overdue(now)
        if overdue is not None:
            raise overdue
        self._written.begin()
        self.watch.begin(operation, min(operation.deadline, now + seconds_max))

    def end(self) -> None:
        """Nothing is being run any more."""
        self.watch.end()

    def take_long_way(self) -> None:
        """Puts linear functions in the place of costly ones; see `spent`."""
        self._linear.install()

    @property
    def spent(self) -> bool:
        """True if the connection has to be opened anew before the next statement runs on it."""
        return self._linear.installed

    def carefully(
        self, statement: Statement, work: Callable[[], Result], again: Callable[[], None]
    ) -> Result:
        """Does `work`, which runs a statement, so that no function in it takes long.

        Where it meets a value that is long for what it calls, it is done once more, after `again`.
        """
        functions = self._schema.functions | costly.named(statement.query)
        if not functions or self.spent:
            return work()
        short = costly.short_bytes(functions, self.limits.function_value_bytes_max)
        if short:
            self.raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, short)
            try:
                return work()
            except sqlite3.Error as failure:
                if not costly.is_too_big(failure):
                    raise
            finally:
                self.raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self.limits.value_bytes_max)
            again()
        self.take_long_way()
        return work()

    def calls_costly(self, statement: Statement) -> bool:
        """True if a statement may call a function that is costly on long values."""
        return bool(self._schema.functions or costly.named(statement.query))

    def why_interrupted(self, operation: Operation) -> HubError:
        """The error of a statement that was interrupted."""
        overdue = operation.overdue(self._clock())
        if overdue is None and self._written.over:
            return ResultTooLarge(
                f"the statement wrote over {self.limits.written_bytes_max} bytes, most of them to "
                "temporary files (written_bytes_max): sort, join or change less at once, or add "
                "an index",
                metadata={"limit_bytes": str(self.limits.written_bytes_max)},
            )
        return overdue or DeadlineExceeded(
            "the statement took longer than a statement may (read_seconds_max, "
            "write_seconds_max): do less at once, use an index, or stream it with Query"
        )

    def start(self, statement: Statement) -> sqlite3.Cursor:
        """Compiles a statement behind the guard and begins to run it."""
        self.check(statement)
        self._cache.make_room(statement.query)
        with self.guard.closed(), self.watch:
            try:
                return self.raw.execute(caller_text(statement.query), parameters(statement))
            except (sqlite3.ProgrammingError, sqlite3.Warning) as failure:
                raise _misused(failure) from failure
            except (UnicodeError, OverflowError) as failure:
                raise _unreadable(failure) from failure

    def fetch(
        self,
        cursor: sqlite3.Cursor,
        result: ResultSet,
        booleans: frozenset[int] = _NOTHING,
        remedy: str = STREAM,
    ) -> None:
        """Fetches all rows into a result, within the limits of one answer."""
        limits = self.limits
        size, rows = names_bytes(result), 0
        check_size(size, limits.result_bytes_max, SHORTER_NAMES)
        wanted = FIRST_ROWS
        while True:
            batch = self.fetch_some(cursor, wanted)
            rows += len(batch)
            if rows > limits.result_rows_max:
                raise ResultTooLarge(
                    f"the result is over {limits.result_rows_max} rows (result_rows_max): {remedy}",
                    metadata={"limit_rows": str(limits.result_rows_max)},
                )
            fetched = append_rows(result, batch, booleans)
            size += fetched
            check_size(size, limits.result_bytes_max, remedy)
            if len(batch) < wanted:
                break
            wanted = rows_that_fit(wanted, fetched, limits.result_bytes_max - size)

    def fetch_some(self, cursor: sqlite3.Cursor, count: int) -> list[tuple[None, ...]]:
        """Fetches the next rows behind the guard."""
        with self.guard.closed(), self.watch:
            try:
                return cursor.fetchmany(count)
            except (UnicodeError, OverflowError) as failure:
                raise _unreadable(failure) from failure

    def check(self, statement: Statement) -> None:
        """Refuses what must not even be compiled."""
        limits = self.limits
        size = len(statement.query.encode())
        if size > limits.statement_bytes_max:
            raise MessageTooLarge(
                f"statement.query has {size} bytes, the limit is {limits.statement_bytes_max} "
                "(statement_bytes_max): give values as parameters",
                fields={"statement.query": "is too long"},
                metadata={"limit_bytes": str(limits.statement_bytes_max)},
            )
        given = len(statement.parameters) + len(statement.named_parameters)
        if given > limits.parameters_max:
            raise InvalidRequest(
                f"the statement has {given} parameters, the limit is {limits.parameters_max} "
                "(parameters_max): split it into several",
                fields={"statement.parameters": "are too many"},
                metadata={"limit": str(limits.parameters_max)},
            )
        word = first_word(statement.query)
        if word == "VACUUM":
            # SQLite refuses it too, since writers always hold a transaction, but less clearly.
            raise StatementForbidden(
                "VACUUM may not be used: the file is the hub's to arrange",
                fields={"statement.query": "uses VACUUM"},
            )
        if not word:
            raise _wordless(statement.query)
        _check_names(statement)
        self._schema.check(statement.query, word, limits.expanded_words_max)

    def _interrupt(self) -> bool:
        return self.watch.over


def _wordless(query: str) -> InvalidStatement:
    if query.lstrip(_BLANK).startswith(";") and query.strip(f"{_BLANK};"):
        return InvalidStatement(
            "statement.query begins with a semicolon, which ends an empty statement: leave it out, "
            "and send one statement in a call",
            fields={"statement.query": "begins with a semicolon"},
        )
    return InvalidStatement(
        "statement.query holds no SQL statement: it begins with no keyword",
        fields={"statement.query": "begins with no SQL keyword"},
    )


def _check_names(statement: Statement) -> None:
    """Refuses what Python's sqlite3 would leave out in silence."""
    if not statement.named_parameters:
        return
    superfluous = sorted(statement.named_parameters.keys() - parameter_names(statement.query))
    if superfluous:
        named = ", ".join(superfluous[:NAMES_TOLD_MAX])
        raise InvalidStatement(
            f"the statement has no parameter named {named}: leave it out, or correct its name",
            fields={f"statement.named_parameters[{superfluous[0]}]": "is not in the statement"},
        )


def _misused(failure: Exception) -> HubError:
    """Python's sqlite3 refuses a second statement, and parameters that do not fit, by itself."""
    return InvalidStatement(
        f"{failure} Send one statement in a call, with as many parameters as it has places.",
        fields={"statement": str(failure)},
    )


def _unreadable(failure: Exception) -> HubError:
    """Python cannot read a name or a message of SQLite that is not UTF-8, and says so this way."""
    return InvalidStatement(
        f"a name, or what SQLite has to say, is not UTF-8: {failure}",
        fields={"statement": "meets text that is not UTF-8"},
    )
