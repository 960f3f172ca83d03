"""Contenders measured in turn, round after round, so that a busy moment hits all of them alike."""

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

Figures = Mapping[str, float]

# What stands above a figure, and behind it.
SHOWN = {
    "per_second": ("operations a second", "/s"),
    "p50_ms": ("p50", "ms"),
    "p99_ms": ("p99", "ms"),
    "processor_us": ("processor time of one", "µs"),
    "memory_kib": ("memory", "KiB"),
    "disk_kib": ("disk", "KiB"),
}


@dataclass(frozen=True, slots=True)
class Hope:
    """What a contender should reach, as a ratio to the first one of its subject."""

    figure: str
    ratio: float
    at_least: bool
    # Why it does not, when it does not.
    reason: str

    def met(self, ratio: float) -> bool:
        """Whether the ratio is on the right side."""
        return ratio >= self.ratio if self.at_least else ratio <= self.ratio

    def __str__(self) -> str:
        return f"at {'least' if self.at_least else 'most'} {self.ratio}"


@dataclass(frozen=True, slots=True)
class Contender:
    """One system doing one thing, and what it promises meanwhile (fsync, batching, hops)."""

    name: str
    promise: str
    measure: Callable[[], Awaitable[Figures]]
    hope: Hope | None = None
    # Where it stands on the plots: the curve and its place on the x axis.
    curve: str = ""
    x: float = 0.0


@dataclass(frozen=True, slots=True)
class Subject:
    """Contenders that are compared; the first one is what the others are a ratio of."""

    name: str
    title: str
    headline: str
    contenders: Sequence[Contender]
    notes: Sequence[str] = ()


@dataclass
class Row:
    """A contender's rounds."""

    contender: Contender
    rounds: list[Figures] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def median(self, figure: str) -> float:
        """The median of the rounds."""
        return median(one[figure] for one in self.rounds)

    def spread(self, figure: str) -> tuple[float, float]:
        """The least and the most of the rounds."""
        values = [one[figure] for one in self.rounds]
        return min(values), max(values)

    @property
    def ratio(self) -> float:
        """The median of the ratios, each of figures of the same round."""
        return median(self.ratios)

    @property
    def missed(self) -> Hope | None:
        """The hope that was not met."""
        hope = self.contender.hope
        return hope if hope is not None and not hope.met(self.ratio) else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A subject that was measured."""

    subject: Subject
    rows: Sequence[Row]


async def compare(subject: Subject, rounds: int) -> Outcome:
    """Measures every contender once a round."""
    rows = [Row(contender) for contender in subject.contenders]
    for number in range(rounds):
        for row in rows:
            print(
                f"  {subject.name}, round {number + 1} of {rounds}: {row.contender.name}",
                file=sys.stderr,
            )
            row.rounds.append(await row.contender.measure())
            base = rows[0].rounds[number][subject.headline]
            row.ratios.append(row.rounds[number][subject.headline] / base)
    return Outcome(subject, rows)
