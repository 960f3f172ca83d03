"""Hubs before databases in memory, with a line between them that loses what a test says.

A message is executed in a task of the database, so that it goes on when the hub that sent it dies.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any

from hub.core.background import Background
from hub.core.circuits.breaker import CircuitState
from hub.core.status import DatabaseState, HubState
from hub.core.transactions.coordinator import Call, Coordinator
from hub.core.transactions.cuts import Cuts
from hub.core.transactions.endings import Endings
from hub.core.transactions.finishing import Finishing
from hub.core.transactions.forcing import Forcing
from hub.core.transactions.inquiries import Inquiries
from hub.core.transactions.interactive import Interactive
from hub.core.transactions.limits import TransactionLimits
from hub.core.transactions.live_attempts import LiveAttempts
from hub.core.transactions.locks import LockTable
from hub.core.transactions.remembered import Remembered
from hub.core.transactions.resolver import Resolver
from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.transaction import (
    Advance,
    Advanced,
    PartOperation,
    PartState,
    Record,
    Resolution,
    Resolved,
    Work,
)
from messagehub.errors import CircuitOpen, DeadlineExceeded, HubError, StorageUnavailable
from tests.unit.hub.transactions.storage_model import DatabaseModel

LIMITS = TransactionLimits(
    running_max=100,
    open_max=100,
    kept_max=100,
    results_bytes_max=1_000_000,
    wait_seconds=2.0,
    visible_seconds=1.0,
    idle_seconds_max=60.0,
    seconds_max=60.0,
    answer_seconds=5.0,
    settle_seconds=5.0,
    abandoned_seconds=3.0,
    lease_seconds=5.0,
    busy_seconds=0.1,
    passing_attempts_max=5,
    retry_seconds_min=0.01,
    retry_seconds_max=0.5,
)
LATENCY = 0.001
_GENERATED = itertools.count()
WATCH_SECONDS = 0.1


class Fate(Enum):
    """What happens to one message."""

    ARRIVES = "arrives"
    REQUEST_LOST = "the request is lost"
    ANSWER_LOST = "the answer is lost"
    RESTART = "the database dies before it answers"
    REFUSED = "the circuit is open"


Fates = Callable[["HubModel", str, Any], Fate]


def _arrives(hub: "HubModel", database: str, message: Any) -> Fate:
    return Fate.ARRIVES


class World:
    """Databases by name, and hubs that use them; `fates` decides about every message."""

    def __init__(self, *databases: str, seed: int = 0) -> None:
        self.clock = asyncio.get_running_loop().time
        self.databases = {name: DatabaseModel(name, self.clock) for name in sorted(databases)}
        self.fates: Fates = _arrives
        self.hubs: list[HubModel] = []
        self.random = random.Random(seed)
        self.sent: list[tuple[str, Any]] = []
        self.defects: list[BaseException] = []
        self._serving: set[asyncio.Task[Any]] = set()
        self._watching = asyncio.get_running_loop().create_task(self._watch(), name="watch")

    def hub(self, **limits: Any) -> "HubModel":
        hub = HubModel(self, f"hub{len(self.hubs)}", limits)
        self.hubs.append(hub)
        return hub

    def serve(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        """Begins the execution of a message, whoever may still wait for it."""
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._serving.add(task)
        task.add_done_callback(self._served)
        return task

    def ids(self) -> set[str]:
        """Every transaction that any database remembers."""
        return {name for one in self.databases.values() for name in one.records}

    def records(self, name: str) -> dict[str, Record]:
        return {
            database.name: database.records[name]
            for database in self.databases.values()
            if name in database.records
        }

    def value(self, database: str, key: str = "x") -> int:
        return self.databases[database].values[key]

    async def settle(self, seconds: float = 30.0) -> None:
        """Lets everybody finish what they can."""
        self.fates = _arrives
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        for hub in self.hubs:
            await hub.die()
        self._watching.cancel()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(self._watching, *self._serving, return_exceptions=True)
        if self.defects:
            raise self.defects[0]

    def _served(self, task: asyncio.Task[Any]) -> None:
        self._serving.discard(task)
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not isinstance(failure, HubError):
            self.defects.append(failure)

    async def _watch(self) -> None:
        while True:
            for database in self.databases.values():
                database.expire()
            for hub in self.hubs:
                hub.hear()
            await asyncio.sleep(WATCH_SECONDS)


class HubModel:
    """A real coordinator and a real resolver, which can be killed."""

    def __init__(self, world: World, name: str, limits: Mapping[str, Any]) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.reached: list[str] = []
        self.dies_at: str | None = None
        self.on_reach: Callable[[str], None] = lambda place: None
        self.cut_off: set[str] = set()
        self.background = Background()
        self._numbers = iter(range(1, 1_000_000))
        self.surroundings = Surroundings(
            participants=Line(self),
            limits=TransactionLimits(
                **{name: getattr(LIMITS, name) for name in LIMITS.__slots__} | dict(limits)
            ),
            background=self.background,
            clock=world.clock,
            now_us=lambda: int(world.clock() * 1_000_000),
            sleep=asyncio.sleep,
            random=world.random.random,
            unique=lambda: f"{name}-{next(self._numbers)}",
            seed=lambda: b"seed",
            epoch=lambda database: world.databases[database].epoch,
            size_of=lambda result: len(str(result)),
            reached=self._reach,
        )
        self.lanes, self.commits = LockTable(), LockTable()
        around, endings = self.surroundings, Endings(self.surroundings)
        self.live = LiveAttempts(around, endings)
        self.remembered = Remembered(around.limits.kept_max)
        self.cuts = Cuts(around, commits=self.commits)
        self.coordinator = Coordinator(
            around, endings, self.live, lanes=self.lanes, commits=self.commits
        )
        self.interactive = Interactive(
            around,
            self.live,
            Finishing(around, endings, self.live, self.remembered),
            self.remembered,
            self.cuts,
            databases=tuple(world.databases),
            lanes=self.lanes,
            commits=self.commits,
        )
        self.resolver = Resolver(around, is_live=lambda name: self.live.get(name) is not None)
        self.inquiries = Inquiries(
            around,
            self.live,
            self.remembered,
            databases=tuple(world.databases),
            is_stuck=self.resolver.is_stuck,
        )
        self.forcing = Forcing(around, self.inquiries)

    async def execute(
        self,
        work: Mapping[str, Sequence[Any]],
        *,
        request_id: str = "",
        seconds: float = 10.0,
        events: Mapping[str, Sequence[Any]] | None = None,
    ) -> Any:
        """Executes statements by database; the request id is the caller's own if it is given."""
        return await self.coordinator.execute(call(work, request_id, events), seconds)

    def hear(self) -> None:
        if self.alive:
            self.resolver.follow(
                HubState(
                    ready=True,
                    storage_servers=(),
                    databases=tuple(
                        DatabaseState(
                            one.name,
                            available=True,
                            circuit=CircuitState.CLOSED,
                            in_doubt=one.in_doubt,
                        )
                        for one in self.world.databases.values()
                        if one.name not in self.cut_off
                    ),
                )
            )

    async def die(self) -> None:
        """As by kill -9: not one more message leaves, nothing is tidied."""
        self.alive = False
        await self.resolver.stop()
        await self.background.close(0.0)

    def _reach(self, place: str) -> None:
        self.reached.append(place)
        self.on_reach(place)
        if place == self.dies_at:
            self.alive = False
            raise asyncio.CancelledError


class Line:
    """The port `Participants` of one hub."""

    def __init__(self, hub: HubModel) -> None:
        self._hub = hub

    async def advance(self, advance: Advance, *, seconds: float) -> Advanced:
        return await self._send(
            advance.database, advance, lambda one: one.advance(advance), seconds
        )

    async def resolve(self, resolution: Resolution, *, seconds: float) -> Resolved:
        return await self._send(
            resolution.database, resolution, lambda one: one.resolve(resolution), seconds
        )

    async def look_up(
        self, database: str, transaction_id: str, *, request_id: str = "", seconds: float
    ) -> Record | None:
        async def look(one: DatabaseModel) -> Record | None:
            return one.look_up(transaction_id, request_id)

        return await self._send(database, ("look_up", transaction_id), look, seconds)

    async def list(
        self, database: str, *, ended: bool, limit: int, seconds: float
    ) -> Sequence[Record]:
        async def look(one: DatabaseModel) -> Sequence[Record]:
            newest = list(one.records.values())[::-1][:limit] if ended else []
            return [*one.list(), *newest]

        return await self._send(database, ("list", ended), look, seconds)

    async def hold_commits(
        self,
        database: str,
        holder: str,
        *,
        wait_seconds: float,
        lease_seconds: float,
        seconds: float,
    ) -> None:
        await self._send(
            database,
            ("hold_commits", holder),
            lambda one: one.hold_commits(holder, wait_seconds, lease_seconds),
            seconds,
        )

    async def release_commits(self, database: str, holder: str, *, seconds: float) -> bool:
        async def release(one: DatabaseModel) -> bool:
            return one.release_commits(holder)

        return await self._send(database, ("release_commits", holder), release, seconds)

    async def _send(
        self,
        database: str,
        message: Any,
        execute: Callable[[DatabaseModel], Awaitable[Any]],
        seconds: float,
    ) -> Any:
        hub, world = self._hub, self._hub.world
        self._check_alive()
        fate = Fate.REFUSED if database in hub.cut_off else world.fates(hub, database, message)
        if fate is Fate.REFUSED:
            raise CircuitOpen("the circuit is open", retry_after=0.1)
        model = world.databases[database]
        world.sent.append((database, message))
        try:
            async with asyncio.timeout(seconds):
                await asyncio.sleep(LATENCY)
                if fate is Fate.REQUEST_LOST:
                    raise StorageUnavailable("the connection broke")
                work = world.serve(execute(model))
                if fate is Fate.RESTART:
                    await asyncio.wait([work], timeout=10 * LATENCY)
                    model.restart()
                    raise StorageUnavailable("the connection broke")
                answer = await asyncio.shield(work)
                await asyncio.sleep(LATENCY)
                if fate is Fate.ANSWER_LOST:
                    raise StorageUnavailable("the connection broke")
                self._check_alive()
                return answer
        except TimeoutError:
            raise DeadlineExceeded("nothing was answered in time") from None

    def _check_alive(self) -> None:
        if not self._hub.alive:
            raise asyncio.CancelledError


def call(
    work: Mapping[str, Sequence[Any]],
    request_id: str = "",
    events: Mapping[str, Sequence[Any]] | None = None,
) -> Call:
    places = iter(range(1000))
    operations = {
        database: Work(
            tuple(
                PartOperation(next(places), "", read_only=False, schema_version="", statement=one)
                for one in statements
            ),
            tuple((events or {}).get(database, ())),
        )
        for database, statements in work.items()
    }
    return Call(
        source_service="character",
        correlation_id="follow-me",
        request_id=request_id or f"generated-{next(_GENERATED)}",
        chosen=bool(request_id),
        fingerprint=repr(sorted(work.items())).encode(),
        work=operations,
    )


@asynccontextmanager
async def world(*databases: str, seed: int = 0):
    made = World(*(databases or ("a", "b", "c")), seed=seed)
    try:
        yield made
    finally:
        await made.close()


def check_atomic(made: World) -> None:
    """Every transaction is committed at all of its participants or at none, once and for all."""
    for database in made.databases.values():
        assert not database.open, database.open
        assert not database.prepared, database.prepared
        assert database.lane is None
        names = [name for name, _ in database.journal]
        assert len(names) == len(set(names)), "a transaction is in a journal twice"
    for name in made.ids():
        records = made.records(name)
        committed = {
            database for database, record in records.items() if record.state is PartState.COMMITTED
        }
        header = next(iter(records.values())).header
        assert committed in (set(), set(header.databases)), (name, records)
        in_journals = {
            one.name
            for one in made.databases.values()
            if any(entry == name for entry, _ in one.journal)
        }
        assert in_journals == committed


def check_idle(hub: HubModel) -> None:
    """Nothing is held in the hub, and nothing is under way."""
    assert hub.lanes.idle
    assert hub.commits.idle
    assert not hub.live._attempts
    assert not hub.interactive._served.all()
    assert not hub.background._tasks
