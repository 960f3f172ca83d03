"""What was under way when something broke is sent again, within its time and a budget."""

import pytest

from hub.core.circuits.breaker import CircuitState
from messagehub.errors import (
    CircuitOpen,
    ConstraintViolation,
    DatabaseUnavailable,
    DeadlineExceeded,
    QueueFull,
    StorageUnavailable,
)
from tests.unit.hub.circuits.circuit_parts import SERVER
from tests.unit.hub.circuits.guard_parts import (
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

UNKNOWN = StorageUnavailable("broke", metadata={"request_id": "id"})


@pytest.fixture
def retrying():
    return Parts(RETRIES)


async def test_an_operation_whose_answer_was_lost_is_sent_again_with_its_request_id(retrying):
    retrying.servers.ends = [{"1": UNKNOWN}]
    assert (await run_one(retrying)).request_id == "1"
    assert retrying.servers.sent == [["1"], ["1"]]
    assert retrying.slept == [0.1]
    assert retrying.servers.seconds == [5.0, pytest.approx(4.9)]


async def test_only_the_operations_that_failed_are_sent_again(retrying):
    retrying.servers.ends = [{"1": UNKNOWN, "3": ConstraintViolation("x")}, {}]
    outcomes = await retrying.guard.run([operation(str(n)) for n in (1, 2, 3)], 5.0)
    assert retrying.servers.sent == [["1", "2", "3"], ["1"]]
    assert [getattr(one, "request_id", "") for one in outcomes] == ["1", "2", ""]


async def test_operations_of_several_databases_do_not_wait_for_each_other(retrying):
    retrying.servers.ends = [{"1": UNKNOWN}]
    outcomes = await retrying.guard.run([operation("1"), operation("2", OTHER)], 5.0)
    assert outcomes[0] is UNKNOWN
    assert not retrying.slept


@pytest.mark.parametrize(
    "error", [ConstraintViolation("x"), QueueFull("x"), DeadlineExceeded("x"), CircuitOpen("x")]
)
async def test_nothing_else_is_sent_again(retrying, error):
    retrying.servers.ends = [{"1": error}]
    assert await run_one(retrying) is error
    assert len(retrying.servers.sent) == 1


async def test_attempts_end(retrying):
    failures = [DatabaseUnavailable(str(n)) for n in range(9)]
    retrying.servers.ends = [{"1": failure} for failure in failures]
    # Otherwise the circuit would open first.
    retrying.after_sleep = lambda: retrying.circuits.close(OWN, by="test")
    assert await run_one(retrying) is failures[RETRIES.attempts_max - 1]
    assert retrying.slept == [0.1, 0.2, 0.4]


async def test_a_retry_waits_for_a_circuit_only_as_long_as_there_are_attempts(retrying):
    retrying.servers.ends = [{"1": UNKNOWN}]
    retrying.after_sleep = retrying.open
    assert await run_one(retrying) is UNKNOWN
    assert retrying.slept == [0.1, 0.2, 0.4]
    assert len(retrying.servers.sent) == 1
    assert retrying.budget_left == RETRIES.budget_max


async def test_a_circuit_that_closes_meanwhile_lets_the_retry_through(retrying):
    retrying.servers.ends = [{"1": UNKNOWN}]
    breaker = retrying.breaker()

    def come_back():
        available = len(retrying.slept) > 1
        breaker.hear(SERVER, available=available, detail="gone")

    retrying.after_sleep = come_back
    assert (await run_one(retrying)).request_id == "1"
    assert retrying.servers.sent == [["1"], ["1"]]
    assert breaker.state is CircuitState.CLOSED


async def test_no_retry_begins_after_the_callers_deadline(retrying):
    retrying.servers.ends = [{"1": UNKNOWN}] * 9
    assert await run_one(retrying, seconds=0.25) is UNKNOWN
    assert retrying.slept == [0.1]


async def test_a_spent_budget_ends_retries(retrying):
    assert retrying.budget_left == RETRIES.budget_max
    retrying.servers.ends = [{"1": UNKNOWN}]
    assert await run_one(retrying) is UNKNOWN
    assert not retrying.slept


async def test_questions_share_the_budget(retrying):
    assert retrying.budget_left == RETRIES.budget_max
    retrying.servers.ends = [GONE]
    with pytest.raises(StorageUnavailable):
        await look_up(retrying)
    assert not retrying.slept


async def test_a_budget_for_some_of_the_operations(retrying):
    budget = retrying.guard._budgets[OWN]
    while budget.take():
        pass
    budget.give_back()
    retrying.servers.ends = [{"1": UNKNOWN, "2": UNKNOWN}]
    outcomes = await retrying.guard.run([operation("1"), operation("2")], 5.0)
    assert outcomes[0].request_id == "1"
    assert outcomes[1] is UNKNOWN
    assert retrying.servers.sent == [["1", "2"], ["1"]]


async def test_before_a_storage_server_was_heard_of_nothing_is_retried():
    parts = Parts(RETRIES)
    parts.breaker().healthy = None
    parts.servers.ends = [{"1": GONE}, GONE]
    assert await run_one(parts) is GONE
    with pytest.raises(StorageUnavailable):
        await look_up(parts)
    assert not parts.slept


async def test_a_query_is_sent_again_before_its_first_page(retrying):
    retrying.servers.ends = [GONE, GONE]
    assert await read_all(retrying) == ["first", "second"]
    assert retrying.slept == [0.1, 0.2]
    assert (len(retrying.servers.sent), retrying.servers.closed) == (3, 3)


async def test_a_query_is_never_sent_again_after_its_first_page(retrying):
    retrying.servers.break_after_first_page = GONE
    pages = retrying.guard.query(READING, 5.0)
    assert await anext(pages) == "first"
    with pytest.raises(StorageUnavailable):
        await anext(pages)
    assert len(retrying.servers.sent) == 1


async def test_a_question_is_asked_again(retrying):
    retrying.servers.ends = [GONE, "recorded"]
    assert await look_up(retrying) == "recorded"
    assert retrying.slept == [0.1]


async def test_a_file_is_never_sent_again(retrying):
    retrying.servers.ends = [GONE]
    with pytest.raises(StorageUnavailable):
        await adopt(retrying)
    assert len(retrying.servers.sent) == 1
