"""Functions whose cost is the product of the sizes of their arguments, and that never look up.

SQLite can be interrupted between two instructions of a statement, not within a call of a function.
A statement that names one of these therefore runs with short values first, on which SQLite's own
functions are quick. Only if it meets a longer value (SQLITE_TOOBIG) it runs again, whole, with the
functions of `linear.py` in their place, which are slower on short values and linear on long ones.

A function cannot be called without its name, so the text tells; views, triggers, checks, generated
columns and indexes call functions that only the schema names, which is why its texts count too.
`printf` takes its time for what a format says, not for what it is given: one whose format is not a
plain text in the statement always runs with the functions of `linear.py`. `strftime` is linear, but
takes a second for the longest format.
"""

import re
import sqlite3
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

# `trim` is measured at 4.6 s for 64 KiB and 0.07 s for 8 KiB, `instr` at 0.02 s, LIKE with a
# pattern of 1000 bytes at 0.07 s and GLOB at 0.11 s for 64 KiB: each is held to about 0.1 s.
TRIM_SHARE: Final = 8
TEXTS_REMEMBERED: Final = 4096
TEXT_CHARACTERS_REMEMBERED: Final = 4096

_SPACE: Final = r"(?>[\s\ufeff]|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*+"
_NAMES: Final = "instr|replace|l?trim|rtrim|jsonb?_patch|printf|format|strftime"
_NAMED: Final = re.compile(
    rf"""\b(?:(?P<call>{_NAMES})["`\]']?{_SPACE}\(|(?P<operator>like|glob)\b)""",
    re.DOTALL | re.IGNORECASE,
)
# A format that is written out, with widths of at most three digits and none from an argument.
_PLAIN_FORMAT: Final = re.compile(
    r"\s*'(?>[^'%]|''|%%|%[-+ 0,#!]*+[0-9]{0,3}(?:\.[0-9]{0,3})?[a-zA-Z])*+'\s*[,)]"
)
_FORMATTING: Final = frozenset({"printf", "format"})
_TRIMMING: Final = frozenset({"trim", "ltrim", "rtrim"})
_NONE: Final[frozenset[str]] = frozenset()


def _named(text: str) -> frozenset[str]:
    found = set()
    for match in _NAMED.finditer(text):
        name = (match["call"] or match["operator"]).lower()
        if name not in _FORMATTING or not _PLAIN_FORMAT.match(text, match.end()):
            found.add(name)
    return frozenset(found) if found else _NONE


_remembered = lru_cache(maxsize=TEXTS_REMEMBERED)(_named)


def named(text: str) -> frozenset[str]:
    """The costly functions that a text may call; a few more than it does, never fewer."""
    return _named(text) if len(text) > TEXT_CHARACTERS_REMEMBERED else _remembered(text)


def short_bytes(functions: Iterable[str], value_bytes_max: int) -> int:
    """How long values may be for SQLite's own functions; 0 if they must not be used at all."""
    names = set(functions)
    if names & _FORMATTING:
        return 0
    return max(1, value_bytes_max // TRIM_SHARE) if names & _TRIMMING else value_bytes_max


def is_too_big(failure: sqlite3.Error) -> bool:
    """True if a statement met a value over the limit that it ran with."""
    return getattr(failure, "sqlite_errorcode", 0) == sqlite3.SQLITE_TOOBIG
