"""Transactions in one call: all or nothing, once, whatever is lost on the way."""

import asyncio

import pytest

from hub.core.transactions.transaction import Advance, PartState, Resolution, Step
from messagehub.errors import (
    CircuitOpen,
    ConstraintViolation,
    DeadlineExceeded,
    QueueFull,
    RequestIdReused,
    ResultTooLarge,
    StorageUnavailable,
    TransactionConflict,
)
from tests.support.virtual_time import run
from tests.unit.hub.transactions.world import Fate, check_atomic, check_idle, world

ADD = [("add", "x", 1)]
BOTH = {"a": ADD, "b": ADD}


def test_all_databases_change_and_the_results_come_in_order():
    async def live():
        async with world() as w:
            hub = w.hub()
            done = await hub.execute(
                {"c": [("add", "x", 3), ("read", "x")], "a": ADD, "b": [("read", "x")]},
                events={"a": ["levelled_up"]},
            )
            assert [result.database for result in done.results] == ["c", "c", "a", "b"]
            assert [result.result for result in done.results] == [None, 3, None, 0]
            assert [result.sequence for result in done.results] == [1, 1, 1, 1]
            assert done.transaction_id.startswith("c/")
            assert not done.replayed
            await w.settle()
            assert w.databases["a"].journal == [(done.transaction_id, ("levelled_up",))]
            assert [w.value(name) for name in "abc"] == [1, 0, 3]
            assert hub.reached == [
                "coordinator.before_prepare",
                "coordinator.after_one_prepare",
                "coordinator.all_prepared",
                "coordinator.decided",
                "coordinator.after_one_commit",
                "coordinator.finished",
            ]
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_whoever_is_answered_finds_it_everywhere():
    async def live():
        async with world() as w:
            await w.hub().execute({"a": ADD, "b": ADD, "c": ADD})
            assert [w.value(name) for name in "abc"] == [1, 1, 1]

    run(live())


@pytest.mark.parametrize("fate", [Fate.REQUEST_LOST, Fate.REFUSED])
def test_nobody_who_is_away_is_waited_for(fate):
    async def live():
        async with world() as w:
            hub = w.hub()
            w.fates = lambda hub_, database, message: (
                fate if isinstance(message, Resolution) else Fate.ARRIVES
            )
            before = w.clock()
            await hub.execute(BOTH)
            assert w.clock() - before < 0.1
            assert w.value("b") == 1
            assert w.databases["a"].prepared
            await w.settle()
            assert w.value("a") == 1
            check_atomic(w)

    run(live())


def test_a_participant_that_cannot_be_told_holds_up_nobody_in_this_hub():
    async def live():
        async with world() as w:
            hub = w.hub()
            w.fates = lambda hub_, database, message: (
                Fate.REQUEST_LOST if isinstance(message, Resolution) else Fate.ARRIVES
            )
            await hub.execute(BOTH)
            before = w.clock()
            # The home is free, and this hub does not wait for what only storage guards.
            await hub.execute({"b": ADD, "c": [("read", "x")]})
            assert w.clock() - before < 0.1
            assert hub.lanes.idle
            await w.settle()
            check_atomic(w)

    run(live())


def test_who_was_prepared_in_vain_is_free_at_once():
    async def live():
        async with world() as w:
            hub = w.hub()
            w.databases["b"].lane = "somebody"
            for failing in (TransactionConflict, CircuitOpen):
                with pytest.raises(failing):
                    await hub.execute({"a": ADD, "b": ADD, "c": ADD}, seconds=1.0)
                await asyncio.sleep(0.05)
                assert not w.databases["a"].prepared
                assert not w.databases["a"].open
                hub.cut_off.add("b")
            w.databases["b"].lane = None
            await w.settle()
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_nobody_who_is_slow_is_waited_for_longer_than_may_be():
    async def live():
        async with world() as w:
            hub = w.hub(visible_seconds=0.5)
            tell = w.databases["a"].resolve

            async def slow(resolution):
                await asyncio.sleep(3.0)
                return await tell(resolution)

            w.databases["a"].resolve = slow
            before = w.clock()
            await hub.execute(BOTH)
            assert 0.5 <= w.clock() - before < 1.0
            await w.settle()
            assert w.value("a") == 1

    run(live())


def test_one_database_needs_one_message():
    async def live():
        async with world() as w:
            await w.hub().execute({"a": ADD})
            await w.settle()
            ((database, message),) = w.sent
            assert (database, message.step) == ("a", Step.COMMIT)

    run(live())


def test_a_statement_that_fails_undoes_everything_and_stays_so():
    async def live():
        async with world() as w:
            hub = w.hub()
            for _ in range(2):
                with pytest.raises(ConstraintViolation) as failure:
                    await hub.execute({"a": ADD, "b": ADD, "c": [*ADD, ("fail",)]}, request_id="r")
                assert failure.value.metadata["operation"] == "3"
                assert failure.value.metadata["transaction_id"].startswith("c/")
            await w.settle()
            assert not any(w.value(name) for name in "abc")
            check_atomic(w)
            check_idle(hub)
            # Also when it would succeed by now: the request id is used.
            with pytest.raises(ConstraintViolation):
                await hub.execute({"a": ADD, "b": ADD, "c": [*ADD, ("fail",)]}, request_id="r")

    run(live())


@pytest.mark.parametrize("failing", ["a", "b", "c"])
def test_whoever_fails_the_others_are_rolled_back(failing):
    async def live():
        async with world() as w:
            hub = w.hub()
            work = {name: [("fail",)] if name == failing else ADD for name in "abc"}
            with pytest.raises(ConstraintViolation):
                await hub.execute(work)
            await w.settle()
            assert not any(w.value(name) for name in "abc")
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_the_same_request_id_gives_the_record():
    async def live():
        async with world() as w:
            first = await w.hub().execute(BOTH, request_id="r")
            again = await w.hub().execute(BOTH, request_id="r")
            assert again.replayed
            assert again.transaction_id == first.transaction_id
            assert list(again.results) == list(first.results)
            await w.settle()
            assert (w.value("a"), w.value("b")) == (1, 1)
            check_atomic(w)

    run(live())


def test_a_replay_that_would_fail_now_still_gives_the_record():
    async def live():
        async with world() as w:
            hub = w.hub()
            first = await hub.execute(BOTH, request_id="r")
            await w.settle()

            # The row is there by now.
            def conflicts(hub_, database, message):
                if isinstance(message, Advance) and message.database == "a":
                    raise ConstraintViolation("the key is there already")
                return Fate.ARRIVES

            w.fates = conflicts
            again = await hub.execute(BOTH, request_id="r")
            assert (again.replayed, again.transaction_id) == (True, first.transaction_id)

    run(live())


def test_the_same_request_id_with_other_content_is_refused():
    async def live():
        async with world() as w:
            hub = w.hub()
            await hub.execute(BOTH, request_id="r")
            with pytest.raises(RequestIdReused):
                await hub.execute({"a": ADD, "b": [("add", "x", 2)]}, request_id="r")
            await w.settle()
            assert (w.value("a"), w.value("b")) == (1, 1)
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_a_lost_answer_of_the_decision_is_asked_for():
    async def live():
        async with world() as w:
            hub = w.hub()
            lost = []

            def fates(hub_, database, message):
                if isinstance(message, Advance) and message.step is Step.COMMIT and not lost:
                    lost.append(message)
                    return Fate.ANSWER_LOST
                return Fate.ARRIVES

            w.fates = fates
            done = await hub.execute(BOTH)
            assert (done.replayed, len(done.results)) == (False, 2)
            await w.settle()
            assert (w.value("a"), w.value("b")) == (1, 1)
            assert len(w.ids()) == 1
            check_atomic(w)

    run(live())


def test_a_home_that_never_answers_leaves_the_question_open():
    async def live():
        async with world() as w:
            hub = w.hub()

            def fates(hub_, database, message):
                if database != "b":
                    return Fate.ARRIVES
                first = isinstance(message, Advance) and message.step is Step.COMMIT
                return Fate.ANSWER_LOST if first else Fate.REQUEST_LOST

            w.fates = fates
            with pytest.raises(StorageUnavailable) as failure:
                await hub.execute(BOTH, request_id="r", seconds=3.0)
            assert failure.value.metadata["request_id"] == "r"
            assert failure.value.metadata["transaction_id"].startswith("b/")
            # Nobody guesses meanwhile.
            await asyncio.sleep(20.0)
            assert w.databases["a"].prepared
            check_idle(hub)
            await w.settle()
            assert (w.value("a"), w.value("b")) == (1, 1)
            check_atomic(w)
            assert (await hub.execute(BOTH, request_id="r")).replayed

    run(live())


def test_a_participant_that_is_away_is_refused_at_once_and_nothing_stays():
    async def live():
        async with world() as w:
            hub = w.hub()
            hub.cut_off.add("a")
            before = w.clock()
            with pytest.raises(CircuitOpen):
                await hub.execute(BOTH)
            assert w.clock() - before < 0.1
            await w.settle()
            assert (w.value("a"), w.value("b")) == (0, 0)
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_what_broke_for_a_moment_is_tried_again():
    async def live():
        async with world() as w:
            hub = w.hub()
            fates = iter([Fate.REQUEST_LOST, Fate.ANSWER_LOST, Fate.RESTART])
            w.fates = lambda *_: next(fates, Fate.ARRIVES)
            await hub.execute(BOTH, request_id="r")
            await w.settle()
            assert (w.value("a"), w.value("b")) == (1, 1)
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_a_caller_who_goes_away_leaves_nothing_behind():
    async def live():
        async with world() as w:
            hub = w.hub()
            for seconds in (0.0, 0.0005, 0.0015, 0.0025, 0.0035, 0.0045, 0.3):
                calling = asyncio.ensure_future(
                    hub.execute({"a": [("slow", 0.2), *ADD], "b": ADD, "c": ADD})
                )
                await asyncio.sleep(seconds)
                calling.cancel()
                await asyncio.gather(calling, return_exceptions=True)
            await w.settle()
            check_atomic(w)
            check_idle(hub)
            assert len({w.value(name) for name in "abc"}) == 1

    run(live())


def test_who_is_abandoned_stops_at_once():
    async def live():
        async with world() as w:
            hub = w.hub()
            calling = asyncio.ensure_future(
                hub.execute({"a": [("slow", 100.0)], "b": ADD}, seconds=200.0)
            )
            await asyncio.sleep(0.1)
            calling.cancel()
            await asyncio.sleep(0.1)
            assert not w.databases["a"].open
            assert hub.lanes.idle
            check_idle(hub)

    run(live())


def test_a_call_is_answered_in_its_time():
    async def live():
        async with world() as w:
            hub = w.hub()
            before = w.clock()
            with pytest.raises(DeadlineExceeded):
                await hub.execute({"a": [("slow", 100.0)], "b": ADD}, seconds=2.0)
            assert w.clock() - before <= 2.0
            await w.settle()
            assert not w.value("b")
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_a_database_that_stays_taken_ends_in_a_conflict():
    async def live():
        async with world() as w:
            hub = w.hub()
            w.databases["a"].lane = "somebody"
            before = w.clock()
            with pytest.raises(TransactionConflict):
                await hub.execute(BOTH, seconds=5.0)
            assert 3.0 <= w.clock() - before <= 5.0
            w.databases["a"].lane = None
            await w.settle()
            check_atomic(w)
            check_idle(hub)

    run(live())


def test_a_conflict_is_never_told_of_what_may_be_done():
    async def live():
        async with world() as w:
            hub = w.hub()
            await hub.execute(BOTH, request_id="r")
            await w.settle()
            w.databases["a"].lane = "somebody"
            # "Run it again" would do it twice.
            with pytest.raises(StorageUnavailable):
                await hub.execute(BOTH, request_id="r", seconds=5.0)
            w.databases["a"].lane = None
            assert (await hub.execute(BOTH, request_id="r")).replayed

    run(live())


def test_two_hubs_never_wait_in_a_circle():
    async def live():
        async with world() as w:
            hubs = [w.hub(), w.hub()]
            calls = [
                hubs[number % 2].execute({"a": ADD, "b": ADD, "c": ADD}, seconds=60.0)
                for number in range(20)
            ]
            await asyncio.gather(*calls)
            await w.settle()
            assert [w.value(name) for name in "abc"] == [20, 20, 20]
            check_atomic(w)

    run(live())


def test_transactions_of_one_hub_never_meet_in_storage():
    async def live():
        async with world() as w:
            hub = w.hub()
            await asyncio.gather(*(hub.execute({"a": ADD, "b": ADD}) for _ in range(20)))
            await w.settle()
            assert not [one for _, one in w.sent if isinstance(one, Resolution) and not one.commit]
            assert w.value("a") == 20

    run(live())


def test_too_many_at_once_are_refused():
    async def live():
        async with world() as w:
            hub = w.hub(running_max=1)
            first = asyncio.ensure_future(hub.execute({"a": [("slow", 1.0)]}))
            await asyncio.sleep(0.1)
            with pytest.raises(QueueFull):
                await hub.execute({"b": ADD})
            await first

    run(live())


def test_rows_beyond_the_limit_roll_back():
    async def live():
        async with world() as w:
            hub = w.hub(results_bytes_max=1)
            with pytest.raises(ResultTooLarge):
                await hub.execute(BOTH)
            await w.settle()
            assert not w.value("a")
            check_atomic(w)
            check_idle(hub)

    run(live())


@pytest.mark.parametrize(
    ("place", "committed"),
    [
        ("coordinator.before_prepare", False),
        ("coordinator.after_one_prepare", False),
        ("coordinator.all_prepared", False),
        ("coordinator.decided", True),
        ("coordinator.after_one_commit", True),
    ],
)
def test_another_hub_ends_what_a_dead_one_began(place, committed):
    async def live():
        async with world() as w:
            dying, other = w.hub(), w.hub()
            dying.dies_at = place
            calling = asyncio.ensure_future(
                dying.execute({"a": ADD, "b": ADD, "c": ADD}, request_id="r")
            )
            await asyncio.sleep(1.0)
            await dying.die()
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
            await w.settle(10.0)
            assert [w.value(name) for name in "abc"] == [int(committed)] * 3
            check_atomic(w)
            again = await other.execute({"a": ADD, "b": ADD, "c": ADD}, request_id="r")
            assert again.replayed is committed
            await w.settle()
            assert [w.value(name) for name in "abc"] == [1] * 3
            check_atomic(w)

    run(live())


def test_a_home_that_cannot_know_leaves_it_in_doubt():
    async def live():
        async with world() as w:
            dying, other = w.hub(), w.hub()
            dying.dies_at = "coordinator.all_prepared"
            calling = asyncio.ensure_future(dying.execute(BOTH))
            await asyncio.sleep(1.0)
            await dying.die()
            await asyncio.gather(calling, return_exceptions=True)
            w.databases["b"].forgetful = True
            await w.settle()
            (name,) = w.databases["a"].prepared
            assert other.resolver.is_stuck(name)
            w.databases["b"].forgetful = False
            await w.settle()
            assert not w.databases["a"].prepared
            assert not other.resolver.is_stuck(name)
            assert w.records(name)["b"].state is PartState.ROLLED_BACK

    run(live())
