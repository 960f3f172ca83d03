"""Named subscriptions as one database keeps them: the rules, for every engine.

A change says what a subscription becomes; the engine loads the row, applies the change, and stores
what it gives, in one commit. A lease tells which stream reads for the name. It is over by the
storage server's clock, so that whoever held it may be gone without a word.
"""

import logging
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Protocol

from messagehub.errors import CursorExpired, HubError, SubscriptionInUse, SubscriptionNotFound
from storage.core.extent import Extent, Place

MICROSECONDS: Final = 1_000_000

_log = logging.getLogger(__name__)


class Edge(Enum):
    """An end of a journal."""

    EARLIEST = "the oldest position"
    LATEST = "the newest position"


@dataclass(frozen=True, slots=True)
class Journal(Extent):
    """What a journal holds when something is decided, in microseconds since 1970 UTC."""

    now_us: int


@dataclass(frozen=True, slots=True)
class Subscription:
    """A named subscription in one database. Times are microseconds since 1970 UTC, 0 = never.

    Everything up to `place` is acknowledged. `databases` are all that the subscription reads, as
    far as this one knows. `cut_off_us` is when the journal stopped to wait for it.
    """

    source_service: str
    name: str
    databases: tuple[str, ...]
    place: Place
    created_us: int
    acknowledged_us: int = 0
    cut_off_us: int = 0
    holder: str = ""
    consumer: str = ""
    lease_us: int = 0
    lease_end_us: int = 0

    def lease_left_us(self, now_us: int) -> int:
        """How long the lease still counts; 0 = nobody holds it.

        A clock that was set back must not make a lease last for hours: one that would end later
        than two of its lengths from now counts as over.
        """
        left = self.lease_end_us - now_us
        return left if 0 < left <= 2 * self.lease_us else 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a subscription stands at a moment.

    `lag_us` is how long the oldest event that is kept and not acknowledged has been waiting.
    """

    kept: Subscription
    journal: Journal
    lag_us: int

    def log_cut_off(self) -> None:
        """Warns that the subscription lost events."""
        _log.warning(
            "a subscription was cut off: it was too far behind and has lost events",
            extra={
                "database": self.journal.database,
                "source_service": self.kept.source_service,
                "subscription": self.kept.name,
                "acknowledged_sequence": self.kept.place.sequence,
                "newest_sequence": self.journal.newest_sequence,
                "lag_seconds": self.lag_us / MICROSECONDS,
            },
        )


@dataclass(frozen=True, slots=True)
class LagLimits:
    """How far behind a subscription may be and still hold back the trimming of the journal."""

    rows_max: int
    us_max: int

    def allow(self, standing: Standing) -> bool:
        """Tells whether the journal still waits for a subscription."""
        behind = standing.journal.newest_sequence - standing.kept.place.sequence
        return behind <= self.rows_max and standing.lag_us <= self.us_max


class Change(Protocol):
    """Something that happens to one subscription."""

    @property
    def source_service(self) -> str:
        """Whose subscription it is."""

    @property
    def name(self) -> str:
        """Its name."""

    def apply(self, kept: Subscription | None, journal: Journal) -> Subscription | None:
        """Gives what the subscription becomes, None = it is gone; or raises why it cannot be."""


@dataclass(frozen=True, slots=True)
class Open:
    """A stream begins. `lease_us` 0 = it takes no lease here."""

    source_service: str
    name: str
    databases: tuple[str, ...]
    begin: Edge | Place
    holder: str
    consumer: str
    lease_us: int

    def apply(self, kept: Subscription | None, journal: Journal) -> Subscription:
        """Makes the subscription where it is new, and takes the lease.

        Raises `SubscriptionInUse`, and `CursorExpired` where it was cut off.
        """
        if kept is None:
            kept = Subscription(
                self.source_service,
                self.name,
                self.databases,
                self._place(journal),
                created_us=journal.now_us,
            )
        elif kept.holder != self.holder and not (self.consumer and kept.consumer == self.consumer):
            check_free(kept, journal)
        if kept.cut_off_us:
            raise cut_off(kept, journal)
        kept = replace(kept, databases=tuple(sorted({*kept.databases, *self.databases})))
        if not self.lease_us:
            return kept
        return replace(
            kept,
            holder=self.holder,
            consumer=self.consumer,
            lease_us=self.lease_us,
            lease_end_us=journal.now_us + self.lease_us,
        )

    def _place(self, journal: Journal) -> Place:
        if isinstance(self.begin, Place):
            journal.check(self.begin)
            return self.begin
        if self.begin is Edge.EARLIEST:
            return Place(journal.epoch, journal.oldest_sequence)
        return Place(journal.epoch, journal.newest_sequence)


@dataclass(frozen=True, slots=True)
class Hold:
    """A stream lives on, or ends: `lease_us` 0 = it gives the lease up."""

    source_service: str
    name: str
    holder: str
    lease_us: int

    def apply(self, kept: Subscription | None, journal: Journal) -> Subscription:
        """Prolongs the lease or frees it; raises `SubscriptionInUse` if another has taken it."""
        kept = known(kept, self, journal)
        if kept.holder != self.holder:
            raise SubscriptionInUse(
                f"the subscription {self.name} was taken over by another stream",
                metadata={"consumer": kept.consumer},
            )
        if not self.lease_us:
            return replace(kept, holder="", consumer="", lease_us=0, lease_end_us=0)
        return replace(kept, lease_us=self.lease_us, lease_end_us=journal.now_us + self.lease_us)


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Everything up to a place is handled."""

    source_service: str
    name: str
    place: Place

    def apply(self, kept: Subscription | None, journal: Journal) -> Subscription:
        """Moves the position on, never back.

        Raises `CursorExpired` where it was cut off, and `CursorEpochChanged` for a place that is
        not of this journal.
        """
        kept = known(kept, self, journal)
        if kept.cut_off_us:
            raise cut_off(kept, journal)
        if self.place.epoch == kept.place.epoch and self.place.sequence <= kept.place.sequence:
            return kept
        journal.check(self.place)
        return replace(kept, place=self.place, acknowledged_us=journal.now_us)


@dataclass(frozen=True, slots=True)
class Delete:
    """The subscription is not wanted any more."""

    source_service: str
    name: str

    def apply(self, kept: Subscription | None, journal: Journal) -> None:
        """Forgets the subscription; raises `SubscriptionInUse` while a stream reads for it."""
        check_free(known(kept, self, journal), journal)


def known(kept: Subscription | None, change: Change, journal: Journal) -> Subscription:
    """Gives the subscription; raises `SubscriptionNotFound` if it is not there."""
    if kept is None:
        raise SubscriptionNotFound(
            f"the service {change.source_service} has no subscription {change.name} in "
            f"{journal.database}: subscribe with that name first",
            metadata={"database": journal.database},
        )
    return kept


def check_free(kept: Subscription, journal: Journal) -> None:
    """Raises `SubscriptionInUse` while a stream holds the lease."""
    if left_us := kept.lease_left_us(journal.now_us):
        raise SubscriptionInUse(
            f"another stream reads for the subscription {kept.name}: end it, wait, or use another "
            "name",
            retry_after=left_us / MICROSECONDS,
            metadata={"consumer": kept.consumer},
        )


def cut_off(kept: Subscription, journal: Journal) -> HubError:
    """The refusal of a subscription that was too far behind."""
    return CursorExpired(
        f"the subscription {kept.name} was cut off from {journal.database}: it was further behind "
        "than a journal waits for (subscription_lag_rows_max, subscription_lag_seconds_max), and "
        "events that it had not acknowledged are gone; to go on without them, delete it and "
        "subscribe again with the oldest cursor",
        metadata=journal.facts,
    )
