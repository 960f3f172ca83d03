"""Named subscriptions: where a stream for a name goes on, and who may read for it.

The databases keep everything; here it is put together. A subscription is a set of databases, each
with its own position. Its lease lies in the first of them by name, but a lease in any of them
counts, so that two streams with different databases exclude each other too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from hub.core.events import cursor
from hub.core.events.event_filter import EventFilter
from hub.core.events.fanout import Fanout
from hub.core.events.journal import Position, Start
from hub.core.events.lost_position import lost_position
from hub.core.events.subscription import Subscription
from hub.core.subscriptions.leases import Lease, Leases
from hub.core.subscriptions.subscription_store import (
    Hold,
    Kept,
    Name,
    Opened,
    Opening,
    SubscriptionStore,
)
from messagehub.errors import (
    CursorEpochChanged,
    CursorExpired,
    HubError,
    InvalidRequest,
    SubscriptionInUse,
    SubscriptionNotFound,
)

Answer = TypeVar("Answer")


class Wanted(NamedTuple):
    """A stream for a name: over which databases, and who asks.

    `readable` are all databases that the service may read. `consumer` empty = one of its own.
    """

    name: Name
    databases: Sequence[str]
    readable: Sequence[str]
    consumer: str


@dataclass(frozen=True, slots=True)
class Summary:
    """How a named subscription stands over all its databases.

    `cursor` is where it goes on. Times are microseconds since 1970, 0 = never.
    """

    name: str
    databases: Sequence[str]
    cursor: str
    lag_events: int
    lag_seconds: float
    active: bool
    consumer: str
    acknowledged_us: int
    cut_off_us: int


class NamedSubscriptions:
    """Opens streams for names, and keeps their leases; tells and changes how names stand.

    `make_holder` gives a text that names one stream among those of all hubs. `seconds` bounds
    what the beginning of a stream asks of the storage server.
    """

    def __init__(
        self,
        store: SubscriptionStore,
        fanout: Fanout,
        leases: Leases,
        *,
        make_holder: Callable[[], str],
        seconds: float,
    ) -> None:
        self._store = store
        self._fanout = fanout
        self._leases = leases
        self._make_holder = make_holder
        self._seconds = seconds

    async def subscribe(
        self, wanted: Wanted, event_filter: EventFilter, start: Start | Mapping[str, Position]
    ) -> Subscription:
        """Opens the stream for a name; the caller closes it.

        A name that is new begins at `start` and is on disk when this returns. One that is known
        goes on after what was acknowledged, unless `start` has positions. Raises
        `SubscriptionInUse`, `CursorExpired` where it was cut off, `InvalidRequest` where a
        database of it is left out, and what `Fanout.subscribe` raises.
        """
        name, databases = wanted.name, wanted.databases
        await self._leases.settled(name)
        found = await self._find(name, databases)
        _check_whole(wanted, *(kept.databases for kept in found.values()))
        self._check_free(wanted, found)
        lease = self._leases.begin(Hold(name, self._make_holder()), databases[0])
        try:
            opened = await self._open(wanted, _beginnings(wanted, found, start), lease, found)
            # Somebody may have opened it with more databases in between.
            _check_whole(wanted, *(one.databases for one in opened.values()))
            positions = {database: one.position for database, one in opened.items()}
            if isinstance(start, Mapping):
                positions |= start
            stream = await self._fanout.subscribe(
                name.service,
                databases,
                event_filter,
                positions,
                on_close=lambda: self._leases.give_up(lease),
            )
        except BaseException:
            self._leases.give_up(lease)
            raise
        self._leases.keep(lease, stream.fail)
        return stream

    async def acknowledge(
        self, name: Name, positions: Mapping[str, Position], *, seconds: float
    ) -> None:
        """Moves the name on to these positions; they are on disk when this returns.

        Raises `SubscriptionNotFound`, `CursorExpired` where it was cut off, and
        `CursorEpochChanged` for a position that is not of the journal.
        """

        async def move(database: str) -> None:
            try:
                await self._store.acknowledge(database, name, positions[database], seconds=seconds)
            except (CursorExpired, CursorEpochChanged) as failure:
                raise lost_position(failure, database, positions, failure.message) from failure

        await _all(move(database) for database in positions)

    async def summaries(
        self, service: str, readable: Sequence[str], *, seconds: float
    ) -> tuple[list[Summary], list[str]]:
        """Tells how the names of a service stand, and which databases could not be asked.

        Raises the first database's error if none could be.
        """
        answers = await asyncio.gather(
            *(self._store.find(database, service, "", seconds=seconds) for database in readable),
            return_exceptions=True,
        )
        by_name: dict[str, dict[str, Kept]] = {}
        unavailable: dict[str, HubError] = {}
        for database, answer in zip(readable, answers, strict=True):
            if isinstance(answer, HubError):
                unavailable[database] = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                for kept in answer:
                    by_name.setdefault(kept.name, {})[database] = kept
        if len(unavailable) == len(readable):
            raise next(iter(unavailable.values()))
        return [_summary(name, by_name[name]) for name in sorted(by_name)], list(unavailable)

    async def delete(self, name: Name, readable: Sequence[str], *, seconds: float) -> None:
        """Forgets a name in every database that the service may read.

        Raises `SubscriptionInUse` while a stream reads for it, and `SubscriptionNotFound`.
        """
        await self._leases.settled(name)
        found = await _all(
            self._store.find(database, name.service, name.name, seconds=seconds)
            for database in readable
        )
        places = {database: kept[0] for database, kept in zip(readable, found, strict=True) if kept}
        if not places:
            raise SubscriptionNotFound(
                f"the service {name.service} has no subscription {name.name}: ListSubscriptions "
                "tells which ones it has"
            )
        for kept in places.values():
            if kept.lease_seconds:
                raise self._in_use(name, kept)
        # Where its lease would be comes first, so that a stream that begins now is not deleted.
        for database in places:
            await self._store.delete(database, name, seconds=seconds)

    async def close(self) -> None:
        """Returns when the leases of streams that were closed are free."""
        await self._leases.close()

    async def _find(self, name: Name, databases: Sequence[str]) -> dict[str, Kept]:
        found = await _all(
            self._store.find(database, name.service, name.name, seconds=self._seconds)
            for database in databases
        )
        return {database: kept[0] for database, kept in zip(databases, found, strict=True) if kept}

    async def _open(
        self,
        wanted: Wanted,
        beginnings: Mapping[str, Position | Start],
        lease: Lease,
        found: Mapping[str, Kept],
    ) -> dict[str, Opened]:
        async def open_one(database: str) -> Opened:
            opening = Opening(
                wanted.name,
                wanted.databases,
                beginnings[database],
                lease.hold.holder,
                wanted.consumer,
                self._leases.seconds if database == lease.database else 0,
            )
            try:
                return await self._store.open(database, opening, seconds=self._seconds)
            except (CursorExpired, CursorEpochChanged) as failure:
                resumable = {one: kept.resumable for one, kept in found.items()}
                raise lost_position(failure, database, resumable, failure.message) from failure
            except SubscriptionInUse as failure:
                raise self._soon(failure) from failure

        home, *others = wanted.databases
        # The lease is taken first, and what it costs to find it taken is one call.
        opened = [await open_one(home), *await _all(open_one(other) for other in others)]
        return dict(zip(wanted.databases, opened, strict=True))

    def _check_free(self, wanted: Wanted, found: Mapping[str, Kept]) -> None:
        for kept in found.values():
            mine = wanted.consumer and wanted.consumer == kept.consumer
            if kept.lease_seconds and not mine:
                raise self._in_use(wanted.name, kept)

    def _in_use(self, name: Name, kept: Kept) -> HubError:
        who = f"the consumer {kept.consumer}" if kept.consumer else "another stream"
        return self._soon(
            SubscriptionInUse(
                f"{who} reads for the subscription {name.name}: end it, wait, or use another name",
                retry_after=kept.lease_seconds,
                metadata={"consumer": kept.consumer},
            )
        )

    def _soon(self, refusal: HubError) -> HubError:
        """A stream mostly ends in good order, long before its lease would."""
        if refusal.retry_after is not None:
            refusal.retry_after = min(refusal.retry_after, self._leases.pause)
        return refusal


def _check_whole(wanted: Wanted, *known: Iterable[str]) -> None:
    left_out = set().union(*known).intersection(wanted.readable).difference(wanted.databases)
    if left_out:
        names = ", ".join(sorted(left_out))
        raise InvalidRequest(
            f"the subscription {wanted.name.name} also reads {names}: pass all of its databases, "
            "or delete it, or use another name",
            fields={"databases": f"leaves out {names}"},
        )


def _beginnings(
    wanted: Wanted, found: Mapping[str, Kept], start: Start | Mapping[str, Position]
) -> dict[str, Position | Start]:
    """Where the subscription begins in each database, should it be new there."""
    known = set().union(*(kept.databases for kept in found.values()))
    beginnings: dict[str, Position | Start] = {}
    for database in wanted.databases:
        if isinstance(start, Mapping):
            beginnings[database] = start.get(database, Start.EARLIEST)
        elif found and database not in known:
            # One that joins: everything in it is unseen. (One that is known and not found is
            # left from a beginning that was cut short, when nothing had been streamed yet.)
            beginnings[database] = Start.EARLIEST
        else:
            beginnings[database] = start
    return beginnings


def _summary(name: str, kept: Mapping[str, Kept]) -> Summary:
    states = kept.values()
    held = [state for state in states if state.lease_seconds]
    cut_off = [state.cut_off_us for state in states if state.cut_off_us]
    return Summary(
        name=name,
        databases=sorted(set().union(*(state.databases for state in states))),
        cursor=cursor.encode({database: state.resumable for database, state in kept.items()}),
        lag_events=sum(state.newest_sequence - state.position.sequence for state in states),
        lag_seconds=max(state.lag_seconds for state in states),
        active=bool(held),
        consumer=held[0].consumer if held else "",
        acknowledged_us=max(state.acknowledged_us for state in states),
        cut_off_us=min(cut_off, default=0),
    )


async def _all(calls: Iterable[Awaitable[Answer]]) -> list[Answer]:
    """Makes calls at the same time; raises the first failure when all of them are over."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers  # type: ignore[return-value]  # what is left are answers
