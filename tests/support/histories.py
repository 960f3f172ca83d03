"""What clients did to lists, and what they were told: the material of a consistency check."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

Key: TypeAlias = Hashable


class Outcome(Enum):
    """How a transaction ended, as far as its client knows."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Append:
    """Puts a value, which nobody else ever puts anywhere, at the end of a list."""

    key: Key
    value: int


@dataclass
class Read:
    """Reads a list; `values` is None while no answer came."""

    key: Key
    values: tuple[int, ...] | None = None


@dataclass
class ListTransaction:
    """Operations that were done in one transaction, in this order."""

    name: str
    operations: list[Append | Read]
    outcome: Outcome = Outcome.UNKNOWN

    def appends(self) -> list[Append]:
        """Its appends, in order."""
        return [each for each in self.operations if isinstance(each, Append)]

    def reads(self) -> list[Read]:
        """Its reads that were answered, in order."""
        return [
            each for each in self.operations if isinstance(each, Read) and each.values is not None
        ]


@dataclass
class History:
    """All transactions, and every list as it was at the very end."""

    transactions: list[ListTransaction] = field(default_factory=list)
    final: dict[Key, tuple[int, ...]] = field(default_factory=dict)
