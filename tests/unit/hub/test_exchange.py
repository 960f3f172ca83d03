"""The exchange over a real stream, with a storage server that answers as the test says."""

import asyncio
from contextlib import asynccontextmanager, suppress

import grpc
import pytest

from hub.adapters.exchange import Exchange
from hub.config import HubConfig
from hub.core.ports import Operation
from messagehub.errors import (
    ConstraintViolation,
    DeadlineExceeded,
    InternalError,
    QueueFull,
    ResultTooLarge,
    StorageUnavailable,
)
from messagehub.storage.v1 import storage_service_pb2 as storage
from messagehub.storage.v1 import storage_service_pb2_grpc as storage_grpc
from messagehub.v1.event_pb2 import Event
from tests.support.calls import statement
from tests.unit.hub.fake_storage import done, failed, running_fake, soon, until

SECONDS = 20.0


def operation(name: str = "INSERT", **fields) -> Operation:
    content = fields.pop("content", None) or statement(name)
    given = {
        "database": "auth_db",
        "read_only": False,
        "source_service": "auth",
        "correlation_id": "c",
        "request_id": "id",
    }
    return Operation(**given | fields, content=content)


@asynccontextmanager
async def open_exchange(**settings):
    async with running_fake() as (fake, address), grpc.aio.insecure_channel(address) as channel:
        exchange = Exchange(HubConfig(**settings))
        call = storage_grpc.StorageServiceStub(channel).Exchange()
        serving = asyncio.create_task(exchange.serve(call))
        await asyncio.sleep(0)
        try:
            yield exchange, fake, serving
        finally:
            serving.cancel()
            with suppress(BaseExceptionGroup, asyncio.CancelledError):
                await serving


def start(exchange, *operations, seconds=SECONDS):
    return asyncio.create_task(exchange.run(operations, seconds))


async def test_an_operation_travels_whole_and_its_outcome_comes_back():
    async with open_exchange() as (exchange, fake, _):
        running = start(exchange, operation("SELECT 1", read_only=True), seconds=9.0)
        (sent,) = await fake.next_operations()
        assert (sent.database, sent.source_service, sent.correlation_id, sent.request_id) == (
            "auth_db",
            "auth",
            "c",
            "id",
        )
        assert sent.read_only
        assert sent.statement == statement("SELECT 1")
        assert 0 < sent.timeout_ms <= 9000
        fake.answer(done(sent, schema_version="1.0.0", replayed=True), frames_taken=1)
        (outcome,) = await soon(running)
        assert (outcome.sequence, outcome.schema_version, outcome.replayed) == (3, "1.0.0", True)
        assert outcome.result.rows_affected == 1
        assert exchange.pending_operations == 0


async def test_an_event_travels_as_an_event():
    async with open_exchange() as (exchange, fake, _):
        event = Event(type="auth.signed_in", custom=b"{}")
        running = start(exchange, operation(content=event))
        (sent,) = await fake.next_operations()
        assert sent.WhichOneof("content") == "event"
        assert sent.event == event
        fake.answer(done(sent), frames_taken=1)
        await soon(running)


async def test_outcomes_come_in_any_order_and_each_finds_its_caller():
    async with open_exchange() as (exchange, fake, _):
        both = start(exchange, operation("A"), operation("B"))
        alone = start(exchange, operation("C"))
        sent = await fake.next_operations()
        assert [one.statement.query for one in sent] == ["A", "B", "C"]
        first, second, third = sent
        fake.answer(done(third, schema_version="third"), frames_taken=1)
        (outcome,) = await soon(alone)
        assert outcome.schema_version == "third"
        fake.answer(done(second, schema_version="second"))
        fake.answer(done(first, schema_version="first"))
        assert [one.schema_version for one in await soon(both)] == ["first", "second"]


async def test_an_error_comes_back_as_its_class_and_leaves_the_others_alone():
    async with open_exchange() as (exchange, fake, _):
        running = start(exchange, operation("A"), operation("B"), operation("C"))
        first, second, third = await fake.next_operations()
        error = ConstraintViolation(
            "taken", fields={"heroes.name": "is unique"}, metadata={"constraint": "UNIQUE"}
        )
        fake.answer(
            failed(first, error), done(second), storage.Outcome(number=third.number), frames_taken=1
        )
        refused, outcome, empty = await soon(running)
        assert isinstance(refused, ConstraintViolation)
        assert refused.metadata == {"constraint": "UNIQUE"}
        assert refused.fields == {"heroes.name": "is unique"}
        assert outcome.sequence == 3
        assert isinstance(empty, InternalError)


async def test_while_no_frame_may_leave_what_arrives_gathers_and_leaves_together():
    async with open_exchange(storage_frames_in_flight_max=2) as (exchange, fake, _):
        running = []
        for name in "AB":
            running.append(start(exchange, operation(name)))
            assert [one.statement.query for one in await fake.next_operations()] == [name]
        running += [start(exchange, operation(name)) for name in "CDE"]
        await until(lambda: exchange.pending_operations == 5)
        assert fake.frames.empty()
        fake.answer(frames_taken=1)
        gathered = await fake.next_operations()
        assert [one.statement.query for one in gathered] == ["C", "D", "E"]
        assert fake.frames.empty()
        fake.answer(*(storage.Outcome(number=n, result={}) for n in range(1, 6)), frames_taken=3)
        await soon(asyncio.gather(*running))


async def test_an_outcome_does_not_open_the_window_by_itself():
    async with open_exchange(storage_frames_in_flight_max=1) as (exchange, fake, _):
        first = start(exchange, operation("A"))
        (sent,) = await fake.next_operations()
        second = start(exchange, operation("B"))
        fake.answer(done(sent))
        await soon(first)
        assert fake.frames.empty()
        fake.answer(frames_taken=1)
        (sent,) = await fake.next_operations()
        fake.answer(done(sent), frames_taken=2)
        await soon(second)


async def test_a_frame_is_bounded_in_operations():
    async with open_exchange(frame_operations_max=2) as (exchange, fake, _):
        running = start(exchange, *(operation(name) for name in "ABCDE"))
        frames = [await fake.next_operations() for _ in range(3)]
        assert [[one.statement.query for one in frame] for frame in frames] == [
            ["A", "B"],
            ["C", "D"],
            ["E"],
        ]
        fake.answer(*(done(one) for frame in frames for one in frame), frames_taken=3)
        await soon(running)


async def test_a_frame_is_bounded_in_bytes_and_a_large_operation_travels_alone():
    async with open_exchange(frame_bytes_max=100) as (exchange, fake, _):
        sizes = [40, 40, 40, 500, 40]
        running = start(exchange, *(operation("x" * size) for size in sizes))
        frames = [await fake.next_operations() for _ in range(4)]
        assert [[len(one.statement.query) for one in frame] for frame in frames] == [
            [40, 40],
            [40],
            [500],
            [40],
        ]
        fake.answer(*(done(one) for frame in frames for one in frame), frames_taken=4)
        await soon(running)


async def test_a_caller_that_goes_away_is_told_to_the_storage_server():
    async with open_exchange() as (exchange, fake, _):
        staying = start(exchange, operation("A"))
        leaving = start(exchange, operation("B"), operation("C"))
        first, second, third = await fake.next_operations()
        leaving.cancel()
        frame = await soon(fake.frames.get())
        assert list(frame.cancelled) == [second.number, third.number]
        assert not frame.operations
        # The storage server may have answered before it heard; nobody waits any more.
        fake.answer(done(second), done(third), done(first), frames_taken=2)
        assert len(await soon(staying)) == 1
        assert leaving.cancelled()
        assert exchange.pending_operations == 0


async def test_only_what_has_no_outcome_is_withdrawn():
    async with open_exchange() as (exchange, fake, _):
        leaving = start(exchange, operation("A"), operation("B"))
        first, second = await fake.next_operations()
        fake.answer(done(first), frames_taken=1)
        await until(lambda: exchange.pending_operations == 1)
        leaving.cancel()
        frame = await soon(fake.frames.get())
        assert list(frame.cancelled) == [second.number]


async def test_what_never_left_is_withdrawn_without_a_word():
    async with open_exchange(storage_frames_in_flight_max=1) as (exchange, fake, _):
        first = start(exchange, operation("A"))
        (sent,) = await fake.next_operations()
        leaving = start(exchange, operation("B"))
        await until(lambda: exchange.pending_operations == 2)
        leaving.cancel()
        await until(lambda: exchange.pending_operations == 1)
        last = start(exchange, operation("C"))
        await until(lambda: exchange.pending_operations == 2)
        fake.answer(done(sent), frames_taken=1)
        frame = await soon(fake.frames.get())
        assert [one.statement.query for one in frame.operations] == ["C"]
        assert not frame.cancelled
        fake.answer(done(frame.operations[0]), frames_taken=2)
        await soon(asyncio.gather(first, last))


async def test_without_an_outcome_in_time_the_caller_gets_its_deadline_and_the_rest_is_withdrawn():
    async with open_exchange() as (exchange, fake, _):
        running = start(exchange, operation("A"), operation("B"), seconds=0.2)
        first, second = await fake.next_operations()
        assert first.timeout_ms <= 200
        fake.answer(done(first), frames_taken=1)
        outcome, late = await soon(running)
        assert outcome.sequence == 3
        assert isinstance(late, DeadlineExceeded)
        frame = await soon(fake.frames.get())
        assert list(frame.cancelled) == [second.number]


async def test_the_time_that_an_operation_waited_is_taken_from_its_timeout():
    async with open_exchange(storage_frames_in_flight_max=1) as (exchange, fake, _):
        first = start(exchange, operation("A"))
        (sent,) = await fake.next_operations()
        expiring = start(exchange, operation("B"), seconds=0.05)
        waiting = start(exchange, operation("C"), seconds=60)
        assert isinstance((await soon(expiring))[0], DeadlineExceeded)
        fake.answer(done(sent), frames_taken=1)
        (waited,) = await fake.next_operations()
        assert waited.statement.query == "C"
        assert waited.timeout_ms <= 60_000 - 50
        fake.answer(done(waited), frames_taken=2)
        await soon(asyncio.gather(first, waiting))


async def test_without_a_stream_operations_are_refused_at_once():
    exchange = Exchange(HubConfig(reconnect_seconds_max=0.5))
    outcomes = await exchange.run([operation(), operation()], SECONDS)
    for outcome in outcomes:
        assert isinstance(outcome, StorageUnavailable)
        assert outcome.retry_after == 0.5
    assert exchange.pending_operations == 0


async def test_a_broken_stream_fails_every_operation_that_has_no_outcome():
    settings = {"storage_frames_in_flight_max": 1, "reconnect_seconds_max": 0.5}
    async with open_exchange(**settings) as (exchange, fake, serving):
        sent = start(exchange, operation("A", request_id="the-id"))
        await fake.next_operations()
        queued = start(exchange, operation("B"))
        await until(lambda: exchange.pending_operations == 2)
        fake.end_exchange()
        (unknown,) = await soon(sent)
        (unsent,) = await soon(queued)
        assert isinstance(unknown, StorageUnavailable)
        assert unknown.retry_after == 0.5
        assert unknown.metadata == {"request_id": "the-id"}
        assert isinstance(unsent, StorageUnavailable)
        assert unsent.retry_after == 0.5
        assert "nothing was sent" in unsent.message
        with pytest.raises(BaseExceptionGroup):
            await soon(serving)
        assert exchange.pending_operations == 0
        (refused,) = await exchange.run([operation()], SECONDS)
        assert isinstance(refused, StorageUnavailable)


async def test_a_drained_exchange_still_delivers_what_was_sent_before():
    async with open_exchange(storage_frames_in_flight_max=1) as (exchange, fake, serving):
        under_way = start(exchange, operation("A"))
        (sent,) = await fake.next_operations()
        waiting = start(exchange, operation("B"))
        await asyncio.sleep(0)
        exchange.drain()
        (unsent,) = await soon(waiting)
        assert isinstance(unsent, StorageUnavailable)
        assert "nothing was sent" in unsent.message
        (refused,) = await exchange.run([operation("C")], SECONDS)
        assert isinstance(refused, StorageUnavailable)
        await soon(fake.half_closed.wait())
        fake.answer(done(sent), frames_taken=1)
        (outcome,) = await soon(under_way)
        assert outcome.sequence == 3
        fake.end_exchange()
        with pytest.raises(BaseExceptionGroup):
            await soon(serving)
        assert exchange.pending_operations == 0


async def test_a_second_stream_begins_with_an_open_window():
    async with running_fake() as (fake, address), grpc.aio.insecure_channel(address) as channel:
        exchange = Exchange(HubConfig(storage_frames_in_flight_max=1))
        stub = storage_grpc.StorageServiceStub(channel)
        for _ in range(2):
            serving = asyncio.create_task(exchange.serve(stub.Exchange()))
            await asyncio.sleep(0)
            running = start(exchange, operation("A"))
            await fake.next_operations()
            fake.end_exchange()
            assert isinstance((await soon(running))[0], StorageUnavailable)
            with pytest.raises(BaseExceptionGroup):
                await soon(serving)


async def test_pending_operations_are_bounded():
    async with open_exchange(pending_operations_max=2) as (exchange, fake, _):
        running = start(exchange, operation("A"), operation("B"))
        sent = await fake.next_operations()
        (refused,) = await exchange.run([operation("C")], SECONDS)
        assert isinstance(refused, QueueFull)
        assert refused.retry_after == HubConfig().queue_retry_seconds
        fake.answer(*(done(one) for one in sent), frames_taken=1)
        await soon(running)
        again = start(exchange, operation("D"))
        (one,) = await fake.next_operations()
        fake.answer(done(one), frames_taken=2)
        assert (await soon(again))[0].sequence == 3


async def test_pending_bytes_are_bounded():
    async with open_exchange(pending_bytes_max=100) as (exchange, fake, _):
        running = start(exchange, operation("x" * 60))
        (sent,) = await fake.next_operations()
        (refused,) = await exchange.run([operation("x" * 60)], SECONDS)
        assert isinstance(refused, QueueFull)
        fake.answer(done(sent), frames_taken=1)
        await soon(running)
        leaving = start(exchange, operation("x" * 60))
        await fake.next_operations()
        leaving.cancel()
        await until(lambda: exchange.pending_operations == 0)
        again = start(exchange, operation("x" * 60))
        (sent,) = await fake.next_operations()
        fake.answer(done(sent), frames_taken=3)
        await soon(again)


async def test_many_callers_at_once_each_get_their_own_outcome():
    async with open_exchange(storage_frames_in_flight_max=2) as (exchange, fake, _):
        fake.echo = True
        outcomes = await soon(
            asyncio.gather(*(exchange.run([operation(str(n))], SECONDS) for n in range(2000)))
        )
        assert all(one.result.rows_affected == 1 for (one,) in outcomes)
        frames = []
        while not fake.frames.empty():
            frames.append(fake.frames.get_nowait())
        queries = [one.statement.query for frame in frames for one in frame.operations]
        assert queries == [str(n) for n in range(2000)]
        assert len(frames) < 2000
        assert exchange.pending_operations == 0


def large(sent, size):
    answer = done(sent)
    answer.result.rows.add().values.add(blob=b"x" * size)
    return answer


async def test_results_beyond_one_answer_are_not_kept():
    async with open_exchange(message_bytes_max=10_000) as (exchange, fake, _):
        running = start(exchange, *(operation(f"SELECT {n}") for n in range(4)))
        other = start(exchange, operation("SELECT 4"))
        sent = []
        while len(sent) < 5:
            sent += await fake.next_operations()
        fake.answer(*(large(one, 4000) for one in sent), frames_taken=1)
        outcomes = await soon(running)
        assert [isinstance(outcome, ResultTooLarge) for outcome in outcomes] == [
            False,
            False,
            True,
            True,
        ]
        (alone,) = await soon(other)
        assert alone.result.rows, "each caller has an answer of its own"
        assert exchange.pending_operations == 0


async def test_what_was_submitted_is_told_as_it_went():
    async with open_exchange(message_bytes_max=1000) as (exchange, fake, _):
        running = start(exchange, operation("SELECT 1", submitted=True))
        (sent,) = await fake.next_operations()
        fake.answer(large(sent, 4000), frames_taken=1)
        (outcome,) = await soon(running)
        assert outcome.result.rows
