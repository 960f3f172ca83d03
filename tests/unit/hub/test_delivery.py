"""Delivery: in order, exactly once, and whatever fails is told."""

import asyncio
from dataclasses import replace

import pytest

from hub.core.entries import HUB, Queue
from messagehub.errors import (
    AccessDenied,
    CircuitOpen,
    ConstraintViolation,
    DatabaseCorrupt,
    DatabaseUnavailable,
    DeadlineExceeded,
    InternalError,
    InvalidRoute,
    OperationNotCancellable,
    QueueFull,
    RequestIdReused,
    ResultTooLarge,
    StorageFull,
    StorageUnavailable,
)
from messagehub.v1.event_pb2 import Event
from messagehub.v1.statement_pb2 import ResultSet
from tests.unit.hub.delivery_scene import scene
from tests.unit.hub.fake_storage import soon
from tests.unit.hub.inbox_parts import OTHER, OWN, ROOMY

AWAY = StorageUnavailable("nobody there", retry_after=0.5)
NUMBERS = [str(number) for number in range(10)]


async def test_a_queue_is_delivered_in_order_one_at_a_time(tmp_path):
    async with scene(tmp_path) as s:
        ids = await s.submit(*NUMBERS)
        s.start()
        await soon(s.settled())
        assert s.database.executed == NUMBERS
        assert s.database.most_under_way == 1
        assert await s.states() == ["COMPLETED"] * 10
        entry = await s.entry(ids[4])
        assert (entry.result, entry.sequence, entry.attempts) == (
            ResultSet(rows_affected=5),
            5,
            1,
        )
        assert (await s.inbox.backlog("character_db")).operations == 0


async def test_what_is_submitted_while_it_delivers_follows(tmp_path):
    async with scene(tmp_path) as s:
        s.start()
        for number in NUMBERS:
            await s.submit(number)
        await soon(s.settled())
        assert s.database.executed == NUMBERS


async def test_an_empty_queue_is_left_alone(tmp_path):
    async with scene(tmp_path) as s:
        claim, claims = s.store.claim, []

        async def count(*args, **fields):
            claims.append(await claim(*args, **fields))
            return claims[-1]

        s.store.claim = count
        s.start()
        await s.submit("0")
        await soon(s.settled())
        await s.waits(s.delivery._drains[OWN].done)
        assert [len(claimed) for claimed in claims] == [1, 0]


async def test_an_operation_is_sent_as_it_was_submitted(tmp_path):
    async with scene(tmp_path) as s:
        s.start()
        (request_id,) = await s.submit("INSERT", queue=Queue("character", "auth_db"))
        await soon(s.settled())
        (sent,) = s.database.sent
        assert (sent.database, sent.source_service) == ("auth_db", "character")
        assert (sent.request_id, sent.correlation_id) == (request_id, "c")
        assert sent.submitted
        assert not sent.read_only


async def test_queues_do_not_wait_for_each_other(tmp_path):
    async with scene(tmp_path) as s:
        go_on = asyncio.Event()

        async def slowly(_operation):
            await go_on.wait()

        s.database.answers["slow"] = [slowly]
        s.start()
        await s.submit("slow", "behind it")
        await s.submit(*NUMBERS, queue=OTHER)
        await soon(s.settled("auth"))
        assert s.database.executed == NUMBERS
        go_on.set()
        await soon(s.settled())
        assert s.database.executed == [*NUMBERS, "slow", "behind it"]


@pytest.mark.parametrize(
    "failure",
    [
        AWAY,
        DatabaseUnavailable("owned by another"),
        DatabaseCorrupt("damaged"),
        StorageFull("full"),
        QueueFull("too many"),
        CircuitOpen("open", retry_after=0.1),
    ],
)
async def test_a_failure_that_passes_lets_nobody_overtake(tmp_path, failure):
    async with scene(tmp_path) as s:
        s.database.answers["2"] = [failure] * 3
        await s.submit(*NUMBERS)
        s.start()
        await soon(s.settled())
        assert s.database.executed == NUMBERS
        assert await s.states() == ["COMPLETED"] * 10


async def test_an_answer_that_was_lost_is_asked_for_again(tmp_path):
    async with scene(tmp_path) as s:

        async def lose(operation):
            s.database.execute(operation)
            return AWAY

        s.database.answers["2"] = [lose, lose]
        ids = await s.submit(*NUMBERS)
        s.start()
        await soon(s.settled())
        assert s.database.executed == NUMBERS
        assert (await s.entry(ids[2])).attempts == 3
        assert [one.request_id for one in s.database.sent].count(ids[2]) == 3


async def test_the_delay_grows_with_jitter_up_to_a_bound(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["1"] = [AWAY] * 6
        await s.submit("1")
        s.start()
        await soon(s.settled())
        assert s.naps.seconds == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


async def test_a_delay_that_is_asked_for_is_kept(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["1"] = [
            QueueFull("wait", retry_after=20.0),
            CircuitOpen("open", retry_after=0.25),
        ]
        await s.submit("1")
        s.start()
        await soon(s.settled())
        assert s.naps.seconds == [20.0, 0.25]


async def test_a_permanent_failure_ends_visibly_and_the_queue_goes_on(tmp_path):
    error = ConstraintViolation("taken", metadata={"constraint": "unique"})
    async with scene(tmp_path) as s:

        async def refuse(operation):
            return s.database.refuse(operation, error)

        s.database.answers["1"] = [refuse]
        ids = await s.submit("0", "1", "2")
        s.start()
        await soon(s.settled())
        assert await s.states() == ["COMPLETED", "FAILED", "COMPLETED"]
        failed = await s.entry(ids[1])
        assert isinstance(failed.error, ConstraintViolation)
        assert failed.error.metadata == {"constraint": "unique"}
        assert (failed.attempts, failed.sequence) == (1, 99)
        # The journal tells of it, so the hub does not.
        assert s.database.executed == ["0", "2"]
        assert {one.source_service for one in s.database.sent} == {"character"}


async def test_a_failure_that_no_journal_has_is_announced(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["1"] = [ResultTooLarge("too many rows")]
        (request_id,) = await s.submit("1")
        s.start()
        await soon(s.settled())
        await s.waits(lambda: len(s.database.executed) == 1)
        (event,) = s.database.executed
        assert event.type == "storage.operation_failed"
        assert event.operation_failed.request_id == request_id
        sent = s.database.sent[-1]
        assert (sent.source_service, sent.correlation_id) == ("character", "c")
        assert not sent.submitted


async def test_the_journal_has_the_last_word_about_a_failure(tmp_path):
    async with scene(tmp_path) as s:

        async def do_and_lie(operation):
            s.database.execute(operation)
            return ResultTooLarge("said something else")

        s.database.answers["1"] = [do_and_lie]
        (request_id,) = await s.submit("1")
        s.start()
        await soon(s.settled())
        entry = await s.entry(request_id)
        assert (entry.state.name, entry.sequence) == ("COMPLETED", 1)


@pytest.mark.parametrize(
    ("error", "author"),
    [
        (RequestIdReused("other content"), "character"),
        (RequestIdReused("other content"), "auth"),
        (ResultTooLarge("too many rows"), "auth"),
    ],
)
async def test_a_record_of_something_else_is_not_believed(tmp_path, error, author):
    async with scene(tmp_path) as s:

        async def fail(operation):
            s.database.execute(operation._replace(source_service=author))
            return error

        s.database.answers["1"] = [fail]
        (request_id,) = await s.submit("1")
        s.start()
        await soon(s.settled())
        entry = await s.entry(request_id)
        assert isinstance(entry.error, type(error))
        assert entry.sequence == 0


async def test_while_the_journal_cannot_be_asked_nothing_is_decided(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["1"] = [ResultTooLarge("x"), ResultTooLarge("x")]
        s.database.silent = AWAY
        (request_id,) = await s.submit("1")
        s.naps.held.clear()
        s.start()
        await s.waits(lambda: len(s.naps.seconds) == 1)
        assert (await s.entry(request_id)).state.name == "RUNNING"
        s.database.silent = None
        s.naps.held.set()
        await soon(s.settled())
        assert isinstance((await s.entry(request_id)).error, ResultTooLarge)


@pytest.mark.parametrize("error", [DeadlineExceeded("slow"), InternalError("defect")])
async def test_what_never_gets_done_fails_after_a_few_answers(tmp_path, error):
    async with scene(tmp_path) as s:
        s.database.answers["1"] = [error] * 100
        ids = await s.submit("1", "2")
        s.start()
        await soon(s.settled())
        assert await s.states() == ["FAILED", "COMPLETED"]
        failed = await s.entry(ids[0])
        assert isinstance(failed.error, type(error))
        assert (failed.attempts, failed.setbacks) == (3, 2)


async def test_silence_is_not_held_against_an_operation(tmp_path):
    async with scene(tmp_path) as s:

        async def silence(_operation):
            s.database.clock.now += 30.0
            return DeadlineExceeded("no answer")

        s.database.answers["1"] = [silence] * 20
        ids = await s.submit("1", "2")
        s.start()
        await soon(s.settled())
        assert await s.states() == ["COMPLETED", "COMPLETED"]
        assert (await s.entry(ids[0])).attempts == 21


# Cancelling, and databases that cannot be used.


async def test_nothing_is_claimed_while_the_database_cannot_be_used(tmp_path):
    async with scene(tmp_path) as s:
        s.delivery.set_available("character_db", available=False)
        ids = await s.submit("1", "2", "3")
        s.start()
        await s.submit("elsewhere", queue=Queue("auth", "auth_db"))
        await soon(s.settled("auth"))
        assert await s.states() == ["QUEUED"] * 3
        await s.inbox.cancel("character", ids[1])
        s.delivery.set_available("character_db", available=True)
        await soon(s.settled())
        assert s.database.executed == ["elsewhere", "1", "3"]
        assert await s.states() == ["COMPLETED", "CANCELLED", "COMPLETED"]


async def test_what_was_claimed_and_not_sent_can_be_cancelled_again(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["0"] = [AWAY]
        s.naps.held.clear()
        ids = await s.submit(*NUMBERS[:4])
        s.start()
        await s.waits(lambda: len(s.naps.seconds) == 1)
        # The first may have been executed; the others never left.
        assert await s.states() == ["RUNNING", "QUEUED", "QUEUED", "QUEUED"]
        with pytest.raises(OperationNotCancellable):
            await s.inbox.cancel("character", ids[0])
        await s.inbox.cancel("character", ids[2])
        s.naps.held.set()
        await soon(s.settled())
        assert s.database.executed == ["0", "1", "3"]


@pytest.mark.parametrize("refusal", [CircuitOpen("open", retry_after=1.0), QueueFull("full")])
async def test_what_was_refused_before_it_began_can_be_cancelled(tmp_path, refusal):
    async with scene(tmp_path) as s:
        s.database.answers["0"] = [refusal]
        s.naps.held.clear()
        ids = await s.submit("0")
        s.start()
        await s.waits(lambda: len(s.naps.seconds) == 1)
        assert await s.states() == ["QUEUED"]
        assert (await s.entry(ids[0])).attempts == 0
        await s.inbox.cancel("character", ids[0])
        s.naps.held.set()
        assert s.database.executed == []


async def test_a_refusal_does_not_make_an_unknown_outcome_known(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["0"] = [AWAY, CircuitOpen("open", retry_after=1.0)]
        ids = await s.submit("0")
        s.naps.held.clear()
        s.start()
        await s.waits(lambda: len(s.naps.seconds) == 1)
        s.naps.held.set()
        s.naps.held.clear()
        await s.waits(lambda: len(s.naps.seconds) == 2)
        assert await s.states() == ["RUNNING"]
        with pytest.raises(OperationNotCancellable):
            await s.inbox.cancel("character", ids[0])


async def test_it_goes_on_at_once_when_the_database_is_back(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["0"] = [AWAY]
        s.naps.held.clear()
        await s.submit("0")
        s.start()
        await s.waits(lambda: len(s.naps.seconds) == 1)
        s.delivery.set_available("character_db", available=False)
        s.delivery.set_available("character_db", available=True)
        await soon(s.settled())
        assert s.database.executed == ["0"]


async def test_the_rest_of_a_claim_goes_back_when_the_database_goes(tmp_path):
    async with scene(tmp_path) as s:

        async def last(_operation):
            s.delivery.set_available("character_db", available=False)

        s.database.answers["1"] = [last]
        await s.submit(*NUMBERS[:4])
        s.start()
        await s.waits(lambda: len(s.database.executed) == 2)
        await soon(s.become("COMPLETED", "COMPLETED", "QUEUED", "QUEUED"))
        s.delivery.set_available("character_db", available=True)
        await soon(s.settled())
        assert s.database.executed == NUMBERS[:4]


# What an earlier process left.


async def leave_running(directory, *queries):
    """An earlier process that claimed operations and died."""
    async with scene(directory) as s:
        ids = await s.submit(*queries)
        claimed = await s.inbox.claim(OWN)
        assert len(claimed) == len(queries)
        return ids, claimed


async def test_what_may_have_been_sent_is_sent_again_first(tmp_path):
    ids, _ = await leave_running(tmp_path, "0", "1")
    async with scene(tmp_path) as s:
        await s.submit("2")
        s.start()
        await soon(s.settled())
        assert s.database.executed == ["0", "1", "2"]
        assert [one.request_id for one in s.database.sent[:2]] == ids


async def test_what_was_executed_before_the_crash_is_not_executed_again(tmp_path):
    _, claimed = await leave_running(tmp_path, "0", "1")
    async with scene(tmp_path) as s:
        s.database.records[claimed[0].request_id] = known = _record(claimed[0])
        s.start()
        await soon(s.settled())
        assert s.database.executed == ["1"]
        assert (await s.entry(claimed[0].request_id)).sequence == known.sequence


def _record(entry):
    from hub.core.ports import Recorded

    return Recorded(entry.source_service, "c", 5, 77, ResultSet(rows_affected=1), None)


async def test_before_that_the_journal_is_asked_how_far_back_it_reaches(tmp_path):
    _, claimed = await leave_running(tmp_path, "0")
    async with scene(tmp_path) as s:
        await s.submit("1")
        s.start()
        await soon(s.settled())
        ((database, since),) = s.database.questions
        assert database == "character_db"
        # Earlier than the claim by what the clocks may be apart.
        assert since < claimed[0].create_time_us - 30_000_000


@pytest.mark.parametrize("executed", [True, False])
async def test_a_trimmed_journal_makes_an_outcome_unknown_never_double(tmp_path, executed):
    (request_id,), claimed = await leave_running(tmp_path, "0")
    async with scene(tmp_path) as s:
        if executed:
            s.database.records[request_id] = _record(claimed[0])
        s.database.reach = lambda _database, _time_us: False
        s.start()
        await soon(s.settled())
        assert "0" not in s.database.executed
        entry = await s.entry(request_id)
        if executed:
            assert (entry.state.name, entry.sequence) == ("COMPLETED", 77)
        else:
            assert entry.state.name == "FAILED"
            assert isinstance(entry.error, DeadlineExceeded)
            assert entry.error.metadata == {"outcome": "unknown"}


async def test_what_was_never_sent_needs_no_journal(tmp_path):
    async with scene(tmp_path) as s:
        s.database.reach = lambda _database, _time_us: False
        await s.submit("0")
        s.start()
        await soon(s.settled())
        assert s.database.executed == ["0"]
        assert s.database.questions == []


# Ages, grants, routes.


async def test_what_is_too_old_is_not_sent(tmp_path):
    limits = replace(ROOMY, age_seconds_max=60.0)
    async with scene(tmp_path, inbox_limits=limits) as s:
        ids = await s.submit("0")
        s.clock.pass_seconds(61)
        await s.submit("1")
        s.start()
        await soon(s.settled())
        await s.waits(lambda: len(s.database.executed) == 2)
        assert s.database.executed[0] == "1" or s.database.executed[1] == "1"
        failed = await s.entry(ids[0])
        assert isinstance(failed.error, DeadlineExceeded)
        assert failed.attempts == 0


@pytest.mark.parametrize("executed", [True, False])
async def test_what_is_too_old_and_may_have_been_sent_is_asked_for(tmp_path, executed):
    limits = replace(ROOMY, age_seconds_max=60.0)
    (request_id,), claimed = await leave_running(tmp_path, "0")
    async with scene(tmp_path, inbox_limits=limits) as s:
        s.clock.pass_seconds(3600)
        if executed:
            s.database.records[request_id] = _record(claimed[0])
        s.start()
        await soon(s.settled())
        entry = await s.entry(request_id)
        assert entry.state.name == ("COMPLETED" if executed else "FAILED")
        assert "0" not in s.database.executed


async def test_a_grant_that_is_gone_ends_what_waits_for_it(tmp_path):
    async with scene(tmp_path) as s:
        await s.submit("0", queue=OTHER)
    async with scene(tmp_path, grants={}) as s:
        await s.submit("1")
        s.start()
        await soon(s.settled("auth"))
        await soon(s.settled())
        assert "0" not in s.database.executed
        entries = await s.store.page(_all("auth"), operations_max=10, bytes_max=10_000)
        assert isinstance(entries[0][0].error, AccessDenied)


async def test_a_database_that_is_gone_ends_what_waits_for_it(tmp_path):
    gone = Queue("character", "auth_db")
    async with scene(tmp_path) as s:
        (request_id,) = await s.submit("0", queue=gone)
        s.inbox.announce("auth_db", Event(type="storage.failed_over"))
    async with scene(tmp_path, services={"character": "character_db"}) as s:
        finish, ends = s.store.finish, []

        async def count(entry, *args, **fields):
            ends.append(entry.queue)
            return await finish(entry, *args, **fields)

        s.store.finish = count
        s.start()
        await soon(s.settled())
        entry = await s.entry(request_id)
        assert isinstance(entry.error, InvalidRoute)
        await soon(s.empty())
        assert s.database.sent == []
        # Nothing is announced where nobody can read it.
        assert sorted(ends) == [Queue(HUB, "auth_db"), gone]


def _all(owner):
    from hub.core.entries import Selection

    return Selection(owner, "", (), None)


async def test_the_hubs_own_events_are_delivered_in_order(tmp_path):
    async with scene(tmp_path) as s:
        s.start()
        for kind in ("a.b", "c.d", "e.f"):
            s.inbox.announce("character_db", Event(type=kind))
        await s.waits(lambda: len(s.database.executed) == 3)
        assert [event.type for event in s.database.executed] == ["a.b", "c.d", "e.f"]
        assert {one.source_service for one in s.database.sent} == {"hub"}
        await soon(s.empty())
        assert await s.states(HUB) == []


# Its own troubles.


async def test_an_outcome_is_recorded_however_often_it_takes(tmp_path):
    async with scene(tmp_path) as s:
        finish, failures = s.store.finish, [StorageFull("disk"), StorageFull("disk")]

        async def fail_first(*args, **fields):
            if failures:
                raise failures.pop()
            return await finish(*args, **fields)

        s.store.finish = fail_first
        await s.submit(*NUMBERS)
        s.start()
        await soon(s.settled())
        assert s.database.executed == NUMBERS
        assert len(s.database.sent) == 10


async def test_while_an_outcome_cannot_be_recorded_at_most_one_more_is_sent(tmp_path):
    async with scene(tmp_path) as s:
        finish, full = s.store.finish, asyncio.Event()

        async def wait_first(*args, **fields):
            await full.wait()
            return await finish(*args, **fields)

        s.store.finish = wait_first
        await s.submit(*NUMBERS)
        s.start()
        await s.waits(lambda: len(s.database.executed) == 2)
        for _ in range(20):
            await asyncio.sleep(0)
        assert s.database.executed == ["0", "1"]
        full.set()
        await soon(s.settled())
        assert s.database.executed == NUMBERS


async def test_a_defect_ends_neither_the_queue_nor_the_operation(tmp_path, caplog):
    async with scene(tmp_path) as s:
        s.database.answers["1"] = [ZeroDivisionError("a defect")]
        await s.submit("0", "1", "2")
        s.start()
        await soon(s.settled())
        assert s.database.executed == ["0", "1", "2"]
    assert "a defect" in caplog.text


async def test_stopping_lets_what_is_on_its_way_finish(tmp_path):
    async with scene(tmp_path) as s:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(_operation):
            begun.set()
            await go_on.wait()

        s.database.answers["1"] = [slowly]
        await s.submit(*NUMBERS[:4])
        s.start()
        await soon(begun.wait())
        stopping = asyncio.ensure_future(s.delivery.stop(10.0))
        await asyncio.sleep(0)
        go_on.set()
        await soon(stopping)
        assert await s.states() == ["COMPLETED", "COMPLETED", "QUEUED", "QUEUED"]
        await s.submit("late")
        assert await s.states() == ["COMPLETED", "COMPLETED", "QUEUED", "QUEUED", "QUEUED"]


async def test_what_does_not_finish_in_time_is_sent_again_by_the_next_process(tmp_path):
    async with scene(tmp_path) as s:
        begun = asyncio.Event()

        async def forever(operation):
            s.database.execute(operation)
            begun.set()
            await asyncio.Event().wait()

        s.database.answers["0"] = [forever]
        await s.submit("0", "1")
        s.start()
        await soon(begun.wait())
        await soon(s.delivery.stop(0.0))
        assert (await s.states())[0] == "RUNNING"


async def test_stopping_does_not_wait_for_a_delay(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["0"] = [AWAY]
        s.naps.held.clear()
        await s.submit("0")
        s.delivery.set_available("auth_db", available=False)
        await s.submit("1", queue=Queue("auth", "auth_db"))
        s.start()
        await s.waits(lambda: len(s.naps.seconds) == 1)
        await soon(s.delivery.stop(1000.0))
        assert await s.states() == ["RUNNING"]
