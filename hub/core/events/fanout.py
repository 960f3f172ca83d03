"""Every subscription of this hub: who may open one, where it begins, what all of them share."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Final

from hub.core.backoff import Backoff
from hub.core.events.bursts import Pace
from hub.core.events.event_filter import EventFilter
from hub.core.events.heartbeat import HeartbeatClock
from hub.core.events.journal import Journal, Position, Start
from hub.core.events.live_tail import LiveTail
from hub.core.events.live_tails import LiveTails
from hub.core.events.reader import JournalReads
from hub.core.events.retries import Retries
from hub.core.events.subscription import Begin, Subscription
from hub.core.events.window import Share
from messagehub.errors import QueueFull, ShuttingDown

# How many events a subscription looks at before it lets others have their turn.
EVENTS_SCANNED_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class FanoutLimits:
    """The bounds of the subscriptions.

    `message_*` close a message at the end of a commit; `subscriber_bytes_max` bounds what one
    subscriber holds and, by that, the largest commit that is never sent in pieces. `window_*`
    is for each database. `gather_seconds_max` is how long events may gather while the hub has
    more to tell than time for it. `retry_seconds` is what a refused caller is told to wait.
    """

    subscriptions_max: int
    service_subscriptions_max: int
    message_events_max: int
    message_bytes_max: int
    subscriber_bytes_max: int
    window_bytes_max: int
    journal_reads_max: int
    gather_seconds_max: float
    heartbeat_seconds: float
    linger_seconds: float
    reconnect_seconds_min: float
    reconnect_seconds_max: float
    retry_seconds: float


class Fanout:
    """Opens subscriptions over the journals' live tails and ends them all together."""

    def __init__(
        self,
        journal: Journal,
        limits: FanoutLimits,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
    ) -> None:
        self._journal = journal
        self._limits = limits
        self._sleep = sleep
        self._pace = Pace(clock, limits.gather_seconds_max)
        self._random = random
        self._open: set[Subscription] = set()
        self._by_service: Counter[str] = Counter()
        self._closing = False
        self._tails = LiveTails(self._make_tail, linger_seconds=limits.linger_seconds, sleep=sleep)
        self._reads = JournalReads(
            journal,
            asyncio.Semaphore(limits.journal_reads_max),
            limits.subscriber_bytes_max,
            self._make_retries,
            sleep,
        )
        self._heartbeats = HeartbeatClock(
            seconds=limits.heartbeat_seconds, clock=clock, sleep=sleep
        )
        self._beating: asyncio.Task[None] | None = None

    async def subscribe(
        self,
        service: str,
        databases: Sequence[str],
        event_filter: EventFilter,
        start: Start | Mapping[str, Position],
        on_close: Callable[[], None] = lambda: None,
    ) -> Subscription:
        """Opens a subscription; the caller closes it, and then `on_close` is called.

        A database that `start` has no position for begins at its oldest event. Raises
        `QueueFull` at a limit, `ShuttingDown`, and, where the storage server must be asked for a
        position, the `HubError` that it answers.
        """
        self._admit(service)
        tails = [self._tails.acquire(database) for database in databases]

        def give_back() -> None:
            self._by_service[service] -= 1
            for tail in tails:
                self._tails.release(tail)

        try:
            begins = [await self._begin(tail, start) for tail in tails]
        except BaseException:
            give_back()
            raise
        subscription = self._opened(begins, event_filter, (give_back, on_close))
        if self._closing:
            subscription.end()
        return subscription

    async def close(self) -> None:
        """Refuses new subscriptions, and lets each stream end after one more message."""
        self._closing = True
        for subscription in self._open:
            subscription.end()
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait((self._beating,))
        await self._tails.close()

    def _opened(
        self,
        begins: Sequence[Begin],
        event_filter: EventFilter,
        on_close: Sequence[Callable[[], None]],
    ) -> Subscription:
        def closed() -> None:
            self._open.discard(subscription)
            for tell in on_close:
                tell()

        limits = self._limits
        subscription = Subscription(
            begins,
            event_filter,
            share=Share(
                limits.message_events_max,
                limits.message_bytes_max,
                limits.subscriber_bytes_max,
                EVENTS_SCANNED_MAX,
            ),
            reads=self._reads,
            heartbeats=self._heartbeats,
            on_close=closed,
        )
        self._open.add(subscription)
        if self._beating is None:
            self._beating = asyncio.get_running_loop().create_task(
                self._heartbeats.run(), name="heartbeats", context=Context()
            )
        return subscription

    async def _begin(self, tail: LiveTail, start: Start | Mapping[str, Position]) -> Begin:
        if isinstance(start, Mapping) and tail.database in start:
            return Begin(tail, start[tail.database], known=False)
        async with self._reads.slots:
            ends = await self._journal.ends(tail.database)
        return Begin(tail, ends.newest if start is Start.LATEST else ends.oldest, known=True)

    def _admit(self, service: str) -> None:
        if self._closing:
            raise self._shutting_down()
        limits = self._limits
        for count, limit, whose in (
            (self._by_service.total(), limits.subscriptions_max, "of this hub"),
            (self._by_service[service], limits.service_subscriptions_max, f"of {service}"),
        ):
            if count >= limit:
                raise QueueFull(
                    f"all {limit} subscriptions {whose} are in use: end one, or read several "
                    "databases through one",
                    retry_after=limits.retry_seconds,
                    metadata={"limit": str(limit)},
                )
        self._by_service[service] += 1

    def _shutting_down(self) -> ShuttingDown:
        return ShuttingDown(
            "the hub is shutting down: subscribe again, with the last cursor",
            retry_after=self._limits.retry_seconds,
        )

    def _make_tail(self, database: str) -> LiveTail:
        return LiveTail(
            database,
            self._journal,
            window_bytes_max=self._limits.window_bytes_max,
            retries=self._make_retries(),
            pace=self._pace,
            sleep=self._sleep,
        )

    def _make_retries(self) -> Retries:
        limits = self._limits
        return Retries(
            Backoff(
                seconds_min=limits.reconnect_seconds_min,
                seconds_max=limits.reconnect_seconds_max,
                random=self._random,
            )
        )
