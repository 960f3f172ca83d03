"""Transactions that stay open between calls: a real hub before a real storage server."""

import asyncio
import uuid
from typing import Any

import grpc
import pytest

from messagehub.v1 import storage_service_pb2_grpc, transaction_service_pb2_grpc
from messagehub.v1.storage_service_pb2 import QueryRequest
from tests.support.calls import CALL_SECONDS, rows, run_async, statement
from tests.support.refusals import refused
from tests.support.servers import Servers, running_hub
from tests.support.transaction_calls import (
    ACTIVE,
    COMMITTED,
    ROLLED_BACK,
    TransactionCalls,
    event,
    operation,
)

CHARACTER = "character_db"
CAMPAIGN = "campaign_db"
BOTH = (CHARACTER, CAMPAIGN)


@pytest.fixture(scope="module")
def hub_settings() -> dict[str, Any]:
    return {"transaction_wait_seconds": 1.0, "transactions_open_max": 3}


@pytest.fixture
async def heroes(storage_stub: Any, table: str) -> str:
    for database in BOTH:
        await run_async(
            storage_stub, f"CREATE TABLE {table} (name TEXT PRIMARY KEY)", database=database
        )
    return table


async def names(storage_stub: Any, heroes: str) -> list[Any]:
    found = []
    for database in BOTH:
        result = await run_async(
            storage_stub, f"SELECT name FROM {heroes} ORDER BY name", database=database
        )
        found.append([name for (name,) in rows(result)])
    return found


def insert(heroes: str) -> str:
    return f"INSERT INTO {heroes} VALUES (?)"


async def test_what_was_done_shows_inside_and_after_the_commit_outside(
    transactions: TransactionCalls, storage_stub: Any, heroes: str
) -> None:
    tx = await transactions.begin(*BOTH, correlation_id="follow-me")
    for database in BOTH:
        await transactions.join(tx, database, insert(heroes), "Ada")
        inside = await transactions.join(tx, database, f"SELECT count(*) FROM {heroes}")
        assert rows(inside) == [(1,)]
    assert await names(storage_stub, heroes) == [[], []]
    told = await transactions.get(tx)
    assert (told.state, told.correlation_id) == (ACTIVE, "follow-me")
    assert tx in {one.transaction_id for one in (await transactions.list()).transactions}
    for _ in range(2):
        ended = await transactions.commit(tx, events=[event(CAMPAIGN, "character.met")])
        assert ended.state == COMMITTED
        assert list(ended.databases) == [CHARACTER, CAMPAIGN]
    assert await names(storage_stub, heroes) == [["Ada"], ["Ada"]]
    assert (await transactions.get(tx)).state == COMMITTED
    with refused("FAILED_PRECONDITION", "OPERATION_NOT_CANCELLABLE"):
        await transactions.roll_back(tx)
    # Whoever is told to run it again would do everything twice.
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
        await transactions.join(tx, CHARACTER, insert(heroes), "Grace")


async def test_an_operation_in_a_transaction_is_done_once(
    transactions: TransactionCalls, storage_stub: Any, heroes: str
) -> None:
    tx = await transactions.begin(*BOTH)
    request_id = str(uuid.uuid4())
    for _ in range(2):
        await transactions.join(tx, CHARACTER, insert(heroes), "Ada", request_id=request_id)
    with refused("ALREADY_EXISTS", "REQUEST_ID_REUSED"):
        await transactions.join(tx, CHARACTER, insert(heroes), "Grace", request_id=request_id)
    await transactions.commit(tx)
    assert await names(storage_stub, heroes) == [["Ada"], []]


async def test_a_rollback_leaves_nothing(
    transactions: TransactionCalls, storage_stub: Any, heroes: str
) -> None:
    tx = await transactions.begin(*BOTH)
    for database in BOTH:
        await transactions.join(tx, database, insert(heroes), "Ada")
    for _ in range(2):
        assert (await transactions.roll_back(tx)).state == ROLLED_BACK
    assert await names(storage_stub, heroes) == [[], []]
    with refused("ABORTED", "TRANSACTION_EXPIRED"):
        await transactions.join(tx, CHARACTER, insert(heroes), "Ada")
    with refused("ABORTED", "TRANSACTION_EXPIRED"):
        await transactions.commit(tx)
    assert (await transactions.get(tx)).state == ROLLED_BACK


async def test_one_database(transactions: TransactionCalls, storage_stub: Any, heroes: str) -> None:
    tx = await transactions.begin()
    await transactions.join(tx, "", insert(heroes), "Ada")
    assert (await transactions.commit(tx)).state == COMMITTED
    assert (await names(storage_stub, heroes))[0] == ["Ada"]


async def test_a_statement_that_fails_undoes_only_itself(
    transactions: TransactionCalls, storage_stub: Any, heroes: str
) -> None:
    tx = await transactions.begin(*BOTH)
    await transactions.join(tx, CHARACTER, insert(heroes), "Ada")
    with refused("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION"):
        await transactions.join(tx, CHARACTER, insert(heroes), "Ada")
    await transactions.join(tx, CAMPAIGN, insert(heroes), "Lin")
    await transactions.commit(tx)
    assert await names(storage_stub, heroes) == [["Ada"], ["Lin"]]


async def test_a_statement_with_a_request_id_is_run_once(
    transactions: TransactionCalls, storage_stub: Any, heroes: str
) -> None:
    tx = await transactions.begin(*BOTH)
    request_id = str(uuid.uuid4())
    for _ in range(2):
        await transactions.join(tx, CHARACTER, insert(heroes), "Ada", request_id=request_id)
    await transactions.commit(tx)
    assert await names(storage_stub, heroes) == [["Ada"], []]


async def test_rows_are_queried_in_it(
    transactions: TransactionCalls, storage_stub: Any, heroes: str
) -> None:
    tx = await transactions.begin()
    for name in ("Ada", "Grace", "Lin"):
        await transactions.join(tx, "", insert(heroes), name)
    request = QueryRequest(
        source_service="character",
        transaction_id=tx,
        statement=statement(f"SELECT name FROM {heroes} ORDER BY name"),
        page_size=2,
    )
    pages = [page async for page in storage_stub.Query(request, timeout=CALL_SECONDS)]
    assert [rows(page.result) for page in pages] == [[("Ada",), ("Grace",)], [("Lin",)]]
    request.statement.query = f"DELETE FROM {heroes}"
    with refused("PERMISSION_DENIED", "ACCESS_DENIED"):
        [page async for page in storage_stub.Query(request, timeout=CALL_SECONDS)]
    await transactions.roll_back(tx)


async def test_a_database_outside_of_it_is_refused(
    transactions: TransactionCalls, heroes: str
) -> None:
    tx = await transactions.begin(CHARACTER)
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        await transactions.join(tx, CAMPAIGN, "SELECT 1")
    assert "database" in refusal.fields
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
        await transactions.commit(tx, events=[event(CAMPAIGN, "character.met")])
    await transactions.roll_back(tx)


async def test_a_stranger_cannot_use_it(
    transactions: TransactionCalls, transaction_stub: Any, storage_stub: Any, heroes: str
) -> None:
    tx = await transactions.begin(*BOTH)
    stranger = TransactionCalls(transaction_stub, storage_stub, service="campaign")
    with refused("NOT_FOUND", "TRANSACTION_NOT_FOUND"):
        await stranger.join(tx, CAMPAIGN, "SELECT 1")
    with refused("NOT_FOUND", "TRANSACTION_NOT_FOUND"):
        await stranger.commit(tx)
    with refused("NOT_FOUND", "TRANSACTION_NOT_FOUND"):
        await stranger.roll_back(tx)
    assert (await transactions.roll_back(tx)).state == ROLLED_BACK


async def test_whoever_comes_second_is_told_to_try_again(
    transactions: TransactionCalls, heroes: str
) -> None:
    tx = await transactions.begin(*BOTH)
    with refused("ABORTED", "TRANSACTION_CONFLICT"):
        await transactions.begin(CAMPAIGN)
    await transactions.roll_back(tx)
    tx = await transactions.begin(CAMPAIGN)
    await transactions.roll_back(tx)


async def test_no_more_are_open_than_may_be(transactions: TransactionCalls) -> None:
    # Those that only read are in nobody's way.
    open_ones = [await transactions.begin(*BOTH, read_only=True) for _ in range(3)]
    with refused("RESOURCE_EXHAUSTED", "QUEUE_FULL"):
        await transactions.begin(*BOTH, read_only=True)
    for tx in open_ones:
        await transactions.roll_back(tx)


async def test_without_a_call_it_ends_and_the_next_call_says_so(
    transactions: TransactionCalls, storage_stub: Any, heroes: str
) -> None:
    tx = await transactions.begin(*BOTH, idle_seconds=0.4)
    while (await transactions.get(tx)).state == ACTIVE:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.05)
    with refused("ABORTED", "TRANSACTION_EXPIRED"):
        await transactions.join(tx, CHARACTER, insert(heroes), "Grace")
    with refused("ABORTED", "TRANSACTION_EXPIRED"):
        await transactions.commit(tx)
    assert await names(storage_stub, heroes) == [[], []]
    # Nobody is in the way any more.
    await transactions.roll_back(await transactions.begin(*BOTH))


async def test_a_part_that_is_not_used_lives_as_long_as_the_others(
    transactions: TransactionCalls, storage_stub: Any, heroes: str
) -> None:
    tx = await transactions.begin(*BOTH, idle_seconds=4.0)
    for number in range(10):
        await transactions.join(tx, CHARACTER, insert(heroes), str(number))
        await asyncio.sleep(0.5)
    await transactions.join(tx, CAMPAIGN, insert(heroes), "Ada")
    assert (await transactions.commit(tx)).state == COMMITTED
    assert [len(found) for found in await names(storage_stub, heroes)] == [10, 1]


async def test_a_cut_stays_as_it_was(
    transactions: TransactionCalls, storage_stub: Any, heroes: str
) -> None:
    tx = await transactions.begin(*BOTH, read_only=True)
    await transactions.execute(*(operation(database, insert(heroes), "Ada") for database in BOTH))
    for database in BOTH:
        found = await transactions.join(tx, database, f"SELECT count(*) FROM {heroes}")
        assert rows(found) == [(0,)]
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
        await transactions.join(tx, CHARACTER, insert(heroes), "Grace")
    assert (await transactions.commit(tx)).state == COMMITTED
    assert await names(storage_stub, heroes) == [["Ada"], ["Ada"]]


async def test_any_hub_serves_any_call(
    servers: Servers, transactions: TransactionCalls, storage_stub: Any, heroes: str
) -> None:
    async with (
        running_hub(servers.storage.address) as other,
        grpc.aio.insecure_channel(other.address) as channel,
    ):
        elsewhere = TransactionCalls(
            transaction_service_pb2_grpc.TransactionServiceStub(channel),
            storage_service_pb2_grpc.StorageServiceStub(channel),
        )
        tx = await transactions.begin(*BOTH)
        await elsewhere.join(tx, CHARACTER, insert(heroes), "Ada")
        await transactions.join(tx, CAMPAIGN, insert(heroes), "Lin")
        assert (await elsewhere.get(tx)).state == ACTIVE
        assert (await elsewhere.commit(tx)).state == COMMITTED
        assert (await transactions.commit(tx)).state == COMMITTED
        assert await names(storage_stub, heroes) == [["Ada"], ["Lin"]]
        cut = await transactions.begin(*BOTH, read_only=True)
        found = await elsewhere.join(cut, CAMPAIGN, f"SELECT name FROM {heroes}")
        assert rows(found) == [("Lin",)]
        await elsewhere.roll_back(cut)


async def test_a_hub_that_stops_rolls_back_what_it_began(
    servers: Servers, transactions: TransactionCalls, storage_stub: Any, heroes: str
) -> None:
    async with (
        running_hub(servers.storage.address) as other,
        grpc.aio.insecure_channel(other.address) as channel,
    ):
        elsewhere = TransactionCalls(
            transaction_service_pb2_grpc.TransactionServiceStub(channel),
            storage_service_pb2_grpc.StorageServiceStub(channel),
        )
        tx = await elsewhere.begin(*BOTH)
        await elsewhere.join(tx, CHARACTER, insert(heroes), "Ada")
    told = await transactions.get(tx)
    assert told.state == ROLLED_BACK
    with refused("ABORTED", "TRANSACTION_EXPIRED"):
        await transactions.join(tx, CHARACTER, insert(heroes), "Grace")
    assert await names(storage_stub, heroes) == [[], []]
