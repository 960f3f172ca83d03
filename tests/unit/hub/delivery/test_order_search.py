"""Whatever happens to single copies of operations, none overtakes another and none is done twice.

A storage server that does as hypothesis says: it does an operation, refuses it for the moment or
for good, loses its answer, or keeps a copy and does it later, also when the hub has declared the
operation failed. Some it can never take, and leaves no record of that; some take too long again and
again, and are given up. Refusals are lost and kept like everything else. The hub is killed in
between, and what waits is taken back. What the inbox says in the end is what the database has. The
same search finds what goes wrong where the storage server does not look for the one before, or does
not record a refusal.
"""

import asyncio
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from hub.core.delivery.entries import State
from messagehub.errors import (
    AccessDenied,
    ConstraintViolation,
    DatabaseUnavailable,
    DeadlineExceeded,
    HubError,
    OperationNotCancellable,
    PredecessorMissing,
    QueueFull,
    StorageUnavailable,
)
from tests.unit.hub.delivery.delivery_scene import Database, scene
from tests.unit.hub.fake_storage import soon

COUNT = 9
FATES = ("do", "do", "fail", "full", "lose", "keep", "keep longer", "keep long", "refuse", "slow")
KEPT = {"keep": 1, "keep longer": 3, "keep long": 12}
SLOW = DeadlineExceeded("took too long")
AGAIN = DatabaseUnavailable("for the moment")
LOST = StorageUnavailable("the connection broke", metadata={"request_id": "x"})

lives = st.fixed_dictionaries(
    {
        "fates": st.lists(st.sampled_from(FATES), max_size=40),
        "slow": st.sets(st.integers(0, COUNT - 1), max_size=2),
        "denied": st.sets(st.integers(0, COUNT - 1), max_size=2),
        "deaths": st.sets(st.integers(0, 6), max_size=2),
        "taken_back": st.sets(st.integers(0, COUNT - 1), max_size=3),
    }
)


class Fickle(Database):
    """Does to each copy what its fate says.

    `looks` = it looks for the predecessor first; `bars` = it records refusals.
    """

    def __init__(self, life, *, looks=True, bars=True):
        super().__init__(SimpleNamespace(now=0.0))
        self.fates = list(life["fates"])
        self.denied = {str(number) for number in life["denied"]}
        self.deaths = life["deaths"]
        # What takes too long whenever the hub waits for it, and in its own time does not.
        self.slow = {str(number) for number in life["slow"]}
        self.looks = looks
        self.bars = bars
        # Copies that are done when so many more batches have come.
        self.kept = []
        self.died = asyncio.Event()

    async def deliver(self, operations, seconds):
        number = len(self.batches)
        self.batches.append(operations)
        await asyncio.sleep(0)
        self.do_kept(1)
        outcomes = [self.outcome(operation) for operation in operations]
        if number in self.deaths:
            self.died.set()
            await asyncio.Event().wait()
        return outcomes

    def do_kept(self, batches):
        self.kept = [(left - batches, operation) for left, operation in self.kept]
        due = [operation for left, operation in self.kept if left <= 0]
        self.kept = [(left, operation) for left, operation in self.kept if left > 0]
        for operation in due:
            self.attempt(operation)

    def outcome(self, operation):
        fate = self.fates.pop(0) if self.fates else "do"
        if fate in ("fail", "full"):
            return AGAIN if fate == "fail" else QueueFull("full")
        slow = operation.refusal is None and self.query(operation) in self.slow
        if fate in KEPT or slow:
            self.kept.append((KEPT.get(fate, 12), operation))
            return SLOW if slow else LOST
        if fate == "slow":
            return SLOW
        error = ConstraintViolation("no") if fate == "refuse" else None
        outcome = self.attempt(operation, error)
        return LOST if fate == "lose" else outcome

    def attempt(self, operation, error=None):
        if operation.refusal is not None:
            return self.attempt_bar(operation)
        if self.query(operation) in self.denied:
            return AccessDenied("no")
        new = operation.request_id not in self.records
        if new and self.looks and operation.follows and operation.follows not in self.records:
            return PredecessorMissing("the one before it has no outcome")
        if new and error is not None:
            return self.refuse(operation, error)
        try:
            return self.execute(operation)
        except HubError as known:
            return known

    def attempt_bar(self, operation):
        if not self.bars and operation.request_id not in self.records:
            return AccessDenied("nothing of the kind")
        try:
            return self.bar(operation)
        except HubError as recorded:
            return recorded

    @staticmethod
    def query(operation):
        return getattr(operation.content, "query", "")


async def live(directory, life, **kind):
    """A life of one queue; checks what it left."""
    database = Fickle(life, **kind)
    cancelled, ids = set(), []
    for process in range(len(life["deaths"]) + 1):
        database.died.clear()
        async with scene(directory, database=database) as s:
            if not ids:
                ids = await s.submit(*map(str, range(COUNT)))
            s.start()
            settled = asyncio.ensure_future(s.settled())
            died = asyncio.ensure_future(database.died.wait())
            await soon(asyncio.wait([settled, died], return_when=asyncio.FIRST_COMPLETED))
            if process == 0:
                cancelled = await take_back(s, ids, life["taken_back"])
            if settled.done():
                break
            settled.cancel()
            died.cancel()
    async with scene(directory, database=database) as s:
        s.start()
        await soon(s.settled())
        database.do_kept(100)
        check(database, ids, cancelled, [await s.entry(request_id) for request_id in ids])


async def take_back(s, ids, numbers):
    taken = set()
    for number in numbers:
        try:
            await s.inbox.cancel("character", ids[number])
        except OperationNotCancellable:
            continue
        taken.add(ids[number])
    return taken


def check(database, ids, cancelled, entries):
    numbers = [int(query) for query in database.executed if isinstance(query, str)]
    assert numbers == sorted(set(numbers))
    done = {ids[number] for number in numbers}
    assert not done & cancelled
    for entry in entries:
        assert (entry.state is State.COMPLETED) == (entry.request_id in done)
        if entry.state is State.FAILED and entry.sequence:
            assert database.records[entry.request_id].error is not None
        assert (entry.state is State.CANCELLED) == (entry.request_id in cancelled)


def search(*, kind=None, **given_settings):
    @settings(
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
        **given_settings,
    )
    @given(life=lives)
    def one(life):
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(live(Path(directory), life, **(kind or {})))

    return one


def test_the_order_holds_through_everything():
    search(max_examples=150, derandomize=True)()


def test_without_the_look_for_the_predecessor_it_does_not():
    with pytest.raises(AssertionError):
        search(kind={"looks": False}, max_examples=200, derandomize=True, phases=[Phase.generate])()


def test_without_a_record_of_the_refusal_a_failure_is_not_the_end():
    with pytest.raises(AssertionError):
        search(kind={"bars": False}, max_examples=200, derandomize=True, phases=[Phase.generate])()


@pytest.mark.soak
def test_the_order_holds_through_much_more():
    number = int(os.environ.get("SOAK_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"SOAK_SEED={number}")
    seed(number)(search(max_examples=3000))()
