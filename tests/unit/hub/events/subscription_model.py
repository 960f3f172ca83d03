"""The databases that keep named subscriptions, as the core's port: the storage server's own rules
over the journals of the model, by the test's clock.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from hub.core.events import cursor
from hub.core.events.event_filter import EventFilter
from hub.core.events.fanout import Fanout
from hub.core.events.journal import Position, Start
from hub.core.events.subscription import Subscription
from hub.core.subscriptions.leases import Leases
from hub.core.subscriptions.named_subscriptions import NamedSubscriptions, Wanted
from hub.core.subscriptions.subscription_store import Hold, Kept, Name, Opened, Opening
from messagehub.errors import HubError
from storage.core import subscriptions as rules
from storage.core.extent import Place
from tests.unit.hub.events.fanout_bench import LIMITS, A, B
from tests.unit.hub.events.journal_model import ManualTime, Model, ModelJournal

SERVICE = "character"
LEASE = 15.0
MICROSECONDS = 1_000_000


class ModelStore:
    """Everything is answered at once, or as the test says.

    `failures` refuse the next calls of a method and database; `held` methods wait for a bell.
    """

    def __init__(self, model: Model, time: ManualTime):
        self.model = model
        self.kept: dict[tuple[str, str, str], rules.Subscription] = {}
        self.calls: list[tuple[str, str]] = []
        self.failures: dict[tuple[str, str], list[Any]] = {}
        self.down = False
        self.held: set[str] = set()
        self.bell = asyncio.Event()
        self._time = time

    def at(self, database: str, name: str, service: str = SERVICE) -> int:
        """The acknowledged position."""
        return self.kept[database, service, name].place.sequence

    def holder(self, database: str, name: str) -> str:
        """Who holds the lease now."""
        kept = self.kept[database, SERVICE, name]
        return kept.holder if kept.lease_left_us(self._now_us()) else ""

    def cut_off(self, database: str, name: str) -> None:
        """Trims what a subscription needs, up to the newest event."""
        self.model.trim(database, self.model.databases[database].sequence - 1)
        key = (database, SERVICE, name)
        self.kept[key] = replace(self.kept[key], cut_off_us=self._now_us())

    def release(self) -> None:
        """Lets everything go on that is held."""
        self.held.clear()
        self.bell.set()

    async def open(self, database: str, opening: Opening, *, seconds: float) -> Opened:
        await self._called("open", database, seconds)
        begin: rules.Edge | Place = rules.Edge.LATEST
        if isinstance(opening.begin, Position):
            begin = Place(*opening.begin)
        elif opening.begin is Start.EARLIEST:
            begin = rules.Edge.EARLIEST
        kept = self._change(
            database,
            rules.Open(
                *opening.name,
                tuple(opening.databases),
                begin,
                opening.holder,
                opening.consumer,
                round(opening.lease_seconds * MICROSECONDS),
            ),
        )
        assert kept is not None
        return Opened(Position(*kept.place), frozenset(kept.databases))

    async def hold(
        self, database: str, holds: Sequence[Hold], *, lease_seconds: float, seconds: float
    ) -> Sequence[HubError | None]:
        await self._called("hold" if lease_seconds else "release", database, seconds)
        outcomes: list[HubError | None] = []
        for name, holder in holds:
            lease_us = round(lease_seconds * MICROSECONDS)
            try:
                self._change(database, rules.Hold(*name, holder, lease_us))
            except HubError as refusal:
                outcomes.append(refusal)
            else:
                outcomes.append(None)
        return outcomes

    async def acknowledge(
        self, database: str, name: Name, position: Position, *, seconds: float
    ) -> None:
        await self._called("acknowledge", database, seconds)
        self._change(database, rules.Acknowledge(*name, Place(*position)))

    async def find(self, database: str, service: str, name: str, *, seconds: float) -> list[Kept]:
        await self._called("find", database, seconds)
        journal = self._journal(database)
        return [
            self._told(self._kept(key), journal)
            for key in sorted(self.kept)
            if key[:2] == (database, service) and name in ("", key[2])
        ]

    async def delete(self, database: str, name: Name, *, seconds: float) -> None:
        await self._called("delete", database, seconds)
        self._change(database, rules.Delete(*name))

    async def _called(self, method: str, database: str, seconds: float) -> None:
        assert 0 < seconds < 60
        self.calls.append((method, database))
        await asyncio.sleep(0)
        while method in self.held:
            await self.bell.wait()
        if self.down:
            self.model.down = True
        self.model.check()
        if failures := self.failures.get((method, database)):
            raise failures.pop(0)

    def _now_us(self) -> int:
        return round(self._time.now * MICROSECONDS)

    def _journal(self, database: str) -> rules.Journal:
        journal = self.model.databases[database]
        return rules.Journal(
            database, journal.epoch, journal.oldest, journal.sequence, self._now_us()
        )

    def _kept(self, key: tuple[str, str, str]) -> rules.Subscription | None:
        """The epoch of a position is that of the file it stands in."""
        kept = self.kept.get(key)
        if kept is None:
            return None
        return replace(kept, place=Place(self.model.databases[key[0]].epoch, kept.place.sequence))

    def _change(self, database: str, change: rules.Change) -> rules.Subscription | None:
        key = (database, change.source_service, change.name)
        changed = change.apply(self._kept(key), self._journal(database))
        if changed is None:
            del self.kept[key]
        else:
            self.kept[key] = changed
        return changed

    def _told(self, kept: rules.Subscription, journal: rules.Journal) -> Kept:
        left = kept.lease_left_us(journal.now_us)
        behind = journal.newest_sequence - kept.place.sequence
        return Kept(
            name=kept.name,
            databases=frozenset(kept.databases),
            position=Position(*kept.place),
            oldest_sequence=journal.oldest_sequence,
            newest_sequence=journal.newest_sequence,
            lag_seconds=float(behind),
            acknowledged_us=kept.acknowledged_us,
            cut_off_us=kept.cut_off_us,
            consumer=kept.consumer if left else "",
            lease_seconds=left / MICROSECONDS,
        )


@dataclass
class NamedHub:
    """One hub of several that may share a model."""

    model: Model
    time: ManualTime
    store: ModelStore
    fanout: Fanout
    leases: Leases
    named: NamedSubscriptions

    async def subscribe(
        self,
        *databases: str,
        name: str = "billing",
        start: Start | Mapping[str, Position] | str = Start.LATEST,
        consumer: str = "",
        readable: Sequence[str] = (),
    ) -> Subscription:
        if isinstance(start, str):
            start = cursor.decode(start)
        wanted = Wanted(
            Name(SERVICE, name),
            databases or (A,),
            readable or sorted(self.model.databases),
            consumer,
        )
        return await self.named.subscribe(wanted, EventFilter(), start)

    async def acknowledge(self, text: str, name: str = "billing") -> None:
        await self.named.acknowledge(Name(SERVICE, name), cursor.decode(text), seconds=5)

    async def delete(self, name: str = "billing") -> None:
        await self.named.delete(Name(SERVICE, name), sorted(self.model.databases), seconds=5)

    async def summaries(self) -> Any:
        return await self.named.summaries(SERVICE, sorted(self.model.databases), seconds=5)


class NamedBench:
    """The model, its clock and its hubs."""

    def __init__(self, *databases: str):
        self.model = Model(*(databases or (A, B)))
        self.time = ManualTime()
        self.store = ModelStore(self.model, self.time)
        self._hubs: list[NamedHub] = []

    def another_store(self) -> ModelStore:
        """The same databases behind a connection of its own, which may be held on its own."""
        store = ModelStore(self.model, self.time)
        store.kept = self.store.kept
        return store

    def hub(self, store: ModelStore | None = None) -> NamedHub:
        """Another hub before the same storage server."""
        store = store or self.store
        fanout = Fanout(
            ModelJournal(self.model),
            LIMITS,
            clock=self.time.clock,
            sleep=self.time.sleep,
            random=lambda: 1.0,
        )
        leases = Leases(store, seconds=LEASE, clock=self.time.clock, sleep=self.time.sleep)
        number = len(self._hubs)
        streams = iter(range(1000))
        named = NamedSubscriptions(
            store,
            fanout,
            leases,
            make_holder=lambda: f"hub-{number}-stream-{next(streams)}",
            seconds=10.0,
        )
        hub = NamedHub(self.model, self.time, store, fanout, leases, named)
        self._hubs.append(hub)
        return hub

    async def close(self) -> None:
        for hub in self._hubs:
            hub.store.release()
            await hub.fanout.close()
            for subscription in list(hub.fanout._open):
                subscription.close()
            await hub.named.close()


@asynccontextmanager
async def named_bench(*databases: str) -> AsyncIterator[NamedBench]:
    bench = NamedBench(*databases)
    try:
        yield bench
    finally:
        await bench.close()
