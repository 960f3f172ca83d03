"""Random lives of two hubs and three databases: messages lost, databases and hubs that die.

Callers send the same call again, as clients do, until they know. At the end nothing is half done,
nothing was done twice, nobody was told a thing that is not so, and nothing is held.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.core.transactions.transaction import PartState
from hub.core.transactions.verdicts import denies_change
from messagehub.errors import HubError
from tests.support.virtual_time import run
from tests.unit.hub.transactions.test_interactive import begin, commit, join, roll_back
from tests.unit.hub.transactions.world import Fate, World, check_atomic, check_idle, world

DATABASES = ("a", "b", "c")
CALL_SECONDS = 8.0
# What a call may take beyond its time: a turn of the loop.
GRACE_SECONDS = 0.05
PLACES = (
    "coordinator.before_prepare",
    "coordinator.after_one_prepare",
    "coordinator.all_prepared",
    "coordinator.decided",
    "coordinator.after_one_commit",
    "coordinator.finished",
)
HEALTHY = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

databases = st.lists(st.sampled_from(DATABASES), min_size=1, max_size=3, unique=True)
moments = st.floats(0.0, 3.0)


@dataclass(frozen=True)
class OneCall:
    """A transaction in one call, sent up to three times with its request id."""

    at: float
    databases: tuple[str, ...]
    hubs: tuple[int, int, int]
    fails_in: str | None
    slow_seconds: float
    patience: float


@dataclass(frozen=True)
class Conversation:
    """An interactive transaction; each call may go to another hub."""

    at: float
    databases: tuple[str, ...]
    hubs: tuple[int, ...]
    pause: float
    commits: bool


@dataclass(frozen=True)
class Trouble:
    """What goes wrong, and when."""

    fates: tuple[Fate, ...]
    restarts: tuple[tuple[float, str], ...]
    death_of_hub: float | None
    death_at_place: tuple[str, int] | None


@dataclass
class Told:
    """What one caller was told about one request id or one transaction."""

    committed: list[str] = field(default_factory=list)
    denied: list[HubError] = field(default_factory=list)


one_calls = st.builds(
    OneCall,
    at=moments,
    databases=databases.map(tuple),
    hubs=st.tuples(*[st.integers(0, 1)] * 3),
    fails_in=st.none() | st.sampled_from(DATABASES),
    slow_seconds=st.sampled_from([0.0, 0.0, 0.0, 0.5, 2.0]),
    patience=st.sampled_from([CALL_SECONDS, CALL_SECONDS, 0.002, 0.004, 1.0]),
)
conversations = st.builds(
    Conversation,
    at=moments,
    databases=databases.map(tuple),
    hubs=st.lists(st.integers(0, 1), min_size=4, max_size=4).map(tuple),
    pause=st.sampled_from([0.0, 0.1, 3.0]),
    commits=st.booleans(),
)
troubles = st.builds(
    Trouble,
    fates=st.lists(st.sampled_from([Fate.ARRIVES] * 6 + [*Fate]), min_size=0, max_size=60).map(
        tuple
    ),
    restarts=st.lists(st.tuples(moments, st.sampled_from(DATABASES)), max_size=3).map(tuple),
    death_of_hub=st.none() | moments,
    death_at_place=st.none() | st.tuples(st.sampled_from(PLACES), st.integers(1, 3)),
)


class Story:
    """Lives through calls and troubles, and checks what is left."""

    def __init__(self, made: World, trouble: Trouble) -> None:
        self.world = made
        self.hubs = [made.hub(), made.hub()]
        self.trouble = trouble
        self.told: dict[str, Told] = {}
        fates = iter(trouble.fates)
        made.fates = lambda *_: next(fates, Fate.ARRIVES)

    async def live(self, calls: list[OneCall], conversations: list[Conversation]) -> None:
        breaking = asyncio.ensure_future(self._break())
        await asyncio.gather(
            *(self._call(f"r{number}", one) for number, one in enumerate(calls)),
            *(self._converse(f"t{number}", one) for number, one in enumerate(conversations)),
        )
        await breaking
        await self.world.settle(200.0)

    def check(self) -> None:
        check_atomic(self.world)
        for hub in self.hubs:
            if hub.alive:
                check_idle(hub)
        recorded: dict[str, set[str]] = {}
        for database in self.world.databases.values():
            for request_id, (_, record) in database.by_request_id.items():
                if record.state is PartState.COMMITTED:
                    recorded.setdefault(request_id, set()).add(record.header.transaction_id)
        for name, told in self.told.items():
            done = recorded.get(name, set())
            if name.startswith("r"):
                assert len(done) <= 1, "a request id was done twice"
                assert not (done and told.denied), (name, done, told.denied)
                assert set(told.committed) <= done
            else:
                assert not (told.committed and told.denied), told
        self._check_values(recorded)

    def _check_values(self, recorded: dict[str, set[str]]) -> None:
        """Each commit adds one in each of its databases, under its own name."""
        for name in self.told:
            values = {one.values[name] for one in self.world.databases.values()}
            assert values <= {0, 1}, (name, values)
            if name in recorded or self.told[name].committed:
                assert 1 in values

    async def _break(self) -> None:
        steps: list[tuple[float, Any]] = [
            (at, self.world.databases[name].restart) for at, name in self.trouble.restarts
        ]
        if self.trouble.death_of_hub is not None:
            steps.append((self.trouble.death_of_hub, None))
        if self.trouble.death_at_place is not None:
            self._arm(*self.trouble.death_at_place)
        for at, step in sorted(steps, key=lambda one: one[0]):
            await asyncio.sleep(max(0.0, at - self.world.clock()))
            if step is None:
                await self.hubs[0].die()
            else:
                step()

    def _arm(self, place: str, count: int) -> None:
        hub, left = self.hubs[0], [count]

        def reach(name: str) -> None:
            if name != place or not hub.alive:
                return
            left[0] -= 1
            if not left[0]:
                hub.alive = False
                for task in list(hub.background._tasks):
                    task.cancel()
                raise asyncio.CancelledError

        hub.on_reach = reach

    async def _call(self, name: str, one: OneCall) -> None:
        told = self.told[name] = Told()
        await asyncio.sleep(one.at)
        work = {
            database: [
                *([("slow", one.slow_seconds)] if one.slow_seconds else []),
                ("fail",) if database == one.fails_in else ("add", name, 1),
            ]
            for database in one.databases
        }
        for number in one.hubs:
            hub = self.hubs[number] if self.hubs[number].alive else self.hubs[1]
            began = self.world.clock()
            calling = asyncio.ensure_future(
                hub.execute(work, request_id=name, seconds=CALL_SECONDS)
            )
            done, _ = await asyncio.wait([calling], timeout=one.patience)
            if not done:
                calling.cancel()
                await asyncio.wait([calling])
            assert self.world.clock() - began <= CALL_SECONDS + GRACE_SECONDS, "nobody answered"
            if self._hear(told, calling):
                return

    def _hear(self, told: Told, calling: "asyncio.Task[Any]") -> bool:
        """Notes what a call was told; True if its caller knows."""
        if calling.cancelled():
            return False
        failure = calling.exception()
        if failure is None:
            told.committed.append(calling.result().transaction_id)
            return True
        assert isinstance(failure, HubError), failure
        if denies_change(failure):
            told.denied.append(failure)
            return True
        return False

    async def _converse(self, name: str, one: Conversation) -> None:
        told = self.told[name] = Told()
        await asyncio.sleep(one.at)
        try:
            tx = await begin(self._hub(one.hubs[0]), *one.databases, idle=2.0, seconds=CALL_SECONDS)
        except (HubError, asyncio.CancelledError):
            return
        try:
            for number, database in enumerate(one.databases):
                await asyncio.sleep(one.pause)
                hub = self._hub(one.hubs[number])
                await join(hub, tx, database, "add", name, 1, request_id=database)
            if not one.commits:
                await roll_back(self._hub(one.hubs[3]), tx)
                told.denied.append(HubError("rolled back"))
                return
        except (HubError, asyncio.CancelledError):
            return
        for number in one.hubs[:3]:
            try:
                await commit(self._hub(number), tx, seconds=CALL_SECONDS)
            except asyncio.CancelledError:
                continue
            except HubError as failure:
                if denies_change(failure):
                    told.denied.append(failure)
                    return
            else:
                told.committed.append(tx)
                return

    def _hub(self, number: int) -> Any:
        return self.hubs[number] if self.hubs[number].alive else self.hubs[1]


def tell(calls: list[OneCall], talks: list[Conversation], trouble: Trouble) -> None:
    async def live() -> None:
        async with world(*DATABASES) as made:
            story = Story(made, trouble)
            await story.live(calls, talks)
            story.check()

    run(live())


@given(st.lists(one_calls, min_size=1, max_size=5), troubles)
@settings(HEALTHY, max_examples=60)
def test_calls_are_atomic_and_done_once(calls, trouble):
    tell(calls, [], trouble)


@given(st.lists(conversations, min_size=1, max_size=3), st.lists(one_calls, max_size=2), troubles)
@settings(HEALTHY, max_examples=60)
def test_conversations_are_atomic(talks, calls, trouble):
    tell(calls, talks, trouble)


@pytest.mark.soak
@given(
    st.lists(one_calls, max_size=6),
    st.lists(conversations, max_size=3),
    troubles,
)
@settings(HEALTHY, max_examples=3000)
def test_nothing_is_ever_half_done(calls, talks, trouble):
    tell(calls, talks, trouble)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("count", [1, 2])
def test_a_hub_dies_at_every_step(place, count):
    call = OneCall(0.0, DATABASES, (0, 1, 1), None, 0.0, CALL_SECONDS)
    tell([call, call], [], Trouble((), (), None, (place, count)))


@pytest.mark.parametrize("turns", range(60))
def test_a_hub_dies_after_so_many_milliseconds(turns):
    call = OneCall(0.0, DATABASES, (0, 1, 1), None, 0.0, CALL_SECONDS)
    talk = Conversation(0.0, ("a", "b"), (0, 0, 0, 0), 0.0, commits=True)
    tell([call], [talk], Trouble((), (), turns * 0.0005, None))


@pytest.mark.parametrize("fate", [one for one in Fate if one is not Fate.ARRIVES])
@pytest.mark.parametrize("number", range(14))
def test_one_message_meets_its_fate(fate, number):
    fates = (Fate.ARRIVES,) * number + (fate,)
    call = OneCall(0.0, DATABASES, (0, 0, 1), None, 0.0, CALL_SECONDS)
    tell([call], [], Trouble(fates, (), None, None))
    talk = Conversation(0.0, ("a", "b"), (0, 0, 0, 0), 0.0, commits=True)
    tell([], [talk], Trouble(fates, (), None, None))
