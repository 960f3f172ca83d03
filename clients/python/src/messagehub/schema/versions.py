"""Semantic versions of schemas (semver.org 2.0.0): `1.10.0` is above `1.9.0`."""

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Final, Self

from messagehub.errors import InvalidRequest

__all__ = ["NOTHING", "SemanticVersion"]

CHARACTERS_MAX: Final = 128
_FORM: Final = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?",
    re.ASCII,
)

# A number ranks below a word; of two numbers, or two words, the smaller one does.
_Rank = tuple[int, int, str]


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class SemanticVersion:
    """One version. What follows a plus sign is kept, but counts for nothing (semver.org §10)."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()
    build: str = ""

    @classmethod
    def parse(cls, text: str, field: str = "version") -> Self:
        """Reads a version; raises `InvalidRequest`, which names `field`, for anything else."""
        found = _FORM.fullmatch(text) if len(text) <= CHARACTERS_MAX else None
        if found is None:
            what = "must be a semantic version of three numbers, such as 1.10.0"
            raise InvalidRequest(f"{field} {what}; it is {text[:64]!r}", fields={field: what})
        major, minor, patch, prerelease, build = found.groups()
        words = tuple(prerelease.split(".")) if prerelease else ()
        return cls(int(major), int(minor), int(patch), words, build or "")

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.patch}"
        if self.prerelease:
            text += "-" + ".".join(self.prerelease)
        return f"{text}+{self.build}" if self.build else text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SemanticVersion):
            return NotImplemented
        return self._key() == other._key()

    def __lt__(self, other: "SemanticVersion") -> bool:
        return self._key() < other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[int, int, int, bool, tuple[_Rank, ...]]:
        # A prerelease ranks below its release (semver.org §11).
        ranks = tuple(map(_rank, self.prerelease))
        return self.major, self.minor, self.patch, not self.prerelease, ranks


def _rank(word: str) -> _Rank:
    return (0, int(word), "") if word.isdigit() else (1, 0, word)


# Below every version that a script may lead to: a database that was never updated.
NOTHING: Final = SemanticVersion(0, 0, 0)
