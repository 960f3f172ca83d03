"""Costly functions again, each in time that is linear in the size of its arguments.

While no argument is long, SQLite's own function answers, on a connection without a file, so that
every corner of it is the same. With a long one, the answer is found by Python's linear searches.
What has no linear way is refused as too large (SQLITE_TOOBIG).

They stand in for SQLite's functions only while a statement that met a long value runs: a call from
SQLite into Python takes some five times as long, and waits for Python's global lock. There is no
way back to SQLite's own on a connection, so it is opened anew afterwards (`Runner.spent`).
"""

import re
import sqlite3
from collections.abc import Callable
from typing import Any, Final

from storage.sqlite.costly import TRIM_SHARE

Value = Any
# Below this many different characters, looking one up is as quick as comparing two.
TRIMMED_CHARACTERS_MAX: Final = 256
_ARITIES: Final = {
    "instr": (2,),
    "replace": (3,),
    "trim": (1, 2),
    "ltrim": (1, 2),
    "rtrim": (1, 2),
    "like": (2, 3),
    "glob": (2,),
    "json_patch": (2,),
    "jsonb_patch": (2,),
    "printf": (-1,),
    "format": (-1,),
    "strftime": (-1,),
}
_CONVERSION: Final = re.compile(r"%[-+ 0,#!]*(\*|[0-9]*)(?:\.(\*|[0-9]*))?.?", re.DOTALL)


class LinearFunctions:
    """Stands in for SQLite's costly functions on one connection; used in its thread."""

    def __init__(
        self, raw: sqlite3.Connection, *, short_bytes: int, value_bytes_max: int, pattern_bytes: int
    ) -> None:
        self._raw = raw
        self._short_bytes = short_bytes
        self._value_bytes_max = value_bytes_max
        self._pattern_bytes = pattern_bytes
        self._opened: sqlite3.Connection | None = None
        self.installed = False

    def install(self) -> None:
        """From here on the functions of this class answer."""
        if self.installed:
            return
        self.installed = True
        # What Python defines is not marked innocuous, so a schema could not call it otherwise.
        self._raw.execute("PRAGMA trusted_schema = ON")
        for name, arity in self._known():
            self._raw.create_function(name, arity, self._function(name), deterministic=True)

    @property
    def _native(self) -> sqlite3.Connection:
        """A connection of its own for SQLite's functions, opened when it is needed first."""
        if self._opened is None:
            self._opened = sqlite3.connect(":memory:", isolation_level=None)
            self._opened.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self._value_bytes_max)
            self._opened.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, self._pattern_bytes)
        return self._opened

    def _known(self) -> list[tuple[str, int]]:
        """What this SQLite has: older ones lack `format` and the binary JSON."""
        query = "SELECT DISTINCT name FROM pragma_function_list"
        present = {row[0] for row in self._native.execute(query)}
        return [(name, n) for name in _ARITIES if name in present for n in _ARITIES[name]]

    def _function(self, name: str) -> Callable[..., Value]:
        short = self._short_bytes // (TRIM_SHARE if name.endswith("trim") else 1)
        large = getattr(self, f"_{name}", _refuse)
        formatting = name in ("printf", "format")
        matching = name in ("like", "glob")

        def call(*arguments: Value) -> Value:
            if formatting:
                _check_format(arguments, self._value_bytes_max)
            elif sum(len(a) for a in arguments if isinstance(a, str | bytes)) > short:
                if matching and self._unlike(name, *arguments[:2]):
                    return 0
                return None if None in arguments[:2] else large(*arguments)
            return self._ask(name, *arguments)

        return call

    def _ask(self, name: str, *arguments: Value) -> Value:
        places = ", ".join("?" * len(arguments))
        try:
            return self._native.execute(f"SELECT {name}({places})", arguments).fetchone()[0]
        except sqlite3.DataError as failure:
            raise OverflowError from failure  # which Python's sqlite3 passes on as SQLITE_TOOBIG

    def _text(self, value: Value) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, bytes):
            return value.decode()
        text: str = self._native.execute("SELECT CAST(? AS TEXT)", (value,)).fetchone()[0]
        return text

    def _instr(self, within: Value, wanted: Value) -> int:
        if isinstance(within, bytes) and isinstance(wanted, bytes):
            return within.find(wanted) + 1
        return self._text(within).find(self._text(wanted)) + 1

    def _replace(self, within: Value, old: Value, new: Value) -> Value:
        text, old = self._text(within), self._text(old)
        if not old:
            return text if isinstance(within, bytes) else within
        if new is None:
            return None
        new = self._text(new)
        # Not more than can be given back is built: before it is known to fit, it is only counted.
        growth = len(new.encode()) - len(old.encode())
        if len(text.encode()) + text.count(old) * growth > self._value_bytes_max:
            raise OverflowError
        return text.replace(old, new)

    def _trim(self, text: Value, characters: Value = " ") -> str:
        return self._text(text).strip(self._set(characters))

    def _ltrim(self, text: Value, characters: Value = " ") -> str:
        return self._text(text).lstrip(self._set(characters))

    def _rtrim(self, text: Value, characters: Value = " ") -> str:
        return self._text(text).rstrip(self._set(characters))

    def _set(self, characters: Value) -> str:
        distinct = "".join(set(self._text(characters)))
        if len(distinct) > TRIMMED_CHARACTERS_MAX:
            raise OverflowError
        return distinct

    def _like(self, pattern: Value, text: Value, *escape: Value) -> int:
        wanted = self._text(pattern).encode()
        self._check_pattern(wanted, plain=not escape and b"_" not in wanted)
        # Only ASCII letters are equal in both cases, which is what `bytes.lower` does too.
        return _matches(self._text(text).encode().lower(), wanted.lower().split(b"%"))

    def _glob(self, pattern: Value, text: Value) -> int:
        wanted = self._text(pattern).encode()
        self._check_pattern(wanted, plain=not re.search(rb"[?\[]", wanted))
        return _matches(self._text(text).encode(), wanted.split(b"*"))

    def _unlike(self, name: str, *arguments: Value) -> bool:
        """True if there is a blob, and this SQLite was built to find blobs like nothing."""
        blob = any(isinstance(argument, bytes) for argument in arguments)
        return blob and not self._ask(name, b"a", "a")

    def _check_pattern(self, pattern: bytes, *, plain: bool) -> None:
        if not plain or len(pattern) > self._pattern_bytes:
            raise OverflowError


def _refuse(*_: Value) -> Value:
    raise OverflowError


def _matches(text: bytes, parts: list[bytes]) -> int:
    """True if the parts come one after the other, the first one first and the last one last."""
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return int(text == first)
    if not text.startswith(first) or not text.endswith(last):
        return 0
    place, end = len(first), len(text) - len(last)
    for part in parts[1:-1]:
        found = text.find(part, place, end)
        if found < 0:
            return 0
        place = found + len(part)
    return int(place <= end)


def _check_format(arguments: tuple[Value, ...], limit: int) -> None:
    """Refuses a format that would build more than a value may hold.

    Before 3.43 SQLite counts a precision up to its end even when nothing is kept of it. An
    argument may be meant for any `*`, so each counts.
    """
    if not arguments or not isinstance(arguments[0], str | bytes):
        return
    text = arguments[0] if isinstance(arguments[0], str) else arguments[0].decode()
    total = 0
    widest = max((abs(int(a)) for a in arguments[1:] if _is_number(a)), default=0)
    for found in _CONVERSION.finditer(text):
        for size in found.groups():
            total += widest if size == "*" else int((size or "0")[:12])
    if total > limit:
        raise OverflowError


def _is_number(value: Value) -> bool:
    try:
        int(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True
