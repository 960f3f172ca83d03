"""Rows for people (a table), for pipes (tab-separated lines) and for programs (JSON lines).

Each of them holds a bounded number of rows, however many there are.
"""

import base64
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from messagehub.cli.printable import CONTROLS, json_text, printable
from messagehub.client import Result
from messagehub.values import SqlValue

__all__ = [
    "JsonLines",
    "RowPrinter",
    "TabSeparated",
    "TerminalTables",
    "aligned",
    "json_value",
    "row_printer",
]

# The widths of a table's columns come from its rows, so the rows come in tables of this many.
TABLE_ROWS_MAX: Final = 1000
BLOB_BYTES_SHOWN: Final = 32
_ESCAPES: Final = str.maketrans(
    {chr(code): f"\\x{code:02x}" for code in CONTROLS}
    | {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
)


class RowPrinter(Protocol):
    """Prints what one statement after another gives."""

    def begin(self, columns: Sequence[str]) -> None:
        """Starts a result with these columns."""

    def row(self, row: Sequence[SqlValue]) -> None:
        """Takes a row."""

    def end(self) -> None:
        """Ends the result."""

    def outcome(self, result: Result) -> None:
        """Prints the outcome of a statement without rows."""


def row_printer(*, as_json: bool) -> RowPrinter:
    """Gives the printer that fits: JSON if asked for, a table on a terminal, else lines."""
    if as_json:
        return JsonLines()
    return TerminalTables() if sys.stdout.isatty() else TabSeparated()


class TerminalTables:
    """Tables that fit the terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._columns: Sequence[str] = ()
        self._rows: list[Sequence[SqlValue]] = []
        self._count = 0

    def begin(self, columns: Sequence[str]) -> None:
        """Starts a result with these columns."""
        self._columns = columns
        self._rows = []
        self._count = 0

    def row(self, row: Sequence[SqlValue]) -> None:
        """Takes a row; every thousandth prints a table."""
        self._rows.append(row)
        self._count += 1
        if len(self._rows) == TABLE_ROWS_MAX:
            self._print()

    def end(self) -> None:
        """Prints what is left, and the number of rows."""
        if self._rows or not self._count:
            self._print()
        self._console.print(Text(f"{self._count} row{'' if self._count == 1 else 's'}"))

    def outcome(self, result: Result) -> None:
        """Prints what a write changed."""
        self._console.print(Text(_outcome_line(result)))

    def _print(self) -> None:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for position, name in enumerate(self._columns):
            numbers = all(_is_number(row[position]) for row in self._rows)
            table.add_column(Text(printable(name)), justify="right" if numbers else "left")
        for row in self._rows:
            table.add_row(*(_cell(value) for value in row))
        self._console.print(table)
        self._rows = []


class TabSeparated:
    r"""A line of names, then a line for each row, with tabs between.

    NULL is `\N`; tabs, line ends and backslashes in texts are `\t`, `\n`, `\r` and `\\`, other
    control characters `\xHH`; blobs are `x'hex'`.
    """

    def begin(self, columns: Sequence[str]) -> None:
        """Prints the names."""
        click.echo("\t".join(name.translate(_ESCAPES) for name in columns))

    def row(self, row: Sequence[SqlValue]) -> None:
        """Prints a row."""
        click.echo("\t".join(_field(value) for value in row))

    def end(self) -> None:
        """Prints nothing."""

    def outcome(self, result: Result) -> None:
        """Prints what a write changed."""
        click.echo(_outcome_line(result))


class JsonLines:
    """A JSON object for each row or outcome, one on a line.

    A blob is `{"base64": "..."}`; NaN and the infinities are `{"real": "NaN"}` and so on. A column
    whose name was there before gets `:1`, `:2` and so on.
    """

    def __init__(self) -> None:
        self._names: list[str] = []

    def begin(self, columns: Sequence[str]) -> None:
        """Remembers the names."""
        self._names = []
        for name in columns:
            unique, repetition = name, 0
            while unique in self._names:
                repetition += 1
                unique = f"{name}:{repetition}"
            self._names.append(unique)

    def row(self, row: Sequence[SqlValue]) -> None:
        """Prints a row."""
        self._print(dict(zip(self._names, map(json_value, row), strict=True)))

    def end(self) -> None:
        """Prints nothing."""

    def outcome(self, result: Result) -> None:
        """Prints what a write changed."""
        self._print(
            {
                "rows_affected": result.rows_affected,
                "last_insert_id": result.last_insert_id,
                "database": result.database,
                "sequence": result.sequence,
                "replayed": result.replayed,
                "correlation_id": result.correlation_id,
            }
        )

    def _print(self, fields: dict[str, Any]) -> None:
        click.echo(json_text(fields))


def aligned(heading: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Gives a short table of texts, its columns aligned by spaces."""
    cells = [[printable(cell) for cell in line] for line in (heading, *lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _outcome_line(result: Result) -> str:
    rows = "1 row" if result.rows_affected == 1 else f"{result.rows_affected} rows"
    return f"{rows} affected; {result.database} is at {result.sequence}"


def _is_number(value: SqlValue) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: SqlValue) -> Text:
    if value is None:
        return Text("NULL", style="dim")
    if isinstance(value, bytes) and len(value) > BLOB_BYTES_SHOWN:
        return Text(f"x'{value[:BLOB_BYTES_SHOWN].hex()}…' ({len(value)} bytes)")
    return Text(printable(value) if isinstance(value, str) else _plain(value))


def _plain(value: SqlValue) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"x'{bytes(value).hex()}'"
    return str(value)


def _field(value: SqlValue) -> str:
    if value is None:
        return r"\N"
    return value.translate(_ESCAPES) if isinstance(value, str) else _plain(value)


def json_value(value: SqlValue) -> Any:
    """Gives a value as JSON knows it; see `JsonLines` for what it does not know."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return {"real": name}
    return value
