import io
import json
import math

import pytest
from rich.console import Console

from messagehub.cli.tables import JsonLines, TabSeparated, TerminalTables, aligned
from messagehub.client import Result

OUTCOME = Result((), [], 1, 9, "a_db", 42, "", False, "c-1")


def terminal(width: int = 80) -> tuple[TerminalTables, io.StringIO]:
    text = io.StringIO()
    return TerminalTables(Console(file=text, width=width, force_terminal=False)), text


def test_lines_for_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    printer = TabSeparated()
    printer.begin(["a", "b\tc"])
    printer.row([1, "x\ty\n\\"])
    printer.row([None, b"\0\xff"])
    printer.row([1.5, True])
    printer.end()
    printer.outcome(OUTCOME)
    assert capsys.readouterr().out.splitlines() == [
        "a\tb\\tc",
        "1\tx\\ty\\n\\\\",
        "\\N\tx'00ff'",
        "1.5\tTrue",
        "1 row affected; a_db is at 42",
    ]


def test_objects_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    printer = JsonLines()
    printer.begin(["id", "id", "id", "ü"])
    printer.row([2**63 - 1, None, b"\0\xff", "ä\n"])
    printer.row([math.nan, math.inf, -math.inf, 0.5])
    printer.outcome(OUTCOME)
    first, second, third = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"id": 2**63 - 1, "id:1": None, "id:2": {"base64": "AP8="}, "ü": "ä\n"}
    assert second == {
        "id": {"real": "NaN"},
        "id:1": {"real": "Infinity"},
        "id:2": {"real": "-Infinity"},
        "ü": 0.5,
    }
    assert third["rows_affected"] == 1
    assert third["last_insert_id"] == 9
    assert third["sequence"] == 42


def test_a_table_for_people() -> None:
    printer, text = terminal()
    printer.begin(["name", "level"])
    printer.row(["Ada", 20])
    printer.row(["[bold]Bob[/bold]", None])
    printer.end()
    lines = [line.rstrip() for line in text.getvalue().splitlines() if line.strip()]
    assert lines[0].split() == ["name", "level"]
    assert lines[2].split() == ["Ada", "20"]
    assert lines[3].split() == ["[bold]Bob[/bold]", "NULL"]
    assert lines[-1] == "2 rows"


def test_a_table_without_rows_has_a_heading() -> None:
    printer, text = terminal()
    printer.begin(["name"])
    printer.end()
    assert "name" in text.getvalue()
    assert "0 rows" in text.getvalue()


def test_a_long_table_is_printed_as_it_comes() -> None:
    printer, text = terminal()
    printer.begin(["n"])
    for n in range(2500):
        printer.row([n])
    assert "1999" in text.getvalue()
    printer.end()
    assert text.getvalue().rstrip().endswith("2500 rows")


def test_a_terminal_is_not_sent_what_it_would_obey() -> None:
    printer, text = terminal()
    printer.begin(["\x1b[2J"])
    printer.row(["\x1b]0;title\x07"])
    printer.end()
    assert "\x1b" not in text.getvalue()
    assert "\\x1b]0;title\\x07" in text.getvalue()
    assert "\x1b" not in aligned(["a"], [["\x1b[2J"]])


def test_texts_are_aligned() -> None:
    assert aligned(["A", "LONG"], [["xyz", "1"]]) == "A    LONG\nxyz  1"
