"""`async with hub.transaction(...)`: the block decides, and nothing is guessed."""

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from messagehub.client import Hub
from messagehub.errors import (
    ConstraintViolation,
    DeadlineExceeded,
    HubError,
    InvalidRequest,
    StorageUnavailable,
    TransactionConflict,
    TransactionExpired,
    TransactionNotFound,
)
from messagehub.retries import Retries
from messagehub.status import to_status
from messagehub.transactions import Transaction, TransactionState
from messagehub.v1 import transaction_service_pb2 as messages
from tests.unit.client.conftest import Waits
from tests.unit.client.fake_hub import FakeHub, executed

COMMITTED, ROLLED_BACK = TransactionState.COMMITTED, TransactionState.ROLLED_BACK
UNKNOWN = TransactionState.UNKNOWN
BEGIN, COMMIT, ROLLBACK = "BeginTransaction", "CommitTransaction", "RollbackTransaction"


@pytest.fixture(autouse=True)
def can_begin(fake: FakeHub) -> None:
    begun = messages.BeginTransactionResponse(transaction_id="b_db/1", correlation_id="c-1")
    begun.expire_time.FromSeconds(1_764_000_000)
    fake.transactions[BEGIN].append(begun)


def stands(state: TransactionState, error: HubError | None = None) -> messages.Transaction:
    status = to_status(error) if error else None
    return messages.Transaction(transaction_id="b_db/1", state=state.value, error=status)


def commits(fake: FakeHub, *answers: messages.Transaction | HubError) -> None:
    fake.transactions[COMMIT].extend(
        answer
        if isinstance(answer, HubError)
        else messages.CommitTransactionResponse(transaction=answer)
        for answer in answers
    )


def rolls_back(fake: FakeHub, *answers: messages.Transaction | HubError) -> None:
    fake.transactions[ROLLBACK].extend(
        answer
        if isinstance(answer, HubError)
        else messages.RollbackTransactionResponse(transaction=answer)
        for answer in answers
    )


def called(fake: FakeHub) -> list[str]:
    return [type(request).__name__.removesuffix("Request") for request in fake.requests]


async def run(hub: Hub, **options: Any) -> Transaction:
    """A block that ends as it should."""
    transaction = hub.transaction("a_db", "b_db", **options)
    async with transaction:
        pass
    return transaction


async def test_a_block_begins_executes_and_commits(hub: Hub, fake: FakeHub) -> None:
    fake.execute.append(executed((5,), columns=["n"], database="a_db"))
    commits(fake, stands(COMMITTED))
    async with hub.transaction("a_db", "b_db", idle_timeout=2.5) as transaction:
        assert (transaction.id, transaction.state.name) == ("b_db/1", "ACTIVE")
        assert transaction.databases == ("a_db", "b_db")
        assert transaction.expires == datetime.fromtimestamp(1_764_000_000, UTC)
        result = await transaction.execute("INSERT ...", [1], database="a_db", schema_version=">1")
        transaction.publish("a.made", b"{}", database="a_db", data_content_type="application/json")
    assert (result.rows, result.database) == ([(5,)], "a_db")
    assert transaction.state is COMMITTED
    assert called(fake) == [BEGIN, "Execute", COMMIT]
    begin, execute, commit = fake.requests
    assert list(begin.databases) == ["a_db", "b_db"]
    assert begin.idle_timeout.ToMilliseconds() == 2500
    assert not begin.read_only
    assert execute.transaction_id == commit.transaction_id == "b_db/1"
    assert (execute.database, execute.schema_version) == ("a_db", ">1")
    assert uuid.UUID(execute.request_id).version == 7
    assert {request.source_service for request in fake.requests} == {"character"}
    assert execute.correlation_id == commit.correlation_id == "c-1"
    [event] = commit.events
    assert (event.type, event.custom, event.database) == ("a.made", b"{}", "a_db")


async def test_the_hubs_own_limit_holds_where_none_is_given(hub: Hub, fake: FakeHub) -> None:
    commits(fake, stands(COMMITTED))
    await run(hub)
    assert not fake.requests[0].HasField("idle_timeout")


async def test_an_exception_rolls_back_and_goes_on(hub: Hub, fake: FakeHub) -> None:
    rolls_back(fake, stands(ROLLED_BACK))
    with pytest.raises(ZeroDivisionError):
        async with hub.transaction("a_db") as transaction:
            _ = 1 / 0
    assert transaction.state is ROLLED_BACK
    assert called(fake) == [BEGIN, ROLLBACK]


async def test_a_rollback_that_fails_is_a_note(fake: FakeHub, waits: Waits) -> None:
    rolls_back(fake, StorageUnavailable("gone"))
    retries = Retries(attempts_max=1, sleep=waits)
    async with Hub(fake.address, service="character", retries=retries) as hub:
        with pytest.raises(ZeroDivisionError) as caught:
            async with hub.transaction("a_db") as transaction:
                _ = 1 / 0
    assert "b_db/1 is not confirmed (STORAGE_UNAVAILABLE)" in caught.value.__notes__[0]
    assert transaction.state is UNKNOWN


async def test_a_failed_statement_leaves_it_open(hub: Hub, fake: FakeHub) -> None:
    fake.execute.append(ConstraintViolation("taken"))
    commits(fake, stands(COMMITTED))
    async with hub.transaction("a_db") as transaction:
        with pytest.raises(ConstraintViolation):
            await transaction.execute("INSERT ...")
    assert called(fake) == [BEGIN, "Execute", COMMIT]


async def test_a_statement_is_sent_again_under_its_name(hub: Hub, fake: FakeHub) -> None:
    fake.execute.extend([StorageUnavailable("gone"), executed()])
    commits(fake, stands(COMMITTED))
    async with hub.transaction("a_db") as transaction:
        await transaction.execute("INSERT ...")
    assert fake.requests[1] == fake.requests[2]


@pytest.mark.parametrize("error", [TransactionExpired("idle"), TransactionConflict("lost")])
async def test_a_transaction_that_is_over_needs_no_rollback(
    hub: Hub, fake: FakeHub, error: HubError
) -> None:
    fake.execute.append(error)
    with pytest.raises(type(error)):
        async with hub.transaction("a_db") as transaction:
            await transaction.execute("INSERT ...")
    assert transaction.state is ROLLED_BACK
    assert called(fake) == [BEGIN, "Execute"]
    with pytest.raises(RuntimeError, match="ROLLED_BACK"):
        await transaction.execute("INSERT ...")


async def test_a_busy_database_is_waited_for(hub: Hub, fake: FakeHub) -> None:
    fake.transactions[BEGIN].appendleft(TransactionConflict("busy"))
    commits(fake, stands(COMMITTED))
    assert (await run(hub)).state is COMMITTED
    assert called(fake) == [BEGIN, BEGIN, COMMIT]


async def test_a_transaction_that_did_not_begin_is_not_ended(hub: Hub, fake: FakeHub) -> None:
    fake.transactions[BEGIN].appendleft(InvalidRequest("no"))
    with pytest.raises(InvalidRequest):
        await run(hub)
    assert called(fake) == [BEGIN]


async def test_the_answer_of_a_commit_is_asked_for_until_it_comes(hub: Hub, fake: FakeHub) -> None:
    doubtful = stands(TransactionState.IN_DOUBT)
    commits(fake, StorageUnavailable("gone"), doubtful, stands(COMMITTED))
    assert (await run(hub)).state is COMMITTED
    assert called(fake) == [BEGIN, COMMIT, COMMIT, COMMIT]


async def test_a_commit_that_was_a_rollback_raises_why(hub: Hub, fake: FakeHub) -> None:
    commits(fake, stands(ROLLED_BACK, TransactionExpired("idle")))
    transaction = hub.transaction("a_db")
    with pytest.raises(TransactionExpired):
        async with transaction:
            pass
    assert transaction.state is ROLLED_BACK


async def test_a_rollback_without_a_reason_is_not_a_commit(hub: Hub, fake: FakeHub) -> None:
    commits(fake, stands(ROLLED_BACK))
    with pytest.raises(TransactionConflict, match="rolled back"):
        await run(hub)


async def test_a_commit_that_lost_is_rolled_back(hub: Hub, fake: FakeHub) -> None:
    commits(fake, TransactionConflict("lost"))
    transaction = hub.transaction("a_db")
    with pytest.raises(TransactionConflict):
        async with transaction:
            pass
    assert transaction.state is ROLLED_BACK
    assert called(fake) == [BEGIN, COMMIT]


async def test_a_commit_refused_for_what_is_in_it_is_rolled_back(hub: Hub, fake: FakeHub) -> None:
    commits(fake, ConstraintViolation("a deferred key"))
    rolls_back(fake, stands(ROLLED_BACK))
    transaction = hub.transaction("a_db")
    with pytest.raises(ConstraintViolation) as caught:
        async with transaction:
            pass
    assert transaction.state is ROLLED_BACK
    assert caught.value.metadata["transaction_id"] == "b_db/1"


@pytest.mark.parametrize("error", [TransactionNotFound("who?"), TransactionExpired("idle")])
@pytest.mark.parametrize("truth", [COMMITTED, ROLLED_BACK])
async def test_a_refusal_after_a_lost_answer_is_looked_into(
    hub: Hub, fake: FakeHub, error: HubError, truth: TransactionState
) -> None:
    commits(fake, StorageUnavailable("gone"), error)
    rolls_back(fake, stands(truth))
    transaction = hub.transaction("a_db")
    if truth is COMMITTED:
        async with transaction:
            pass
    else:
        with pytest.raises(type(error)):
            async with transaction:
                pass
    assert transaction.state is truth


async def test_nothing_found_is_never_success(hub: Hub, fake: FakeHub) -> None:
    commits(fake, StorageUnavailable("gone"), TransactionNotFound("who?"))
    rolls_back(fake, TransactionNotFound("who?"))
    transaction = hub.transaction("a_db")
    with pytest.raises(TransactionNotFound):
        async with transaction:
            pass
    assert transaction.state is UNKNOWN


async def test_an_end_that_cannot_be_asked_is_unknown(fake: FakeHub, waits: Waits) -> None:
    commits(fake, DeadlineExceeded("over"))
    async with Hub(fake.address, service="character") as hub:
        transaction = hub.transaction("a_db")
        with pytest.raises(DeadlineExceeded) as caught:
            async with transaction:
                pass
    assert transaction.state is UNKNOWN
    assert caught.value.metadata["transaction_id"] == "b_db/1"


async def test_reading_ends_with_nothing_to_commit(hub: Hub, fake: FakeHub) -> None:
    commits(fake, stands(ROLLED_BACK))
    await run(hub, read_only=True)
    assert fake.requests[0].read_only


async def test_it_can_be_ended_inside_of_the_block(hub: Hub, fake: FakeHub) -> None:
    rolls_back(fake, stands(ROLLED_BACK))
    async with hub.transaction("a_db") as transaction:
        await transaction.rollback()
        assert transaction.state is ROLLED_BACK
        for use in (transaction.commit, transaction.rollback):
            with pytest.raises(RuntimeError, match="not open"):
                await use()
        with pytest.raises(RuntimeError, match="not open"):
            transaction.publish("a.made")
    assert called(fake) == [BEGIN, ROLLBACK]
    with pytest.raises(RuntimeError, match="begun before"):
        await transaction.__aenter__()


async def test_an_idle_limit_is_above_nothing(hub: Hub) -> None:
    with pytest.raises(InvalidRequest) as caught:
        hub.transaction("a_db", idle_timeout=0)
    assert "idle_timeout" in caught.value.fields
