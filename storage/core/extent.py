"""What a journal holds at a moment, and whether it can be read on from a place."""

from dataclasses import dataclass
from typing import NamedTuple

from messagehub.errors import CursorEpochChanged, CursorExpired


class Place(NamedTuple):
    """A place in a journal: right after the entry with this sequence."""

    epoch: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Extent:
    """The places of a database's journal that can be read on from, both ends included."""

    database: str
    epoch: str
    oldest_sequence: int
    newest_sequence: int

    @property
    def facts(self) -> dict[str, str]:
        """What a refusal carries, so that its receiver can begin again."""
        return {
            "database": self.database,
            "epoch": self.epoch,
            "oldest_sequence": str(self.oldest_sequence),
        }

    def check(self, place: Place) -> None:
        """Raises `CursorEpochChanged` or `CursorExpired` for a place that is not inside."""
        if place.epoch != self.epoch:
            raise CursorEpochChanged(
                f"the cursor is from another life of {self.database} (it was restored or replaced "
                "since): begin again at the oldest cursor",
                metadata=self.facts,
            )
        if place.sequence < self.oldest_sequence:
            raise CursorExpired(
                f"the cursor is older than what {self.database} keeps: begin again at the oldest "
                "cursor and expect to have missed events",
                metadata=self.facts,
            )
        if place.sequence > self.newest_sequence:
            raise CursorEpochChanged(
                f"the cursor is ahead of {self.database}, so it is not from this data: begin again "
                "at the oldest cursor",
                metadata=self.facts,
            )
