"""What the texts of a database's schema add to the cost of statements that do not show it.

Shared by all connections of a database. It only grows, also by statements that fail: to know too
much makes a statement slower or is refused too early, to know too little lets it hurt others.
"""

import sqlite3
from functools import lru_cache
from threading import Lock
from typing import Final

from messagehub.errors import InvalidStatement
from storage.sqlite import costly, expansion
from storage.sqlite.expansion import Body, Reading

TEXTS_REMEMBERED: Final = 1024
TEXT_CHARACTERS_REMEMBERED: Final = 4096
_TEXTS: Final = "SELECT sql FROM main.sqlite_master WHERE sql IS NOT NULL"
_DEFINING: Final = frozenset({"CREATE", "ALTER"})

_remembered = lru_cache(maxsize=TEXTS_REMEMBERED)(expansion.read)


def _read(text: str) -> Reading:
    return expansion.read(text) if len(text) > TEXT_CHARACTERS_REMEMBERED else _remembered(text)


class SchemaTexts:
    """The costly functions that the schema calls, and its views."""

    def __init__(self) -> None:
        self.functions: frozenset[str] = frozenset()
        self._views: dict[str, Body] = {}
        self._lock = Lock()

    def load(self, raw: sqlite3.Connection) -> None:
        """Learns what the file holds."""
        for (text,) in raw.execute(_TEXTS).fetchall():
            self.functions |= costly.named(text)
            reading = expansion.read(text)
            if reading.creates:
                self._views[reading.creates] = _whole(reading)

    def check(self, query: str, first_word: str, words_max: int) -> None:
        """Refuses a statement that grows too large where views and WITH are put in.

        Learns from one that defines something.
        """
        if first_word in _DEFINING:
            with self._lock:
                self._learn(query, words_max)
        elif self._views or "with" in query.lower():
            _check(expansion.expanded_words(_read(query), self._views), words_max)

    def _learn(self, query: str, words_max: int) -> None:
        self.functions |= costly.named(query)
        reading = expansion.read(query)
        views = self._views
        if reading.creates:
            views = {**views, reading.creates: _whole(reading)}
        _check(expansion.expanded_words(reading, views), words_max)
        # A view may be defined before those that it names, so a new one may make an old one large.
        if reading.creates:
            _check(expansion.largest(views), words_max)
        self._views = views


def _whole(reading: Reading) -> Body:
    """A view as one body: what its own WITH clauses define is put in."""
    words = reading.main.words + expansion.expanded_words(reading, {})
    outside = [name for name in reading.main.named if name not in reading.defined]
    outside += [n for body in reading.defined.values() for n in body.named]
    return Body(words, outside)


def _check(words: int, limit: int) -> None:
    if words > limit:
        raise InvalidStatement(
            f"the statement grows by {words} words where views and common table expressions are "
            f"put in, the limit is {limit} (expanded_words_max): name each of them less often, or "
            "keep an intermediate result in a table",
            fields={"statement.query": "names views or common table expressions too often"},
            metadata={"limit_words": str(limit)},
        )
