"""How long and how much is measured."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Scale:
    """The sizes of a run; the defaults are those of `make bench`."""

    rounds: int = 3
    seconds: float = 2.0
    callers: tuple[int, ...] = (1, 16, 64, 256)
    events: int = 300
    catch_up_events: int = 20_000
    databases: tuple[int, ...] = (1, 10, 100, 1_000)
    journal_rows: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    idle_subscriptions: int = 1_000
    queued_operations: int = 100_000

    def with_rounds(self, rounds: int) -> "Scale":
        """The same with another number of rounds."""
        return replace(self, rounds=rounds)


FULL = Scale()
# Everything once, to see that it works; its figures say nothing.
SMALL = Scale(
    rounds=2,
    seconds=0.5,
    callers=(1, 16),
    events=50,
    catch_up_events=2_000,
    databases=(1, 10),
    journal_rows=(1_000, 10_000),
    idle_subscriptions=100,
    queued_operations=1_000,
)


def people(callers: int) -> str:
    """How many callers, in words."""
    return "one caller" if callers == 1 else f"{callers} callers"
