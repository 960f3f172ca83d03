"""A random life of an inbox, restarts included, against a model of a few lines.

The model is a list of operations and the rules of `hub.core.delivery.entries`. After every step the
file, the counters and the model must agree.
"""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hub.adapters.inbox.store import InboxStore
from hub.core.delivery.entries import HUB, Ending, Queue, Selection, State
from hub.core.delivery.inbox import Inbox, InboxLimits
from messagehub.errors import (
    InternalError,
    OperationNotCancellable,
    OperationNotFound,
    QueueFull,
    RequestIdReused,
)
from messagehub.v1.statement_pb2 import Statement
from tests.support.loop_thread import LoopThread
from tests.unit.hub.delivery.inbox_parts import Asleep, Clock

LIMITS = InboxLimits(
    operations_max=4,
    bytes_max=100_000,
    age_seconds_max=100.0,
    keep_seconds=150.0,
    kept_operations_max=5,
    kept_bytes_max=1_000_000,
    claim_operations_max=3,
    claim_bytes_max=100_000,
    sweep_seconds=1.0,
    retry_seconds=1.0,
)
QUEUES = [
    Queue(owner, database) for owner in ("character", "auth") for database in ("a_db", "b_db")
]
IDS = [f"00000000-0000-4000-8000-{number:012}" for number in range(5)]
ALIVE = (State.QUEUED, State.RUNNING)

queues = st.sampled_from(QUEUES)
ids = st.sampled_from(IDS)


class Known:
    """One operation of the model."""

    def __init__(self, queue, request_id, query, born, ended=None):
        self.queue, self.request_id, self.query = queue, request_id, query
        self.state, self.born, self.ended = State.QUEUED, born, ended

    def end(self, state, now):
        self.state, self.ended = state, now


class InboxMachine(RuleBasedStateMachine):
    """Drives a real inbox on a real file, one change at a time."""

    def __init__(self):
        super().__init__()
        self.thread = LoopThread()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.known = []
        self.claimed = {}
        self.thread.run(self.open())

    async def open(self):
        self.store = InboxStore(Path(self.directory.name), group_max=8, lost=print)
        await self.store.open()
        self.inbox = Inbox(
            self.store,
            LIMITS,
            now_us=self.clock,
            size_of=lambda content: content.ByteSize(),
            sleep=Asleep(),
        )
        self.woken = []
        await self.inbox.open(self.woken.append)

    async def close(self):
        await self.inbox.close()
        await self.store.close()

    def teardown(self):
        self.thread.run(self.close())
        self.thread.close()
        self.directory.cleanup()

    def alive(self, queue):
        return [one for one in self.known if one.queue == queue and one.state in ALIVE]

    def of(self, owner, request_id):
        for one in self.known:
            if one.queue.owner == owner and one.request_id == request_id:
                return one
        return None

    @rule(queue=queues, request_id=ids, query=st.sampled_from(["1", "2"]))
    def submit(self, queue, request_id, query):
        known = self.of(queue.owner, request_id)
        waiting = [o for o in self.known if o.queue.database == queue.database and o.state in ALIVE]
        attempt = self.inbox.submit(
            queue,
            Statement(query=query),
            source_service=queue.owner,
            correlation_id="",
            request_id=request_id,
        )
        if known is not None and (known.queue, known.query) != (queue, query):
            with pytest.raises(RequestIdReused):
                self.thread.run(attempt)
        elif known is not None:
            written = self.thread.run(attempt)
            assert written.replayed
            assert written.entry.state is known.state
        elif len(waiting) >= LIMITS.operations_max:
            with pytest.raises(QueueFull):
                self.thread.run(attempt)
        else:
            assert not self.thread.run(attempt).replayed
            self.known.append(Known(queue, request_id, query, self.clock()))

    @rule(owner=st.sampled_from(["character", "auth"]), request_id=ids)
    def cancel(self, owner, request_id):
        known = self.of(owner, request_id)
        attempt = self.inbox.cancel(owner, request_id)
        if known is None:
            with pytest.raises(OperationNotFound):
                self.thread.run(attempt)
        elif known.state not in (State.QUEUED, State.CANCELLED):
            with pytest.raises(OperationNotCancellable):
                self.thread.run(attempt)
        else:
            assert self.thread.run(attempt).state is State.CANCELLED
            if known.state is State.QUEUED:
                known.end(State.CANCELLED, self.clock())

    @rule(queue=queues)
    def claim(self, queue):
        expected = self.alive(queue)[: LIMITS.claim_operations_max]
        claimed = self.thread.run(self.inbox.claim(queue))
        assert [entry.request_id for entry in claimed] == [one.request_id for one in expected]
        assert [entry.state for entry in claimed] == [one.state for one in expected]
        self.claimed[queue] = list(claimed)
        for one in expected:
            one.state = State.RUNNING

    @rule(queue=queues, state=st.sampled_from([State.COMPLETED, State.FAILED]))
    @precondition(lambda self: any(self.claimed.values()))
    def finish(self, queue, state):
        if not self.claimed.get(queue):
            return
        entry = self.claimed[queue].pop(0)
        error = InternalError("x") if state is State.FAILED else None
        self.thread.run(self.inbox.finish([(entry, Ending(state, error=error))]))
        self.of(queue.owner, entry.request_id).end(state, self.clock())

    @rule(queue=queues, sent=st.booleans())
    @precondition(lambda self: any(self.claimed.values()))
    def postpone(self, queue, sent):
        claimed = self.claimed.pop(queue, [])
        tried = [claimed.pop(0)] if claimed and sent else []
        fresh = [entry for entry in claimed if entry.state is State.QUEUED]
        self.thread.run(self.inbox.postpone(fresh, tried))
        for entry in fresh:
            self.of(queue.owner, entry.request_id).state = State.QUEUED

    @rule(seconds=st.sampled_from([1, 30, 120]))
    def wait(self, seconds):
        self.clock.pass_seconds(seconds)
        self.thread.run(self.inbox.sweep())
        for queue in QUEUES:
            for one in self.alive(queue):
                if one.state is State.RUNNING:
                    continue
                if one.born >= self.clock() - 100_000_000:
                    break
                one.end(State.FAILED, self.clock())
        final = sorted(
            (one for one in self.known if one.state not in ALIVE), key=lambda one: one.ended
        )
        young = [one for one in final if one.ended >= self.clock() - 150_000_000]
        # Which of those that ended at the same moment go first is not promised.
        for owner, request_id in [(one.queue.owner, one.request_id) for one in final]:
            if self.thread.run(self.store.find(owner, request_id)) is None:
                gone = self.of(owner, request_id)
                self.known.remove(gone)
                assert gone not in young[-LIMITS.kept_operations_max :] or any(
                    one.ended == gone.ended for one in young if one is not gone
                )
        left = [one for one in self.known if one.state not in ALIVE]
        assert len(left) == min(len(young), LIMITS.kept_operations_max)

    @rule()
    def restart(self):
        self.thread.run(self.close())
        self.claimed.clear()
        self.thread.run(self.open())
        woken = {queue for queue in self.woken if queue.owner != HUB}
        assert woken == {one.queue for one in self.known if one.state in ALIVE}

    @invariant()
    def the_file_agrees(self):
        for owner in ("character", "auth"):
            entries, _ = self.thread.run(
                self.store.page(
                    Selection(owner, "", (), None), operations_max=1000, bytes_max=1_000_000
                )
            )
            model = {one.request_id: one.state for one in self.known if one.queue.owner == owner}
            assert {entry.request_id: entry.state for entry in entries} == model

    @invariant()
    def the_counters_agree(self):
        for database in ("a_db", "b_db"):
            waiting = [o for o in self.known if o.queue.database == database and o.state in ALIVE]
            backlog = self.thread.run(self.inbox.backlog(database))
            assert backlog.operations == len(waiting)
            assert (backlog.size > 0) == bool(waiting)


def search(**given):
    run_state_machine_as_test(
        InboxMachine,
        settings=settings(
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            **given,
        ),
    )


def test_a_random_life_agrees_with_the_model():
    search(max_examples=40, stateful_step_count=40, derandomize=True, database=None)


@pytest.mark.soak
def test_many_random_lives_agree_with_the_model():
    from hypothesis import seed

    number = int(os.environ.get("SOAK_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"SOAK_SEED={number}")
    seed(number)(InboxMachine)
    search(max_examples=500, stateful_step_count=80, database=None)
