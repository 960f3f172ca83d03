"""SQL text as people write it: where a statement ends, what it begins with, its parameters."""

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, NoReturn

import click

from messagehub.values import Parameters, SqlValue

__all__ = ["Piece", "leading_keyword", "parse_parameters", "split"]

_BLANK: Final = re.compile(r"(?:[\s\ufeff]+|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*", re.DOTALL)
_WORD: Final = re.compile(r"[A-Za-z]+")
_NAMED: Final = re.compile(r"[:@$](\w+)=(.*)", re.DOTALL)


class Piece(NamedTuple):
    """A statement and the number of the line that it begins on."""

    text: str
    line: int


def leading_keyword(text: str) -> str:
    """Gives the first word in capitals; empty if there is nothing but blanks and comments."""
    start = _BLANK.match(text)
    word = _WORD.match(text, start.end() if start else 0)
    return word.group().upper() if word else ""


def split(lines: Iterable[str]) -> Iterator[Piece]:
    """Gives the statements of a text as they become complete.

    SQLite's own rules say where one ends, so a trigger is one statement. The last one needs no
    semicolon. Comments alone are no statement.
    """
    pending, began = "", 1
    for number, line in enumerate(lines, start=1):
        pending += line
        searched = len(pending) - len(line)
        while (end := pending.find(";", searched) + 1) > 0:
            if not sqlite3.complete_statement(pending[:end]):
                searched = end
                continue
            yield from _piece(pending[:end], began)
            pending, searched, began = pending[end:], 0, number
    yield from _piece(pending, began)


def parse_parameters(given: Sequence[str]) -> Parameters:
    """Gives the parameters of `--param`: `VALUE` for `?`, `:NAME=VALUE` for `:NAME`.

    A value that is a JSON number, `true`, `false`, `null` or a quoted JSON text stands for that;
    anything else is the text as it stands.
    """
    named = {m[1]: _parameter(m[2]) for text in given if (m := _NAMED.fullmatch(text))}
    if named and len(named) != len(given):
        raise click.UsageError(
            "--param: give either VALUE or :NAME=VALUE, every time the same, each name once"
        )
    return named or [_parameter(text) for text in given]


def _piece(text: str, began: int) -> Iterator[Piece]:
    blank = _BLANK.match(text)
    start = blank.end() if blank else 0
    if text[start:].strip("; \t\r\n"):
        yield Piece(text.strip(), began + text.count("\n", 0, start))


def _parameter(text: str) -> SqlValue:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return text


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
