"""How large a statement becomes when SQLite puts views and common table expressions in their place.

SQLite copies the body of one for each place that names it, before anything can be interrupted, so
a chain of twenty in which each names the one before twice is a million copies, and gigabytes. The
copies are counted here, from the text alone, in words; measured at about 200 bytes a word.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

_TOKENS: Final = re.compile(
    r"""(?P<string>'(?>[^']|'')*+(?:'|\Z))|(?P<quoted>"(?>[^"]|"")*+(?:"|\Z)|"""
    r"""`(?>[^`]|``)*+(?:`|\Z)|\[[^\]]*+(?:\]|\Z))"""
    r"""|--[^\n]*|/\*.*?(?:\*/|\Z)|(?P<word>[\w$]+)|(?P<mark>[(),.])""",
    re.DOTALL,
)
_BODIES: Final = frozenset({"select", "values", "with"})
# A name stands for rows after one of these; after a comma or a parenthesis it may.
_BEFORE_ROWS: Final = frozenset({"from", "join", "in", ",", "("})


@dataclass(slots=True)
class Body:
    """What one definition, or a whole statement, says: its words, and whom it names."""

    words: int = 0
    named: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Reading:
    """A text taken apart: the statement itself, and what its WITH clauses define."""

    main: Body
    defined: dict[str, Body]
    # The view or trigger that the statement creates; empty if it creates none.
    creates: str


def _tokens(text: str) -> list[str]:
    """Words in lower case, names without their quotes."""
    found = []
    for match in _TOKENS.finditer(text):
        kind = match.lastgroup
        if kind in ("string", "quoted"):
            found.append(match.group()[1:-1].lower() or "''")
        elif kind is not None:
            found.append(match.group().lower())
    return found


def read(text: str) -> Reading:
    """Takes a text apart. Where it is ambiguous, it is taken for the larger one."""
    parts = _tokens(text)
    main = Body()
    reading = Reading(main, {}, _created(parts))
    bodies = dict(_begun(parts))
    open_bodies: list[tuple[int, Body]] = []
    depth = 0
    for place, part in enumerate(parts):
        current = open_bodies[-1][1] if open_bodies else main
        current.words += 1
        if part == "(":
            depth += 1
            if place in bodies:
                body = reading.defined.setdefault(bodies[place], Body())
                open_bodies.append((depth, body))
        elif part == ")":
            if open_bodies and open_bodies[-1][0] == depth:
                open_bodies.pop()
            depth -= 1
        elif _stands_for_rows(parts, place):
            current.named.append(part)
    return reading


def _stands_for_rows(parts: list[str], place: int) -> bool:
    before = parts[max(0, place - 2) : place]
    if before == ["main", "."]:
        return True
    return (
        before[-1:] != [] and before[-1] in _BEFORE_ROWS and parts[place + 1 : place + 2] != ["."]
    )


def _created(parts: list[str]) -> str:
    """The view or trigger that a text creates, by a name that is neither's alone."""
    if parts[:1] != ["create"]:
        return ""
    for kind in ("view", "trigger"):
        if kind in parts[1:3]:
            rest = parts[parts.index(kind) + 1 :]
            rest = rest[3:] if rest[:3] == ["if", "not", "exists"] else rest
            rest = rest[2:] if rest[1:2] == ["."] else rest
            name = rest[0] if rest else ""
            return name if kind == "view" else f"trigger {name}"
    return ""


def _begun(parts: list[str]) -> Iterator[tuple[int, str]]:
    """Where the body of a common table expression begins, and the name of it."""
    opened: list[int] = []
    before: dict[int, int] = {}
    for place, part in enumerate(parts):
        if part == "(":
            opened.append(place)
        elif part == ")" and opened:
            before[place] = opened.pop() - 1
        elif part == "as" and place:
            start = place + 1
            start += parts[start : start + 1] == ["not"]
            start += parts[start : start + 1] == ["materialized"]
            if parts[start : start + 1] == ["("] and _BODIES & set(parts[start + 1 : start + 2]):
                named = before.get(place - 1, place - 1)
                yield start, parts[named]


def expanded_words(reading: Reading, views: Mapping[str, Body]) -> int:
    """The words that are copied into the places of names."""
    sizes = _sizes(reading.main.named, {**views, **reading.defined})
    return sum(sizes.get(name, 0) for name in reading.main.named)


def largest(views: Mapping[str, Body]) -> int:
    """The words of the largest view, once all that it names is put in."""
    return max(_sizes(list(views), views).values(), default=0)


def _sizes(wanted: list[str], bodies: Mapping[str, Body]) -> dict[str, int]:
    """The words of bodies with all that they name; what names itself is counted once.

    Depth first, without recursion, since a chain may be long.
    """
    sizes: dict[str, int] = {}
    entered: set[str] = set()
    pending = [name for name in wanted if name in bodies]
    while pending:
        name = pending[-1]
        body = bodies[name]
        if name not in entered:
            entered.add(name)
            pending += [n for n in body.named if n in bodies and n not in entered]
            continue
        pending.pop()
        if name not in sizes:
            sizes[name] = body.words + sum(sizes.get(n, 0) for n in body.named)
    return sizes
