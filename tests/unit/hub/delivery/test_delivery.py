"""Delivery: in order, exactly once, and whatever fails is told."""

import asyncio

import pytest

from hub.core.delivery.entries import Queue
from messagehub.errors import (
    CircuitOpen,
    ConstraintViolation,
    DatabaseCorrupt,
    DatabaseUnavailable,
    DeadlineExceeded,
    InternalError,
    InvalidRoute,
    QueueFull,
    RequestIdReused,
    ResultTooLarge,
    StorageFull,
    StorageUnavailable,
)
from messagehub.v1.statement_pb2 import ResultSet
from tests.unit.hub.delivery.delivery_scene import scene
from tests.unit.hub.delivery.inbox_parts import OTHER, OWN
from tests.unit.hub.fake_storage import soon

AWAY = StorageUnavailable("nobody there", retry_after=0.5)
NUMBERS = [str(number) for number in range(10)]


async def test_a_queue_is_delivered_in_order_and_in_batches(tmp_path):
    async with scene(tmp_path) as s:
        ids = await s.submit(*NUMBERS)
        s.start()
        await soon(s.settled())
        assert s.database.executed == NUMBERS
        # As many as one claim takes.
        assert s.database.batches == [ids[:4], ids[4:8], ids[8:]]
        follows = [one.follows for one in s.database.sent]
        assert follows == ["", *ids[:3], "", *ids[4:7], "", ids[8]]
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


async def test_a_failure_that_no_journal_has_is_recorded_there_first(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["1"] = [ResultTooLarge("too many rows")]
        (request_id,) = await s.submit("1")
        s.start()
        await soon(s.settled())
        entry = await s.entry(request_id)
        assert isinstance(entry.error, ResultTooLarge)
        assert (entry.state.name, entry.sequence, entry.attempts) == ("FAILED", 99, 1)
        first, barring = s.database.sent
        assert isinstance(barring.refusal, ResultTooLarge)
        assert barring._replace(refusal=None) == first
        # A late copy is answered with it, and the journal tells of it.
        with pytest.raises(ResultTooLarge):
            s.database.execute(first)
        assert s.database.executed == []


async def test_a_failure_is_recorded_only_when_all_before_it_have_ended(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["0"] = [AWAY]
        s.database.answers["1"] = [ResultTooLarge("too many rows")] * 2
        first, second, _ = await s.submit("0", "1", "2")
        # As if it did not look for the one before.
        s.database.follows = False
        s.start()
        await soon(s.settled())
        assert await s.states() == ["COMPLETED", "FAILED", "COMPLETED"]
        barring = next(place for place, one in enumerate(s.database.sent) if one.refusal)
        assert [one.request_id for one in s.database.sent[:barring]].count(first) == 2
        assert s.database.sent[barring].request_id == second


async def test_what_takes_neither_an_operation_nor_its_failure_ends_it(tmp_path):
    async with scene(tmp_path) as s:
        s.database.answers["1"] = [ResultTooLarge("too many rows")]
        s.database.silent = InvalidRoute("nothing of that name is here")
        (request_id,) = await s.submit("1")
        s.start()
        await soon(s.settled())
        assert isinstance((await s.entry(request_id)).error, ResultTooLarge)
        await s.waits(lambda: len(s.database.executed) == 1)
        (event,) = s.database.executed
        assert event.type == "storage.operation_failed"
        assert event.operation_failed.request_id == request_id


async def test_a_failure_that_an_earlier_refusal_left_is_the_ending(tmp_path):
    """The refusal was recorded while its answer was lost, and the operation was sent again."""
    async with scene(tmp_path) as s:
        late = DeadlineExceeded("took too long")

        async def refused_before(operation):
            return s.database.refuse(operation, late)

        s.database.answers["1"] = [refused_before]
        (request_id,) = await s.submit("1")
        s.start()
        await soon(s.settled())
        entry = await s.entry(request_id)
        assert (entry.state.name, entry.sequence, entry.attempts) == ("FAILED", 99, 1)
        assert len(s.database.sent) == 1


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
