"""Transactions that stay open: limits, any hub, and ends that several want at once."""

import asyncio
from contextlib import suppress

import pytest

from hub.core.transactions.transaction import (
    Advance,
    PartOperation,
    Resolution,
    State,
    Step,
    Work,
)
from messagehub.errors import (
    ConstraintViolation,
    HubError,
    InvalidRequest,
    OperationNotCancellable,
    QueueFull,
    ShuttingDown,
    StorageUnavailable,
    TransactionConflict,
    TransactionExpired,
    TransactionNotFound,
)
from tests.support.virtual_time import run
from tests.unit.hub.transactions.world import Fate, check_atomic, check_idle, world

SERVICE = "character"


async def begin(hub, *databases, idle=10.0, read_only=False, seconds=10.0):
    header = await hub.interactive.begin(
        databases or ("a", "b"),
        source_service=SERVICE,
        correlation_id="follow-me",
        read_only=read_only,
        idle_seconds=idle,
        seconds=seconds,
    )
    return header.transaction_id


async def join(hub, tx, database, *statement, service=SERVICE, request_id="", seconds=10.0):
    operation = PartOperation(0, request_id, False, "", statement)
    answer = await hub.interactive.execute(
        tx, service, database, operation, correlation_id="follow-me", seconds=seconds
    )
    return answer.results[0].result


async def commit(hub, tx, *, events=None, seconds=10.0, service=SERVICE):
    return await hub.interactive.commit(tx, service, events or {}, seconds=seconds)


async def roll_back(hub, tx, *, service=SERVICE, seconds=10.0):
    return await hub.interactive.roll_back(tx, service, seconds=seconds)


def test_it_commits_everywhere_and_says_so_again():
    async def live():
        async with world() as w:
            hub = w.hub()
            tx = await begin(hub)
            await join(hub, tx, "a", "add", "x", 1)
            await join(hub, tx, "b", "add", "x", 2)
            assert await join(hub, tx, "b", "read", "x") == 2
            assert (w.value("a"), w.value("b")) == (0, 0)
            for _ in range(2):
                ended = await commit(hub, tx, events={"a": Work((), ("met",))})
                assert ended.state is State.COMMITTED
            assert (w.value("a"), w.value("b")) == (1, 2)
            assert w.databases["a"].journal == [(tx, ("met",))]
            await w.settle(1.0)
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_it_rolls_back_everywhere_and_says_so_again():
    async def live():
        async with world() as w:
            hub = w.hub()
            tx = await begin(hub)
            await join(hub, tx, "a", "add", "x", 1)
            for _ in range(2):
                assert (await roll_back(hub, tx)).state is State.ROLLED_BACK
            with pytest.raises(TransactionExpired):
                await commit(hub, tx)
            with pytest.raises(TransactionExpired):
                await join(hub, tx, "a", "read", "x")
            await w.settle(1.0)
            assert w.value("a") == 0
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_what_is_committed_cannot_be_taken_back():
    async def live():
        async with world() as w:
            hub = w.hub()
            tx = await begin(hub)
            await commit(hub, tx)
            with pytest.raises(OperationNotCancellable):
                await roll_back(hub, tx)

    run(live())


def test_one_statement_fails_alone():
    async def live():
        async with world() as w:
            hub = w.hub()
            tx = await begin(hub)
            await join(hub, tx, "a", "add", "x", 1)
            with pytest.raises(ConstraintViolation):
                await join(hub, tx, "a", "fail")
            await commit(hub, tx)
            assert w.value("a") == 1

    run(live())


def test_a_statement_whose_answer_was_lost_is_not_run_twice():
    async def live():
        async with world() as w:
            hub = w.hub()
            tx = await begin(hub)
            fates = iter([Fate.ANSWER_LOST, Fate.REQUEST_LOST])
            w.fates = lambda *_: next(fates, Fate.ARRIVES)
            await join(hub, tx, "a", "add", "x", 1, request_id="r")
            await commit(hub, tx)
            assert w.value("a") == 1

    run(live())


def test_bad_calls_are_refused():
    async def live():
        async with world() as w:
            hub = w.hub(open_max=1)
            tx = await begin(hub)
            with pytest.raises(QueueFull):
                await begin(hub, "c")
            with pytest.raises(InvalidRequest):
                await join(hub, tx, "c", "read", "x")
            with pytest.raises(InvalidRequest):
                await commit(hub, tx, events={"c": Work((), ("met",))})
            for call in (join(hub, tx, "a", "read", "x", service="auth"),):
                with pytest.raises(TransactionNotFound):
                    await call
            with pytest.raises(TransactionNotFound):
                await commit(hub, tx, service="auth")
            with pytest.raises(TransactionNotFound):
                await roll_back(hub, "nowhere/1")
            with pytest.raises(InvalidRequest):
                await roll_back(hub, "nonsense")
            await roll_back(hub, tx)

    run(live())


def test_whoever_comes_second_waits_for_a_bounded_time():
    async def live():
        async with world() as w:
            hub = w.hub()
            tx = await begin(hub)
            before = w.clock()
            with pytest.raises(TransactionConflict):
                await begin(hub, "b", "c")
            assert 2.0 <= w.clock() - before <= 5.0
            waiting = asyncio.ensure_future(begin(hub, "b", "c"))
            await asyncio.sleep(0.5)
            await commit(hub, tx)
            await roll_back(hub, await waiting)
            await w.settle(1.0)
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_two_hubs_that_begin_at_once_both_get_their_turn():
    async def live():
        async with world() as w:
            hubs = [w.hub(), w.hub()]

            async def use(hub):
                tx = await begin(hub, "a", "b", "c", seconds=30.0)
                await join(hub, tx, "a", "add", "x", 1)
                await commit(hub, tx)

            ended = await asyncio.gather(*(use(hub) for hub in hubs), return_exceptions=True)
            assert all(one is None or isinstance(one, TransactionConflict) for one in ended)
            assert None in ended
            await w.settle(5.0)
            check_atomic(w)
            for hub in hubs:
                check_idle(hub)

    run(live())


def test_without_a_call_it_ends():
    async def live():
        async with world() as w:
            hub = w.hub()
            tx = await begin(hub, idle=2.0)
            await join(hub, tx, "a", "add", "x", 1)
            await asyncio.sleep(1.9)
            await join(hub, tx, "b", "add", "x", 1)
            await asyncio.sleep(5.0)
            with pytest.raises(TransactionExpired):
                await join(hub, tx, "a", "add", "x", 1)
            assert hub.lanes.idle
            await w.settle(1.0)
            assert (w.value("a"), w.value("b")) == (0, 0)
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_one_part_in_use_keeps_the_others_alive():
    async def live():
        async with world() as w:
            hub = w.hub()
            tx = await begin(hub, idle=2.0)
            for _ in range(30):
                await join(hub, tx, "a", "add", "x", 1)
                await asyncio.sleep(0.5)
            # Also while one statement takes its time.
            await join(hub, tx, "a", "slow", 9.0, seconds=20.0)
            await join(hub, tx, "b", "add", "x", 1)
            await commit(hub, tx)
            assert (w.value("a"), w.value("b")) == (30, 1)

    run(live())


def test_nothing_is_open_for_ever():
    async def live():
        async with world() as w:
            hub = w.hub(seconds_max=20.0)
            tx = await begin(hub)
            for _ in range(15):
                await join(hub, tx, "a", "add", "x", 1)
                await asyncio.sleep(1.0)
            await asyncio.sleep(5.0)
            with pytest.raises(TransactionExpired):
                await join(hub, tx, "a", "add", "x", 1)
            await w.settle(1.0)
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_any_hub_goes_on_with_it():
    async def live():
        async with world() as w:
            one, other = w.hub(), w.hub()
            tx = await begin(one, idle=3.0)
            for _ in range(5):
                await join(other, tx, "a", "add", "x", 1)
                await asyncio.sleep(2.0)
            assert (await commit(one, tx)).state is State.COMMITTED
            assert (await commit(other, tx)).state is State.COMMITTED
            assert w.value("a") == 5
            await w.settle(10.0)
            check_atomic(w)
            check_idle(one)
            check_idle(other)

    run(live())


def test_it_outlives_the_hub_that_began_it():
    async def live():
        async with world() as w:
            dying, other = w.hub(), w.hub()
            tx = await begin(dying)
            await join(dying, tx, "a", "add", "x", 1)
            await dying.die()
            await join(other, tx, "b", "add", "x", 1)
            assert (await commit(other, tx)).state is State.COMMITTED
            assert (w.value("a"), w.value("b")) == (1, 1)

    run(live())


def test_a_part_that_was_lost_ends_it():
    async def live():
        async with world() as w:
            hub = w.hub()
            tx = await begin(hub)
            await join(hub, tx, "a", "add", "x", 1)
            w.databases["a"].restart()
            with pytest.raises(TransactionExpired):
                await join(hub, tx, "a", "add", "x", 1)
            await w.settle(1.0)
            assert not w.databases["b"].open
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_a_part_that_was_lost_is_never_committed_without():
    async def live():
        async with world() as w:
            hub = w.hub()
            for lost in ("a", "b"):
                tx = await begin(hub)
                await join(hub, tx, "a", "add", "x", 1)
                await join(hub, tx, "b", "add", "x", 1)
                w.databases[lost].restart()
                with pytest.raises(TransactionExpired):
                    await commit(hub, tx)
            await w.settle(1.0)
            assert (w.value("a"), w.value("b")) == (0, 0)
            check_atomic(w)
            check_idle(hub)

    run(live())


@pytest.mark.parametrize("fate", [Fate.ANSWER_LOST, Fate.REQUEST_LOST, Fate.RESTART])
@pytest.mark.parametrize("step", [Step.PREPARE, Step.COMMIT])
def test_a_commit_tells_the_truth_whatever_is_lost(fate, step):
    async def live():
        async with world() as w:
            hub = w.hub()
            tx = await begin(hub)
            await join(hub, tx, "a", "add", "x", 1)
            await join(hub, tx, "b", "add", "x", 1)
            lost = []

            def fates(hub_, database, message):
                if isinstance(message, Advance) and message.step is step and not lost:
                    lost.append(message)
                    return fate
                return Fate.ARRIVES

            w.fates = fates
            try:
                told = (await commit(hub, tx)).state is State.COMMITTED
            except TransactionExpired:
                told = False
            await w.settle()
            assert (w.value("a"), w.value("b")) == (int(told), int(told))
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_a_home_that_is_silent_leaves_the_commit_open():
    async def live():
        async with world() as w:
            hub = w.hub()
            tx = await begin(hub)
            await join(hub, tx, "a", "add", "x", 1)
            await join(hub, tx, "b", "add", "x", 1)

            def fates(hub_, database, message):
                if database != "b":
                    return Fate.ARRIVES
                committing = isinstance(message, Advance) and message.step is Step.COMMIT
                return Fate.ANSWER_LOST if committing else Fate.REQUEST_LOST

            w.fates = fates
            with pytest.raises(StorageUnavailable):
                await commit(hub, tx, seconds=3.0)
            assert w.databases["a"].prepared
            await w.settle()
            assert (await commit(hub, tx)).state is State.COMMITTED
            assert (w.value("a"), w.value("b")) == (1, 1)
            check_atomic(w)

    run(live())


@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.01])
def test_a_commit_and_a_rollback_by_another_hub_agree(delay):
    async def live():
        async with world() as w:
            one, other = w.hub(), w.hub()
            tx = await begin(one)
            await join(one, tx, "a", "add", "x", 1)
            await join(other, tx, "b", "add", "x", 1)
            committing = asyncio.ensure_future(commit(one, tx))
            await asyncio.sleep(delay)
            told = []
            with suppress(HubError):
                told.append((await roll_back(other, tx)).state)
            with suppress(HubError):
                told.append((await committing).state)
            assert len(set(told)) == 1
            await w.settle()
            assert w.value("a") == w.value("b") == int(told[0] is State.COMMITTED)
            check_atomic(w)
            check_idle(one)
            check_idle(other)

    run(live())


def test_a_commit_goes_on_when_its_caller_goes_away():
    async def live():
        async with world() as w:
            hub = w.hub()
            tx = await begin(hub)
            await join(hub, tx, "a", "add", "x", 1)
            committing = asyncio.ensure_future(commit(hub, tx))
            await asyncio.sleep(0.0015)
            committing.cancel()
            await asyncio.gather(committing, return_exceptions=True)
            assert (await commit(hub, tx)).state is State.COMMITTED
            assert w.value("a") == 1

    run(live())


def test_a_begin_whose_caller_goes_away_leaves_nothing_open():
    async def live():
        async with world() as w:
            hub = w.hub()
            for delay in (0.0, 0.0005, 0.0015, 0.0025):
                beginning = asyncio.ensure_future(begin(hub))
                await asyncio.sleep(delay)
                beginning.cancel()
                await asyncio.gather(beginning, return_exceptions=True)
            await w.settle()
            check_atomic(w)
            for one in list(hub.interactive._served.all()):
                await roll_back(hub, one.header.transaction_id)
            await w.settle(1.0)
            check_idle(hub)

    run(live())


def test_a_hub_that_stops_rolls_back_what_it_began():
    async def live():
        async with world() as w:
            hub, other = w.hub(), w.hub()
            mine, theirs = await begin(hub, "a"), await begin(other, "b", "c")
            await join(hub, mine, "a", "add", "x", 1)
            await join(hub, theirs, "b", "add", "x", 1)
            hub.interactive.close(ShuttingDown("the hub stops"))
            await hub.background.close(5.0)
            with pytest.raises(TransactionExpired):
                await commit(other, mine)
            await commit(other, theirs)
            await w.settle(1.0)
            assert (w.value("a"), w.value("b")) == (0, 1)
            check_atomic(w)
            check_idle(hub)

    run(live())


# Reading.


def test_a_cut_is_of_one_moment():
    async def live():
        async with world() as w:
            hubs = [w.hub(), w.hub()]

            async def write(hub):
                for _ in range(20):
                    await hub.execute(
                        {"a": [("add", "x", 1)], "b": [("add", "x", -1)]}, seconds=60.0
                    )

            async def read(hub):
                seen = 0
                while not all(one.done() for one in writing):
                    tx = await begin(hub, read_only=True, seconds=60.0)
                    values = [await join(hub, tx, name, "read", "x") for name in "ab"]
                    assert sum(values) == 0, values
                    await commit(hub, tx)
                    seen += 1
                return seen

            writing = [asyncio.ensure_future(write(hub)) for hub in hubs]
            seen = await asyncio.gather(*(read(hub) for hub in hubs))
            await asyncio.gather(*writing)
            assert min(seen) > 5
            await w.settle(5.0)
            assert w.value("a") == 40
            check_atomic(w)
            for hub in hubs:
                check_idle(hub)

    run(live())


def test_a_cut_whose_hold_was_lost_is_made_again():
    async def live():
        async with world() as w:
            hub = w.hub()
            holds = []

            def fates(hub_, database, message):
                if isinstance(message, tuple) and message[0] == "hold_commits":
                    holds.append(database)
                if isinstance(message, Advance) and len(holds) == 2:
                    # Meanwhile the lease is over.
                    w.databases["a"].holders.clear()
                return Fate.ARRIVES

            w.fates = fates
            tx = await begin(hub, read_only=True)
            assert len(holds) == 4
            await roll_back(hub, tx)
            await w.settle(1.0)
            check_atomic(w)

    run(live())


def test_a_transaction_that_only_reads_needs_no_lane():
    async def live():
        async with world() as w:
            hub = w.hub()
            writing = await begin(hub)
            reading = await begin(hub, read_only=True)
            await join(hub, writing, "a", "add", "x", 1)
            await commit(hub, writing)
            assert await join(hub, reading, "a", "read", "x") == 0
            assert (await commit(hub, reading)).state is State.COMMITTED
            assert (await commit(hub, reading)).state is State.COMMITTED
            await w.settle(1.0)
            assert not [
                one
                for _, one in w.sent
                if isinstance(one, Resolution) and one.header.read_only and one.commit
            ]
            check_atomic(w)

    run(live())
