"""Every call goes through the circuit of its database and says how it ended."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from hub.core.circuits.breaker import CircuitState
from hub.core.events.journal import Position
from messagehub.errors import (
    CircuitOpen,
    ConstraintViolation,
    CursorExpired,
    DeadlineExceeded,
    InvalidRequest,
    StorageUnavailable,
)
from tests.unit.hub.circuits.circuit_parts import FAILURES_MAX, LIMITS
from tests.unit.hub.circuits.guard_parts import (
    ANSWER_SECONDS,
    GONE,
    OTHER,
    OWN,
    READING,
    RETRIES,
    Parts,
    adopt,
    look_up,
    operation,
    read_all,
    run_one,
)


@pytest.fixture
def parts():
    return Parts(replace(RETRIES, attempts_max=1))


# Operations.


async def test_a_success_passes_and_is_counted(parts):
    assert (await run_one(parts)).request_id == "1"
    assert parts.servers.seconds == [5.0]
    assert parts.calls == 1


async def test_failures_of_operations_open_the_circuit_and_then_nothing_is_sent(parts):
    parts.servers.ends = [{"1": GONE}] * FAILURES_MAX
    for _ in range(FAILURES_MAX):
        assert await run_one(parts) is GONE
    sent = len(parts.servers.sent)
    refusal = await run_one(parts)
    assert isinstance(refusal, CircuitOpen)
    assert refusal.retry_after == pytest.approx(1.0)
    assert len(parts.servers.sent) == sent


async def test_other_databases_do_not_notice(parts):
    parts.open()
    (outcome,) = await parts.guard.run((operation(database=OTHER),), 5.0)
    assert outcome.request_id == "1"
    assert parts.breaker(OTHER).state is CircuitState.CLOSED


async def test_a_batch_counts_each_operation_by_its_database(parts):
    operations = [
        operation("1"),
        operation("2", OTHER),
        operation("3"),
        operation("4", OTHER),
        operation("5"),
    ]
    parts.servers.ends = [{"1": GONE, "2": ConstraintViolation("x"), "3": GONE, "5": GONE}]
    outcomes = await parts.guard.run(operations, 5.0)
    assert [type(one) for one in outcomes[:3]] == [
        StorageUnavailable,
        ConstraintViolation,
        StorageUnavailable,
    ]
    assert parts.breaker().state is CircuitState.OPEN
    assert parts.breaker(OTHER).state is CircuitState.CLOSED
    assert parts.breaker(OTHER).count_calls() == 2
    outcomes = await parts.guard.run(operations, 5.0)
    assert [isinstance(one, CircuitOpen) for one in outcomes] == [True, False, True, False, True]
    assert parts.servers.sent[-1] == ["2", "4"]
    assert [outcomes[1].request_id, outcomes[3].request_id] == ["2", "4"]


async def test_a_batch_of_refused_operations_sends_nothing(parts):
    parts.open()
    outcomes = await parts.guard.run([operation("1"), operation("2")], 5.0)
    assert all(isinstance(one, CircuitOpen) for one in outcomes)
    assert not parts.servers.sent


async def test_half_open_50_concurrent_calls_admit_exactly_the_configured_number(parts):
    parts.half_open()
    parts.servers.hang.clear()
    calls = [asyncio.ensure_future(run_one(parts)) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(parts.servers.sent) == LIMITS.trials_max
    refused = [call.result() for call in calls if call.done()]
    assert len(refused) == 50 - LIMITS.trials_max
    assert all(isinstance(one, CircuitOpen) for one in refused)
    parts.servers.hang.set()
    outcomes = await asyncio.gather(*calls)
    assert sum(isinstance(one, CircuitOpen) for one in outcomes) == 50 - LIMITS.trials_max
    assert parts.breaker().state is CircuitState.CLOSED


async def test_a_batch_takes_as_many_places_as_it_has_operations(parts):
    parts.half_open()
    outcomes = await parts.guard.run([operation(str(n)) for n in range(5)], 5.0)
    assert sum(isinstance(one, CircuitOpen) for one in outcomes) == 5 - LIMITS.trials_max


@pytest.mark.parametrize("kind", ["run", "query", "look_up", "adopt", "tail"])
async def test_a_cancelled_caller_says_nothing_and_gives_its_place_back(parts, kind):
    parts.half_open()
    parts.servers.hang.clear()

    async def call():
        if kind == "run":
            await run_one(parts)
        elif kind == "query":
            await read_all(parts)
        elif kind == "look_up":
            await look_up(parts)
        elif kind == "adopt":
            await adopt(parts)
        else:
            async for _ in parts.journal.tail(OWN, None):
                pass

    for _ in range(3):
        calls = [asyncio.ensure_future(call()) for _ in range(LIMITS.trials_max)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert isinstance(await run_one(parts), CircuitOpen)
        for one in calls:
            one.cancel()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ends)
        assert parts.breaker().state is CircuitState.HALF_OPEN
    parts.servers.hang.set()
    await run_one(parts)
    assert parts.breaker().state is CircuitState.CLOSED


async def test_a_cancelled_call_counts_neither_way_while_closed(parts):
    parts.servers.hang.clear()
    call = asyncio.ensure_future(run_one(parts))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert parts.calls == 0


async def test_late_failures_of_calls_that_began_before_a_change_change_nothing(parts):
    parts.servers.hang.clear()
    calls = [asyncio.ensure_future(run_one(parts)) for _ in range(30)]
    await asyncio.sleep(0)
    parts.open()
    parts.circuits.close(OWN, by="test")
    parts.servers.ends = [{"1": GONE}] * 30
    parts.servers.hang.set()
    assert set(await asyncio.gather(*calls)) == {GONE}
    assert parts.breaker().state is CircuitState.CLOSED
    assert await run_one(parts) is not GONE


@pytest.mark.parametrize(("seconds", "opens"), [(ANSWER_SECONDS, True), (9.9, False)])
async def test_silence_counts_only_past_the_hubs_own_bound(parts, seconds, opens):
    parts.servers.silent = True
    parts.servers.ends = [{"1": DeadlineExceeded("late")}] * FAILURES_MAX
    for _ in range(FAILURES_MAX):
        await run_one(parts, seconds=seconds)
    assert (parts.breaker().state is CircuitState.OPEN) is opens


async def test_a_deadline_that_the_storage_server_tells_of_itself_does_not_count(parts):
    parts.servers.ends = [{"1": DeadlineExceeded("interrupted")}] * FAILURES_MAX
    for _ in range(FAILURES_MAX):
        await run_one(parts, seconds=60.0)
    assert parts.breaker().state is CircuitState.CLOSED


@pytest.mark.parametrize(
    ("seconds", "waited", "opens"),
    [(20.0, 0.99, True), (20.0, 0.98, False), (20.0, 0.5, False), (9.0, 1.0, False)],
)
@pytest.mark.parametrize("call", [run_one, look_up])
async def test_a_caller_who_leaves_at_the_deadline_waited_in_vain(
    parts, call, seconds, waited, opens
):
    """Its cancellation comes before the outcome that the time is over, and says the same."""
    parts.servers.hang.clear()
    calls = [asyncio.ensure_future(call(parts, seconds=seconds)) for _ in range(FAILURES_MAX)]
    await asyncio.sleep(0)
    parts.clock.now += seconds * waited
    for one in calls:
        one.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert (parts.breaker().state is CircuitState.OPEN) is opens


async def test_a_reader_who_leaves_at_the_deadline_says_nothing(parts):
    parts.servers.hang.clear()
    calls = [asyncio.ensure_future(read_all(parts, seconds=20.0)) for _ in range(FAILURES_MAX)]
    await asyncio.sleep(0)
    parts.clock.now += 20.0
    for one in calls:
        one.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert parts.breaker().state is CircuitState.CLOSED


# Queries and questions.


async def test_a_query_passes_its_pages_and_counts_once(parts):
    assert await read_all(parts) == ["first", "second"]
    assert (parts.calls, parts.servers.closed) == (1, 1)


async def test_a_query_without_rows_counts(parts):
    parts.servers.pages = []
    assert await read_all(parts) == []
    assert parts.calls == 1


async def test_a_query_that_fails_at_its_start_counts(parts):
    parts.servers.ends = [GONE] * FAILURES_MAX
    for _ in range(FAILURES_MAX):
        with pytest.raises(StorageUnavailable):
            await read_all(parts)
    with pytest.raises(CircuitOpen):
        await read_all(parts)
    assert parts.servers.closed == FAILURES_MAX


async def test_a_query_that_breaks_later_does_not(parts):
    parts.servers.break_after_first_page = GONE
    for _ in range(FAILURES_MAX):
        with pytest.raises(StorageUnavailable):
            await read_all(parts)
    assert parts.breaker().state is CircuitState.CLOSED
    assert parts.calls == FAILURES_MAX


async def test_a_slow_query_does_not(parts):
    parts.servers.silent = True
    parts.servers.ends = [DeadlineExceeded("late")] * FAILURES_MAX
    for _ in range(FAILURES_MAX):
        with pytest.raises(DeadlineExceeded):
            await read_all(parts, seconds=60.0)
    assert parts.calls == 0


async def test_a_query_whose_reader_leaves_is_closed_and_a_success(parts):
    parts.half_open()
    async with aclosing(parts.guard.query(READING, 5.0)) as pages:
        assert await anext(pages) == "first"
        assert parts.breaker().state is CircuitState.CLOSED
    assert parts.servers.closed == 1


async def test_a_question_counts(parts):
    parts.servers.ends = ["recorded", GONE]
    assert await look_up(parts) == "recorded"
    with pytest.raises(StorageUnavailable):
        await look_up(parts)
    assert parts.calls == 2


async def test_a_file_counts_but_not_what_is_wrong_with_it(parts):
    parts.half_open()
    parts.servers.ends = [InvalidRequest("chunk too long")]
    with pytest.raises(InvalidRequest):
        await adopt(parts)
    assert parts.breaker().state is CircuitState.HALF_OPEN
    assert await adopt(parts) == ("heroes",)
    assert parts.breaker().state is CircuitState.CLOSED
    parts.servers.ends = [GONE] * FAILURES_MAX
    for _ in range(FAILURES_MAX):
        with pytest.raises(StorageUnavailable):
            await adopt(parts)
    with pytest.raises(CircuitOpen):
        await adopt(parts)


# Journals.


async def test_a_tail_counts_by_how_it_begins(parts):
    pages = [page.boundary async for page in parts.journal.tail(OWN, None)]
    assert (pages, parts.calls) == ([1, 2], 1)
    parts.servers.break_after_first_page = GONE
    with pytest.raises(StorageUnavailable):
        [page async for page in parts.journal.tail(OWN, None)]
    assert parts.calls == 2
    parts.servers.ends = [GONE] * FAILURES_MAX
    for _ in range(FAILURES_MAX):
        with pytest.raises(StorageUnavailable):
            await anext(parts.journal.tail(OWN, None))
    with pytest.raises(CircuitOpen):
        await anext(parts.journal.tail(OWN, None))


async def test_a_tail_that_has_begun_goes_on_while_the_circuit_is_open(parts):
    async with aclosing(parts.journal.tail(OWN, None)) as pages:
        await anext(pages)
        parts.open()
        assert (await anext(pages)).boundary == 2
    assert parts.servers.closed == 1


async def test_a_lost_position_is_an_answer(parts):
    parts.half_open()
    parts.servers.ends = [CursorExpired("x")]
    with pytest.raises(CursorExpired):
        await parts.journal.read(OWN, Position("e", 0), until=1, bytes_max=1)
    assert parts.breaker().state is CircuitState.CLOSED
    assert (await parts.journal.ends(OWN)).newest == Position("e", 2)
    assert await parts.journal.read(OWN, Position("e", 0), until=1, bytes_max=1) == []
    parts.open()
    with pytest.raises(CircuitOpen):
        await parts.journal.ends(OWN)
