"""What a reviewer should look at in a statement: lost data, and reads of everything."""

import re
import sqlite3
from typing import Final

from storage.sqlite.failures import FAILURES
from storage.sqlite.guard import caller_text
from storage.sqlite.schema import shape
from storage.sqlite.statements import Runner, first_word

_PLANNED: Final = frozenset({"SELECT", "WITH", "INSERT", "REPLACE", "UPDATE", "DELETE", "CREATE"})
_SHAPING: Final = frozenset({"ALTER", "DROP"})
# The plan's lines are `SCAN t`, `SCAN t USING …`; a list of values is one as well.
_SCAN: Final = re.compile(r"SCAN (?!CONSTANT ROW|\d)(\S+)")
_INDEXED: Final = re.compile(
    r"\s*CREATE\s+(?:UNIQUE\s+)?INDEX\b.*?\bON\s+([\"'`\[]?)([^\s\"'`\](]+)",
    re.IGNORECASE | re.DOTALL,
)
_LOSING: Final = re.compile(r"\bOR\s+REPLACE\b", re.IGNORECASE)


class Review:
    """Looks at one statement: made before it runs, asked afterwards."""

    def __init__(self, runner: Runner, statement: str) -> None:
        self._runner = runner
        self._raw = runner.raw
        self._word = first_word(statement)
        self._statement = statement
        self._scanned = self._scans() if self._word in _PLANNED else []
        self._columns = shape.column_names(self._raw) if self._word in _SHAPING else {}

    def warnings(self, rows_affected: int) -> list[str]:
        """What the statement, which has run, did that cannot be undone, or what was slow."""
        told = [*self._lost(), *self._scanned]
        if self._word == "DELETE" and rows_affected:
            told.insert(0, f"deletes {rows_affected} rows")
        if self._word == "REPLACE" or (self._word == "INSERT" and _LOSING.search(self._statement)):
            told.insert(0, "replaces rows that have the same key")
        return told

    def _scans(self) -> list[str]:
        if found := _INDEXED.match(self._statement):
            return [f"reads every row of {found[2]}"]
        try:
            with self._runner.guard.closed(), self._runner.watch:
                query = caller_text(f"EXPLAIN QUERY PLAN {self._statement}")
                plan = [row[3] for row in self._raw.execute(query).fetchall()]
        except (*FAILURES, sqlite3.Warning, UnicodeError):
            return []  # it will say itself why it cannot be run
        found_names = (_SCAN.match(line) for line in plan)
        names = dict.fromkeys(match[1] for match in found_names if match is not None)
        return [f"reads every row of {name}" for name in names]

    def _lost(self) -> list[str]:
        if self._word not in _SHAPING:
            return []
        after = shape.column_names(self._raw)
        told: list[str] = []
        for table, columns in self._columns.items():
            if table not in after:
                if self._word == "DROP":
                    told.append(f"drops the table {table} with all its rows")
            elif len(after[table]) < len(columns):
                lost = ", ".join(sorted(columns - after[table]))
                told.append(f"drops the column {lost} of {table} from every row")
        return told
