"""A fanout over a model, with a clock that the test moves."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from hub.core.events import cursor
from hub.core.events.event_filter import EventFilter
from hub.core.events.fanout import Fanout, FanoutLimits, Start
from hub.core.events.journal import Position
from hub.core.events.subscription import Batch, Subscription
from tests.unit.hub.events.journal_model import ManualTime, Model, ModelJournal

WAIT_SECONDS = 10.0
A, B = "a_db", "b_db"

LIMITS = FanoutLimits(
    subscriptions_max=100,
    service_subscriptions_max=50,
    message_events_max=10,
    message_bytes_max=10_000,
    subscriber_bytes_max=20_000,
    window_bytes_max=5_000,
    journal_reads_max=2,
    gather_seconds_max=0.1,
    heartbeat_seconds=10.0,
    linger_seconds=30.0,
    reconnect_seconds_min=1.0,
    reconnect_seconds_max=1.0,
    retry_seconds=0.5,
)


@dataclass
class Bench:
    model: Model
    time: ManualTime
    fanout: Fanout

    async def subscribe(
        self,
        *databases: str,
        start: Start | Mapping[str, Position] | str = Start.LATEST,
        types: Sequence[str] = (),
        service: str = "character",
    ) -> Subscription:
        if isinstance(start, str):
            start = cursor.decode(start)
        return await self.fanout.subscribe(service, databases or (A,), EventFilter(types), start)


@asynccontextmanager
async def bench(
    *databases: str, page_events: int = 64, model: Model | None = None, **limits: Any
) -> AsyncIterator[Bench]:
    """A fanout over these databases; everything in it is closed at the end."""
    model = model or Model(*(databases or (A, B)), page_events=page_events)
    time = ManualTime()
    fanout = Fanout(
        ModelJournal(model),
        replace(LIMITS, **limits),
        clock=time.clock,
        sleep=time.sleep,
        random=lambda: 1.0,
    )
    try:
        yield Bench(model, time, fanout)
    finally:
        await fanout.close()
        for subscription in list(fanout._open):
            subscription.close()


async def next_batch(subscription: Subscription) -> Batch:
    """The next batch, which must come without time passing."""
    async with asyncio.timeout(WAIT_SECONDS):
        batch = await subscription.next_batch()
    assert batch is not None
    return batch


async def drain(subscription: Subscription, count: int) -> list[int]:
    """The sequences of the next `count` events, over as many batches as they need."""
    taken: list[int] = []
    while len(taken) < count:
        taken += sequences(await next_batch(subscription))
    return taken


def sequences(batch: Batch) -> list[int]:
    return [event.sequence for event in batch.events]


def at(batch: Batch, database: str = A) -> int:
    """Where the cursor of a batch stands."""
    return cursor.decode(batch.cursor)[database].sequence
