"""What the parts of this folder need from outside, made once and passed to all of them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from hub.core.background import Background
from hub.core.backoff import Backoff
from hub.core.transactions.limits import TransactionLimits
from hub.core.transactions.ports import Participants
from hub.core.transactions.transaction import Header, transaction_id


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The participants, the clocks and the chances.

    `clock` gives monotonic seconds, `now_us` the time in microseconds since 1970, `random` numbers
    in [0, 1), `unique` a new UUID, `seed` new bytes of chance. `epoch` tells the life of a
    database's journal, empty while it is not known. `size_of` tells the bytes of a result.
    `reached` is told of each place where a fault test may strike.
    """

    participants: Participants
    limits: TransactionLimits
    background: Background
    clock: Callable[[], float]
    now_us: Callable[[], int]
    sleep: Callable[[float], Awaitable[None]]
    random: Callable[[], float]
    unique: Callable[[], str]
    seed: Callable[[], bytes]
    epoch: Callable[[str], str]
    size_of: Callable[[Any], int]
    reached: Callable[[str], None]

    def backoff(self) -> Backoff:
        """The delays of one who tries again."""
        limits = self.limits
        return Backoff(
            seconds_min=limits.retry_seconds_min,
            seconds_max=limits.retry_seconds_max,
            random=self.random,
        )

    def header(
        self,
        databases: tuple[str, ...],
        *,
        source_service: str,
        correlation_id: str,
        read_only: bool,
        idle_seconds: float,
        seconds: float,
    ) -> Header:
        """The header of a new transaction over sorted databases; the last one is its home."""
        home = databases[-1]
        return Header(
            transaction_id=transaction_id(home, self.unique()),
            source_service=source_service,
            correlation_id=correlation_id,
            databases=databases,
            create_time_us=self.now_us(),
            seed=self.seed(),
            home_epoch=self.epoch(home),
            read_only=read_only,
            idle_seconds=idle_seconds,
            seconds=seconds,
        )
