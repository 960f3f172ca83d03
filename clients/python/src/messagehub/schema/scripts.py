"""Scripts of SQL: what their text amounts to, and the statements that they are made of."""

import re
import sqlite3
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

__all__ = ["checksum", "is_empty", "normalized", "statements"]

BYTE_ORDER_MARK: Final = "\ufeff"
# What may hide a semicolon: strings, quoted names and comments. What is not closed reaches to the
# end, and nothing is looked at twice.
_PARTS: Final = re.compile(
    r"""(?P<hidden>'(?>[^']|'')*+(?:'|\Z)|"(?>[^"]|"")*+(?:"|\Z)|`(?>[^`]|``)*+(?:`|\Z)"""
    r"""|\[[^\]]*+(?:\]|\Z))|(?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))|(?P<end>;)|(?P<word>\w+)"""
    r"""|(?P<blank>[\s\ufeff]+)|(?P<other>.)""",
    re.DOTALL,
)
_NOTHING: Final = frozenset({"comment", "blank"})


def normalized(script: str) -> str:
    """The text that the checksum is made of.

    Line ends, a byte order mark, blanks at the ends of lines and empty lines around the script
    depend on editors and on version control, so they count for nothing.
    """
    text = script.removeprefix(BYTE_ORDER_MARK).replace("\r\n", "\n").replace("\r", "\n")
    return "\n".join(line.rstrip(" \t") for line in text.split("\n")).strip("\n")


def checksum(script: str) -> str:
    """sha256 of the normalised script, hexadecimal."""
    return sha256(normalized(script).encode()).hexdigest()


def is_empty(script: str) -> bool:
    """True if a script holds no statement."""
    return next(statements(script), None) is None


def statements(script: str) -> Iterator[str]:
    """Splits a script into its statements, without the semicolons between them.

    Where one ends SQLite says (`sqlite3.complete_statement`, sqlite.org/c3ref/complete.html), so
    triggers stay whole. It is only asked where the answer may be yes: at a semicolon outside of
    quotes and comments, and within a trigger after `END`; so the time grows with the length alone.
    """
    begin = 0
    filled = refused = False
    words: list[str] = ["", ""]  # the last two things that are not blank
    for part in _PARTS.finditer(script):
        kind = part.lastgroup
        if kind in _NOTHING:
            continue
        if kind == "end":
            asked = filled and (not refused or words == [";", "END"])
            if asked and sqlite3.complete_statement(script[begin : part.end()]):
                yield script[begin : part.start()].strip()
            elif filled:
                refused = True
                words = [words[1], ";"]
                continue
            begin = part.end()
            filled = refused = False
            words = ["", ""]
            continue
        filled = True
        words = [words[1], part.group().upper() if kind == "word" else ""]
    if filled:
        yield script[begin:].strip()
