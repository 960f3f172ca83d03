"""`Hub.execute_transaction`, `get_transaction`, `transactions`, `resolve_transaction`."""

import uuid
from datetime import UTC, datetime

import pytest

from messagehub.client import Hub, Operation
from messagehub.errors import (
    ConstraintViolation,
    InvalidRequest,
    QueueFull,
    StorageUnavailable,
    TransactionConflict,
    TransactionNotFound,
)
from messagehub.retries import Retries
from messagehub.status import to_status
from messagehub.transactions import EventDraft, TransactionState
from messagehub.v1.transaction_service_pb2 import (
    ExecuteTransactionResponse,
    GetTransactionResponse,
    ListTransactionsResponse,
    ResolveTransactionResponse,
    Transaction,
    TransactionResult,
)
from tests.unit.client.conftest import Waits
from tests.unit.client.fake_hub import FakeHub, result_set

EXECUTE = "ExecuteTransaction"
OPERATIONS = [Operation("DELETE FROM a", database="a_db"), ("DELETE FROM b WHERE c = ?", [1])]


def committed(**fields: object) -> ExecuteTransactionResponse:
    return ExecuteTransactionResponse(transaction_id="b_db/1", correlation_id="c-1", **fields)


def known(state: TransactionState, **fields: object) -> Transaction:
    made = Transaction(
        transaction_id="b_db/1",
        correlation_id="c-1",
        source_service="character",
        state=state.value,
        databases=["b_db", "a_db"],
        **fields,
    )
    made.create_time.FromSeconds(1_764_000_000)
    made.update_time.FromSeconds(1_764_000_001)
    return made


async def test_a_transaction_is_sent_whole_and_answered_in_order(hub: Hub, fake: FakeHub) -> None:
    results = [
        TransactionResult(database="a_db", sequence=7, result=result_set(["n"], [(1,)])),
        TransactionResult(database="character_db", sequence=9, result=result_set()),
    ]
    fake.transactions[EXECUTE].append(committed(results=results, replayed=True))
    done = await hub.execute_transaction(
        OPERATIONS,
        events=[EventDraft("a.gone", b"{}", "a_db", "application/json")],
        read_only=True,
        correlation_id="c-0",
    )
    [request] = fake.requests
    assert (request.source_service, request.correlation_id) == ("character", "c-0")
    assert request.read_only
    assert uuid.UUID(request.request_id).version == 7
    first, second = request.operations
    assert (first.database, first.statement.query) == ("a_db", "DELETE FROM a")
    assert (second.database, second.statement.parameters[0].integer) == ("", 1)
    [event] = request.events
    assert (event.type, event.custom, event.database) == ("a.gone", b"{}", "a_db")
    assert event.data_content_type == "application/json"
    assert (done.transaction_id, done.correlation_id, done.replayed) == ("b_db/1", "c-1", True)
    assert [(r.database, r.sequence, r.rows) for r in done.results] == [
        ("a_db", 7, [(1,)]),
        ("character_db", 9, []),
    ]
    assert 1.0 < fake.seconds_left[0] < 30.0


async def test_it_is_sent_again_under_the_same_name(hub: Hub, fake: FakeHub) -> None:
    fake.transactions[EXECUTE].extend(
        [StorageUnavailable("gone"), TransactionConflict("lost"), QueueFull("full"), committed()]
    )
    await hub.execute_transaction(OPERATIONS)
    assert len(fake.requests) == 4
    assert len({request.request_id for request in fake.requests}) == 1


async def test_an_error_keeps_its_class_and_says_the_name(hub: Hub, fake: FakeHub) -> None:
    fake.transactions[EXECUTE].append(ConstraintViolation("taken", metadata={"operation": "1"}))
    wanted = str(uuid.uuid4())
    with pytest.raises(ConstraintViolation) as caught:
        await hub.execute_transaction(OPERATIONS, request_id=wanted)
    assert caught.value.metadata == {"operation": "1", "request_id": wanted}
    assert len(fake.requests) == 1


async def test_a_conflict_after_a_lost_answer_is_not_told_as_nothing_done(
    fake: FakeHub, waits: Waits
) -> None:
    """The attempt that lost says nothing of the one before it, which may have been committed."""
    fake.transactions[EXECUTE].extend(
        [TransactionConflict("lost"), StorageUnavailable("gone"), TransactionConflict("lost")]
    )
    retries = Retries(attempts_max=3, sleep=waits)
    async with Hub(fake.address, service="character", retries=retries) as hub:
        with pytest.raises(StorageUnavailable) as caught:
            await hub.execute_transaction(OPERATIONS)
    assert caught.value.metadata["request_id"] == fake.requests[0].request_id
    assert isinstance(caught.value.__cause__, TransactionConflict)


async def test_a_conflict_that_does_not_end_is_told_as_one(fake: FakeHub, waits: Waits) -> None:
    fake.transactions[EXECUTE].extend([TransactionConflict("lost")] * 2)
    retries = Retries(attempts_max=2, sleep=waits)
    async with Hub(fake.address, service="character", retries=retries) as hub:
        with pytest.raises(TransactionConflict):
            await hub.execute_transaction(OPERATIONS)


async def test_one_operation_has_no_name_of_its_own(hub: Hub, fake: FakeHub) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await hub.execute_transaction([("SELECT 1", ()), Operation("SELECT 2", request_id="r-2")])
    assert list(caught.value.fields) == ["operations[1].request_id"]
    assert fake.requests == []


async def test_where_a_transaction_stands(hub: Hub, fake: FakeHub) -> None:
    failure = to_status(TransactionConflict("lost"))
    answer = known(TransactionState.ROLLED_BACK, error=failure)
    fake.transactions["GetTransaction"].append(GetTransactionResponse(transaction=answer))
    record = await hub.get_transaction("b_db/1")
    assert fake.requests[0].transaction_id == "b_db/1"
    assert (record.id, record.service, record.correlation_id) == ("b_db/1", "character", "c-1")
    assert record.state is TransactionState.ROLLED_BACK
    assert record.state.final
    assert record.databases == ("b_db", "a_db")
    assert record.updated > record.created == datetime.fromtimestamp(1_764_000_000, UTC)
    assert isinstance(record.error, TransactionConflict)


async def test_a_state_of_a_newer_hub_is_unknown(hub: Hub, fake: FakeHub) -> None:
    answer = Transaction(transaction_id="b_db/1", state=99)
    fake.transactions["GetTransaction"].append(GetTransactionResponse(transaction=answer))
    assert (await hub.get_transaction("b_db/1")).state is TransactionState.UNKNOWN


async def test_a_transaction_that_nobody_knows(hub: Hub, fake: FakeHub) -> None:
    fake.transactions["GetTransaction"].append(TransactionNotFound("nobody knows it"))
    with pytest.raises(TransactionNotFound):
        await hub.get_transaction("b_db/1")


async def test_all_pages_of_a_list_are_read(hub: Hub, fake: FakeHub) -> None:
    doubtful = known(TransactionState.IN_DOUBT, waiting_for=["a_db"])
    fake.transactions["ListTransactions"].extend(
        [
            ListTransactionsResponse(transactions=[doubtful], next_page_token="2"),
            ListTransactionsResponse(next_page_token="3"),
            ListTransactionsResponse(transactions=[known(TransactionState.ACTIVE)]),
        ]
    )
    wanted = [TransactionState.ACTIVE, TransactionState.IN_DOUBT]
    found = [record async for record in hub.transactions(states=wanted, page_size=1)]
    assert [record.state.name for record in found] == ["IN_DOUBT", "ACTIVE"]
    assert found[0].waiting_for == ("a_db",)
    assert [request.page_token for request in fake.requests] == ["", "2", "3"]
    assert list(fake.requests[0].states) == [1, 5]
    with pytest.raises(InvalidRequest, match="UNKNOWN"):
        hub.transactions(states=[TransactionState.UNKNOWN])


@pytest.mark.parametrize("commit", [True, False])
async def test_an_operator_decides(hub: Hub, fake: FakeHub, commit: bool) -> None:
    state = TransactionState.COMMITTED if commit else TransactionState.ROLLED_BACK
    answer = ResolveTransactionResponse(transaction=known(state))
    fake.transactions["ResolveTransaction"].append(answer)
    assert (await hub.resolve_transaction("b_db/1", commit=commit)).state is state
    assert fake.requests[0].transaction_id == "b_db/1"
    assert fake.requests[0].commit is commit
