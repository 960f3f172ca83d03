"""Ranges of schema versions that an operation is written for, such as `>=1.2 <2`.

    >=1.2 <2      all of them hold, separated by blanks or commas
    1.2 || 2      one of them holds
    1.2, 1.2.x    any version that begins so; 1.2.3 is that version alone
    ^1.2          from 1.2.0 on, as long as the first number that is not 0 stays
    ~1.2          from 1.2.0 on, as long as the second number stays
    *             any version, but one

A bound that is not written out means what people mean: `<2` excludes prereleases of 2.0.0, `>1.2`
begins with 1.3.0, `<=1.2` ends before 1.3.0. A database without a version is in no range.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from messagehub.errors import InvalidRequest, SchemaMismatch
from messagehub.schema.versions import SemanticVersion

__all__ = ["VersionRange", "check_version", "parse_range"]

CHARACTERS_MAX: Final = 256
RANGES_REMEMBERED: Final = 256
_COMPARISON: Final = re.compile(
    r"(\^|~|<=|>=|<|>|=|!=)?\s*v?(\d+|[xX*])(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?"
    r"(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?(?=[\s,|]|\Z)",
    re.ASCII,
)
_ANY: Final = frozenset("xX*")
# Below every prerelease of a version.
_LOWEST: Final = ("0",)

Test = Callable[[SemanticVersion], bool]


@dataclass(frozen=True, slots=True)
class VersionRange:
    """A range; `text` is how it was written."""

    text: str
    alternatives: tuple[tuple[Test, ...], ...]

    def holds(self, version: str) -> bool:
        """True if a version, or the empty string for none, is in the range."""
        if not version:
            return False
        known = SemanticVersion.parse(version)
        return any(all(test(known) for test in tests) for tests in self.alternatives)


@lru_cache(maxsize=RANGES_REMEMBERED)
def parse_range(text: str, field: str = "schema_version") -> VersionRange:
    """Reads a range; raises `InvalidRequest`, which names `field`, for anything else."""
    if len(text) > CHARACTERS_MAX:
        raise _unreadable(text, field)
    alternatives = tuple(_tests(part.strip(" ,\t"), text, field) for part in text.split("||"))
    return VersionRange(text, alternatives)


def check_version(wanted: str, actual: str, database: str) -> None:
    """Raises `SchemaMismatch` unless a database's version is in the range; an empty one is any."""
    if not wanted or parse_range(wanted).holds(actual):
        return
    raise SchemaMismatch(
        f"{database} has the schema version {actual or 'none'}, the operation is written for "
        f"{wanted}: update the one or the other",
        metadata={"database": database, "wanted": wanted, "actual": actual},
    )


def _tests(part: str, text: str, field: str) -> tuple[Test, ...]:
    tests: list[Test] = []
    place = 0
    while place < len(part):
        found = _COMPARISON.match(part, place)
        if found is None:
            raise _unreadable(text, field)
        tests += _comparison(found, text, field)
        place = found.end()
        while place < len(part) and part[place] in " ,\t":
            place += 1
    if not tests:
        raise _unreadable(text, field)
    return tuple(tests)


def _comparison(found: "re.Match[str]", text: str, field: str) -> list[Test]:
    sign = found[1] or ""
    given = [found[2], found[3], found[4]]
    numbers: list[int] = []
    for number in given:
        if number is None or number in _ANY:
            break
        numbers.append(int(number))
    suffix = found[5] or ""
    if any(n is not None and n not in _ANY for n in given[len(numbers) :]):
        raise _unreadable(text, field)
    if suffix and len(numbers) < len(given):
        raise _unreadable(text, field)
    if not numbers:
        if sign not in ("", "=", ">=", "<="):
            raise _unreadable(text, field)
        return [lambda _: True]
    padded = ".".join(map(str, numbers + [0] * (len(given) - len(numbers))))
    low = SemanticVersion.parse(padded + suffix, field)
    after = _next(numbers)  # the first version that does not begin with these numbers
    if sign in ("", "=", "!="):
        whole = len(numbers) == len(given)
        tests = [_is(low)] if whole else [_from(low), _below(after)]
        return [_not(tests)] if sign == "!=" else tests
    if sign == "~":
        return [_from(low), _below(_next(numbers[:2]))]
    if sign == "^":
        return [_from(low), _below(_next(_leading(numbers)))]
    return _bound(sign, low, after, whole=len(numbers) == len(given))


def _bound(sign: str, low: SemanticVersion, after: SemanticVersion, *, whole: bool) -> list[Test]:
    if sign == ">=":
        return [_from(low)]
    if sign == "<":
        return [_below(low if whole else _lowest(low))]
    if sign == ">":
        return [_above(low)] if whole else [_from(_release(after))]
    return [_not([_above(low)])] if whole else [_below(after)]


def _leading(numbers: list[int]) -> list[int]:
    """The numbers up to the first that is not 0."""
    for place, number in enumerate(numbers):
        if number:
            return numbers[: place + 1]
    return numbers


def _next(numbers: list[int]) -> SemanticVersion:
    raised = [*numbers[:-1], numbers[-1] + 1, 0, 0]
    return SemanticVersion(raised[0], raised[1], raised[2], _LOWEST)


def _lowest(version: SemanticVersion) -> SemanticVersion:
    return SemanticVersion(version.major, version.minor, version.patch, _LOWEST)


def _release(version: SemanticVersion) -> SemanticVersion:
    return SemanticVersion(version.major, version.minor, version.patch)


def _is(wanted: SemanticVersion) -> Test:
    return lambda version: version == wanted


def _from(low: SemanticVersion) -> Test:
    return lambda version: version >= low


def _above(low: SemanticVersion) -> Test:
    return lambda version: version > low


def _below(high: SemanticVersion) -> Test:
    return lambda version: version < high


def _not(tests: list[Test]) -> Test:
    return lambda version: not all(test(version) for test in tests)


def _unreadable(text: str, field: str) -> InvalidRequest:
    what = "must be a range of schema versions, such as >=1.2 <2"
    return InvalidRequest(f"{field} {what}; it is {text[:64]!r}", fields={field: what})
