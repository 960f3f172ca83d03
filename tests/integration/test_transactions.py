"""Transactions in one call over several databases: a real hub before a real storage server."""

import asyncio
import uuid
from typing import Any

import pytest

from messagehub.v1.event_service_pb2 import SubscribeRequest
from tests.support.calls import CALL_SECONDS, rows, run_async
from tests.support.refusals import refused
from tests.support.transaction_calls import (
    COMMITTED,
    ROLLED_BACK,
    TransactionCalls,
    event,
    operation,
)

CHARACTER = "character_db"
CAMPAIGN = "campaign_db"
AUTH = "auth_db"
METRICS = "metrics_db"


@pytest.fixture(scope="module")
def hub_settings() -> dict[str, Any]:
    return {
        "grants": {
            "character": {CAMPAIGN: "write", AUTH: "read"},
            "metrics": {},
        }
    }


@pytest.fixture
async def accounts(storage_stub: Any, table: str) -> str:
    """A table in two databases that `character` may write, and one that it may only read."""
    for service, database in (("character", ""), ("character", CAMPAIGN), ("auth", "")):
        await run_async(
            storage_stub,
            f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, amount INTEGER CHECK (amount >= 0))",
            database=database,
            service=service,
        )
    return table


async def amounts(storage_stub: Any, accounts: str) -> list[Any]:
    found = []
    for database in (CHARACTER, CAMPAIGN):
        result = await run_async(
            storage_stub, f"SELECT amount FROM {accounts} ORDER BY id", database=database
        )
        found.append([amount for (amount,) in rows(result)])
    return found


def moves(accounts: str, amount: int = 5) -> list[Any]:
    return [
        operation(CHARACTER, f"INSERT INTO {accounts} VALUES (1, ?)", amount),
        operation(CAMPAIGN, f"INSERT INTO {accounts} VALUES (1, ?) RETURNING amount * 2", amount),
    ]


async def test_both_databases_change(
    transactions: TransactionCalls, storage_stub: Any, accounts: str
) -> None:
    answer = await transactions.execute(*moves(accounts), correlation_id="follow-me")
    assert answer.correlation_id == "follow-me"
    assert not answer.replayed
    assert [result.database for result in answer.results] == [CHARACTER, CAMPAIGN]
    assert answer.results[0].result.rows_affected == 1
    assert rows(answer.results[1].result) == [(10,)]
    assert all(result.sequence > 0 for result in answer.results)
    assert await amounts(storage_stub, accounts) == [[5], [5]]
    told = await transactions.get(answer.transaction_id)
    assert told.state == COMMITTED
    assert list(told.databases) == [CHARACTER, CAMPAIGN]
    assert (told.source_service, told.correlation_id) == ("character", "follow-me")
    assert told.create_time.ToMicroseconds() <= told.update_time.ToMicroseconds()


async def test_a_constraint_in_one_database_undoes_all(
    transactions: TransactionCalls, storage_stub: Any, accounts: str
) -> None:
    request_id = str(uuid.uuid4())
    for _ in range(2):
        with refused("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION") as refusal:
            await transactions.execute(
                *moves(accounts),
                operation(CAMPAIGN, f"UPDATE {accounts} SET amount = -1"),
                request_id=request_id,
            )
        assert refusal.metadata["operation"] == "2"
        assert refusal.metadata["constraint"] == "check"
        assert refusal.metadata["request_id"] == request_id
    assert await amounts(storage_stub, accounts) == [[], []]
    told = await transactions.get(refusal.metadata["transaction_id"])
    assert told.state == ROLLED_BACK
    assert told.error.message


async def test_a_failure_at_the_home_undoes_all(
    transactions: TransactionCalls, storage_stub: Any, accounts: str
) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT") as refusal:
        await transactions.execute(
            *moves(accounts), operation(CHARACTER, "INSERT INTO nowhere VALUES (1)")
        )
    assert refusal.metadata["operation"] == "2"
    assert await amounts(storage_stub, accounts) == [[], []]


async def test_the_same_request_id_gives_the_same_outcome(
    transactions: TransactionCalls, storage_stub: Any, accounts: str
) -> None:
    request_id = str(uuid.uuid4())
    first = await transactions.execute(*moves(accounts), request_id=request_id)
    # By now every statement of it would fail.
    again = await transactions.execute(*moves(accounts), request_id=request_id)
    assert again.replayed
    assert again.transaction_id == first.transaction_id
    assert list(again.results) == list(first.results)
    assert await amounts(storage_stub, accounts) == [[5], [5]]


async def test_the_same_request_id_with_other_content_is_refused(
    transactions: TransactionCalls, storage_stub: Any, accounts: str
) -> None:
    request_id = str(uuid.uuid4())
    await transactions.execute(*moves(accounts), request_id=request_id)
    update = [
        operation(CHARACTER, f"UPDATE {accounts} SET amount = 6"),
        operation(CAMPAIGN, f"UPDATE {accounts} SET amount = 6"),
    ]
    with refused("ALREADY_EXISTS", "REQUEST_ID_REUSED"):
        await transactions.execute(*update, request_id=request_id)
    assert await amounts(storage_stub, accounts) == [[5], [5]]


async def test_one_database_needs_no_other(
    transactions: TransactionCalls, storage_stub: Any, accounts: str
) -> None:
    request_id = str(uuid.uuid4())
    operations = [
        operation("", f"INSERT INTO {accounts} VALUES (1, 1)"),
        operation("", f"UPDATE {accounts} SET amount = amount + 1 RETURNING amount"),
    ]
    answer = await transactions.execute(*operations, request_id=request_id)
    assert rows(answer.results[1].result) == [(2,)]
    again = await transactions.execute(*operations, request_id=request_id)
    assert (again.replayed, again.transaction_id) == (True, answer.transaction_id)
    with refused("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION"):
        await transactions.execute(
            operation("", f"UPDATE {accounts} SET amount = 100"),
            operation("", f"INSERT INTO {accounts} VALUES (1, 1)"),
        )
    assert (await amounts(storage_stub, accounts))[0] == [2]


async def test_events_are_published_with_it_and_only_with_it(
    transactions: TransactionCalls, event_stub: Any, accounts: str
) -> None:
    kind = f"character.moved_{accounts}"
    events = [event(CHARACTER, kind, b"here"), event(CAMPAIGN, kind, b"there")]
    stream = event_stub.Subscribe(
        SubscribeRequest(
            source_service="character",
            databases=[CHARACTER, CAMPAIGN],
            event_types=[kind, "transaction.committed"],
            latest=True,
        ),
        timeout=CALL_SECONDS,
    )
    try:
        await stream.read()
        with refused("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION"):
            await transactions.execute(
                *moves(accounts, amount=-1), events=events, request_id=str(uuid.uuid4())
            )
        answer = await transactions.execute(*moves(accounts), events=events)
        found = []
        while len(found) < 4:
            found += (await stream.read()).events
        assert {one.transaction_id for one in found} == {answer.transaction_id}
        published = {one.subject: one.custom for one in found if one.type == kind}
        assert published == {CHARACTER: b"here", CAMPAIGN: b"there"}
        told = [one for one in found if one.type == "transaction.committed"]
        assert {one.subject for one in told} == {CHARACTER, CAMPAIGN}
        assert set(told[0].transaction_finished.databases) == {CHARACTER, CAMPAIGN}
    finally:
        stream.cancel()


async def test_transfers_keep_the_sum_and_reads_never_see_half_of_one(
    transactions: TransactionCalls, accounts: str
) -> None:
    await transactions.execute(*moves(accounts, amount=100))
    read = [
        operation(database, f"SELECT amount FROM {accounts}") for database in (CHARACTER, CAMPAIGN)
    ]
    done = asyncio.Event()

    async def transfer(number: int) -> None:
        step = 1 if number % 2 else -1
        await transactions.execute(
            operation(CHARACTER, f"UPDATE {accounts} SET amount = amount + ?", step),
            operation(CAMPAIGN, f"UPDATE {accounts} SET amount = amount - ?", step),
        )

    async def watch() -> int:
        seen = 0
        while not done.is_set():
            answer = await transactions.execute(*read, read_only=True)
            assert sum(rows(result.result)[0][0] for result in answer.results) == 200
            seen += 1
        return seen

    watching = asyncio.ensure_future(watch())
    try:
        for _ in range(5):
            await asyncio.gather(*(transfer(number) for number in range(10)))
    finally:
        done.set()
        seen = await watching
    assert seen > 0


async def test_a_read_only_transaction_refuses_to_write(
    transactions: TransactionCalls, storage_stub: Any, accounts: str
) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
        await transactions.execute(*moves(accounts), read_only=True)
    assert await amounts(storage_stub, accounts) == [[], []]


async def test_a_database_that_may_only_be_read_takes_part(
    transactions: TransactionCalls, storage_stub: Any, accounts: str
) -> None:
    answer = await transactions.execute(
        operation(AUTH, f"SELECT count(*) FROM {accounts}"),
        operation(CHARACTER, f"INSERT INTO {accounts} VALUES (1, 1)"),
    )
    assert rows(answer.results[0].result) == [(0,)]
    with refused("PERMISSION_DENIED", "ACCESS_DENIED"):
        await transactions.execute(
            operation(AUTH, f"INSERT INTO {accounts} VALUES (1, 1)"),
            operation(CHARACTER, f"INSERT INTO {accounts} VALUES (2, 1)"),
        )
    assert (await amounts(storage_stub, accounts))[0] == [1]


async def test_every_operation_and_event_needs_a_grant(
    transactions: TransactionCalls, accounts: str
) -> None:
    with refused("PERMISSION_DENIED", "ACCESS_DENIED"):
        await transactions.execute(*moves(accounts), operation(METRICS, "SELECT 1"))
    with refused("PERMISSION_DENIED", "ACCESS_DENIED"):
        await transactions.execute(*moves(accounts), events=[event(AUTH, "character.moved")])
    with refused("NOT_FOUND", "INVALID_ROUTE") as refusal:
        await transactions.execute(*moves(accounts), operation("nowhere_db", "SELECT 1"))
    assert "operations[2].database" in refusal.fields


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "operations"),
        ({"operations": [operation("", "")]}, "operations[0].statement.query"),
        ({"operations": [operation("", "SELECT ?")], "request_id": "x"}, "request_id"),
        ({"events": [event("", "storage.mine")]}, "events[0].type"),
        ({"operations": [operation("", "SELECT 1")] * 1001}, "operations"),
    ],
)
async def test_a_bad_field_is_named(
    transactions: TransactionCalls, fields: dict[str, Any], field: str
) -> None:
    operations = fields.pop("operations", [])
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        await transactions.execute(*operations, **fields)
    assert field in refusal.fields


async def test_another_service_sees_only_what_it_may_read(
    transactions: TransactionCalls,
    transaction_stub: Any,
    storage_stub: Any,
    accounts: str,
) -> None:
    answer = await transactions.execute(*moves(accounts))
    stranger = TransactionCalls(transaction_stub, storage_stub, service="metrics")
    with refused("NOT_FOUND", "TRANSACTION_NOT_FOUND"):
        await stranger.get(answer.transaction_id)
    listed = await stranger.list(COMMITTED)
    assert answer.transaction_id not in {one.transaction_id for one in listed.transactions}
    listed = await transactions.list(COMMITTED, page_size=1000)
    assert answer.transaction_id in {one.transaction_id for one in listed.transactions}


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        (f"{CHARACTER}/01890a5d-ac96-774b-bcce-b302099a8057", "NOT_FOUND", "TRANSACTION_NOT_FOUND"),
        ("nowhere_db/01890a5d-ac96-774b-bcce-b302099a8057", "NOT_FOUND", "TRANSACTION_NOT_FOUND"),
        ("nonsense", "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("", "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ],
)
async def test_a_transaction_that_never_was(
    transactions: TransactionCalls, name: str, code: str, reason: str
) -> None:
    for ask in (transactions.get, transactions.commit, transactions.roll_back):
        with refused(code, reason):
            await ask(name)


async def test_pages_lose_nothing(transactions: TransactionCalls, accounts: str) -> None:
    made = []
    for number in range(3):
        answer = await transactions.execute(
            operation(CHARACTER, f"INSERT INTO {accounts} VALUES (?, 1)", number),
            operation(CAMPAIGN, f"INSERT INTO {accounts} VALUES (?, 1)", number),
        )
        made.append(answer.transaction_id)
    found: list[str] = []
    token = ""
    while True:
        page = await transactions.list(COMMITTED, page_size=2, page_token=token)
        found += [one.transaction_id for one in page.transactions]
        if not (token := page.next_page_token):
            break
    assert [name for name in found if name in made] == made
    assert len(found) == len(set(found))
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
        await transactions.list(page_token="nonsense")


async def test_an_operator_cannot_overrule_what_is_decided(
    transactions: TransactionCalls, storage_stub: Any, accounts: str
) -> None:
    answer = await transactions.execute(*moves(accounts))
    told = await transactions.resolve(answer.transaction_id, commit=False)
    assert told.state == COMMITTED
    assert await amounts(storage_stub, accounts) == [[5], [5]]
