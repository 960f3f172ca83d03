"""Calls for named subscriptions pass the circuits as all others do."""

import pytest

from hub.core.circuits.guarded_subscriptions import GuardedSubscriptions
from hub.core.events.journal import Position, Start
from hub.core.subscriptions.subscription_store import Hold, Name, Opened, Opening
from messagehub.errors import CircuitOpen, SubscriptionNotFound
from tests.unit.hub.circuits.circuit_parts import FAILURES_MAX, is_open
from tests.unit.hub.circuits.guard_parts import GONE, OWN, RETRIES, Parts

NAME = Name("character", "billing")
OPENING = Opening(NAME, (OWN,), Start.LATEST, "holder", "consumer", 15.0)
OPENED = Opened(Position("e", 1), frozenset((OWN,)))


class Store:
    """The port below; each call ends as the test has written it down, else well."""

    def __init__(self):
        self.ends = []
        self.calls = 0

    async def _end(self, default=None):
        self.calls += 1
        end = self.ends.pop(0) if self.ends else default
        if isinstance(end, Exception):
            raise end
        return end

    async def open(self, database, opening, *, seconds):
        return await self._end(OPENED)

    async def hold(self, database, holds, *, lease_seconds, seconds):
        return await self._end([None])

    async def acknowledge(self, database, name, position, *, seconds):
        return await self._end()

    async def find(self, database, service, name, *, seconds):
        return await self._end([])

    async def delete(self, database, name, *, seconds):
        return await self._end()


CALLS = {
    "open": lambda one: one.open(OWN, OPENING, seconds=5.0),
    "hold": lambda one: one.hold(OWN, [Hold(NAME, "holder")], lease_seconds=15.0, seconds=5.0),
    "acknowledge": lambda one: one.acknowledge(OWN, NAME, Position("e", 1), seconds=5.0),
    "find": lambda one: one.find(OWN, "character", "billing", seconds=5.0),
    "delete": lambda one: one.delete(OWN, NAME, seconds=5.0),
}


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def parts():
    return Parts(RETRIES)


@pytest.fixture
def guarded(parts, store):
    return GuardedSubscriptions(store, parts.guard)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_an_open_circuit_refuses_at_once(parts, store, guarded, call):
    parts.open()
    with pytest.raises(CircuitOpen):
        await call(guarded)
    assert (store.calls, parts.slept) == (0, [])


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_failures_open_the_circuit(parts, store, guarded, call):
    store.ends = [GONE] * 100
    for _ in range(FAILURES_MAX):
        if not is_open(parts.breaker()):
            with pytest.raises(type(GONE)):
                await call(guarded)
    assert is_open(parts.breaker())


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_refusal_is_an_answer(parts, store, guarded, call):
    store.ends = [SubscriptionNotFound("no")]
    with pytest.raises(SubscriptionNotFound):
        await call(guarded)
    assert (parts.calls, parts.breaker().failures) == (1, 0)


@pytest.mark.parametrize("call", [CALLS[name] for name in CALLS if name != "delete"])
async def test_what_may_come_twice_is_sent_again(parts, store, guarded, call):
    store.ends = [GONE]
    await call(guarded)
    assert store.calls == 2


async def test_what_would_be_found_gone_is_not(store, guarded):
    store.ends = [GONE]
    with pytest.raises(type(GONE)):
        await CALLS["delete"](guarded)
    assert store.calls == 1
