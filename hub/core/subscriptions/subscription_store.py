"""What named subscriptions are to the core, and the port to the databases that keep them.

Each database keeps its own part of a subscription: the position in its journal. One of them, the
first by name, keeps the lease of the stream that reads for the subscription.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hub.core.events.journal import Position, Start
from messagehub.errors import HubError


class Name(NamedTuple):
    """A named subscription: whose it is, and what it is called."""

    service: str
    name: str


class Hold(NamedTuple):
    """What a lease is known by: the name, and the stream that reads for it."""

    name: Name
    holder: str


@dataclass(frozen=True, slots=True)
class Opening:
    """The beginning of a stream in one database.

    `begin` is where the subscription begins if it is new there. `holder` names the stream and
    `consumer` who asks for it. `lease_seconds` 0 = the lease is elsewhere.
    """

    name: Name
    databases: Sequence[str]
    begin: Position | Start
    holder: str
    consumer: str
    lease_seconds: float


class Opened(NamedTuple):
    """Where a stream goes on, and all databases that the subscription reads, as far as known."""

    position: Position
    databases: frozenset[str]


@dataclass(frozen=True, slots=True)
class Kept:
    """A subscription as one database keeps it.

    `lag_seconds` is how long the oldest event that is kept and not acknowledged has been waiting.
    Times are microseconds since 1970, 0 = never. `lease_seconds` is what is left, 0 = no lease.
    """

    name: str
    databases: frozenset[str]
    position: Position
    oldest_sequence: int
    newest_sequence: int
    lag_seconds: float
    acknowledged_us: int
    cut_off_us: int
    consumer: str
    lease_seconds: float

    @property
    def resumable(self) -> Position:
        """The position that a stream can go on from; the acknowledged one, if it is kept."""
        if not self.cut_off_us:
            return self.position
        oldest = max(self.oldest_sequence, self.position.sequence)
        return self.position._replace(sequence=oldest)


class SubscriptionStore(Protocol):
    """The databases of a storage server.

    Every method takes at most `seconds` and raises a `HubError`; `CursorExpired` and
    `CursorEpochChanged` carry the metadata `epoch` and `oldest_sequence`. A change is on disk
    when its method returns.
    """

    async def open(self, database: str, opening: Opening, *, seconds: float) -> Opened:
        """Makes a subscription where it is new, takes the lease, and tells where it stands.

        Raises `SubscriptionInUse` and, where it was cut off, `CursorExpired`.
        """

    async def hold(
        self, database: str, holds: Sequence[Hold], *, lease_seconds: float, seconds: float
    ) -> Sequence[HubError | None]:
        """Prolongs leases, or gives them up with 0; tells for each of them why it cannot be.

        `SubscriptionInUse` says that another stream has it, `SubscriptionNotFound` that the
        subscription is gone.
        """

    async def acknowledge(
        self, database: str, name: Name, position: Position, *, seconds: float
    ) -> None:
        """Moves the position on, never back; raises also `SubscriptionNotFound`."""

    async def find(self, database: str, service: str, name: str, *, seconds: float) -> list[Kept]:
        """Tells how the subscriptions of a service stand; with a name, that one alone."""

    async def delete(self, database: str, name: Name, *, seconds: float) -> None:
        """Forgets a subscription; raises `SubscriptionInUse` and `SubscriptionNotFound`."""
