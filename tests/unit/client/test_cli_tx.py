"""`messagehub tx`, against the fake hub."""

import json
import subprocess

import pytest

from messagehub.errors import TransactionNotFound
from messagehub.transactions import TransactionState
from messagehub.v1.transaction_service_pb2 import (
    GetTransactionResponse,
    ListTransactionsResponse,
    ResolveTransactionResponse,
    Transaction,
)
from tests.unit.client.fake_hub import FakeHub
from tests.unit.client.test_cli import finish, run_command, start

ID = "catalog_db/01890a5d-ac96-774b-bcce-b302099a8057"
IN_DOUBT, COMMITTED = TransactionState.IN_DOUBT, TransactionState.COMMITTED


def known(name: str, state: TransactionState, seconds: int = 0) -> Transaction:
    made = Transaction(
        transaction_id=name,
        state=state.value,
        source_service="catalog",
        databases=["catalog_db", "character_db"],
        waiting_for=["catalog_db"] if state is IN_DOUBT else [],
    )
    made.create_time.FromSeconds(1_764_000_000 + seconds)
    made.update_time.FromSeconds(1_764_000_000 + seconds)
    return made


def listed(fake: FakeHub, *transactions: Transaction, unavailable: str = "") -> None:
    answer = ListTransactionsResponse(
        transactions=transactions, unavailable_databases=[unavailable] if unavailable else []
    )
    fake.transactions["ListTransactions"].append(answer)


def doubtful(fake: FakeHub) -> None:
    """Only the second service knows the transaction, and the hub will end it."""
    found = GetTransactionResponse(transaction=known(ID, IN_DOUBT))
    fake.transactions["GetTransaction"].extend([TransactionNotFound("not yours"), found])
    ended = ResolveTransactionResponse(transaction=known(ID, COMMITTED))
    fake.transactions["ResolveTransaction"].append(ended)


async def test_each_transaction_is_listed_once_oldest_first(fake: FakeHub) -> None:
    listed(fake, known(ID, IN_DOUBT, 5), known("catalog_db/2", TransactionState.ACTIVE, 9))
    listed(fake, known(ID, IN_DOUBT, 5), known("catalog_db/0", TransactionState.ACTIVE, 1))
    status, output, errors = await run_command("tx", "--target", fake.address)
    assert (status, errors) == (0, "")
    heading, *lines = output.splitlines()
    assert heading.split()[:3] == ["TRANSACTION", "STATE", "SERVICE"]
    assert [line.split()[0] for line in lines] == ["catalog_db/0", ID, "catalog_db/2"]
    assert "IN_DOUBT" in lines[1]
    assert "catalog_db, character_db  catalog_db" in lines[1]
    assert [request.source_service for request in fake.requests] == ["character", "catalog"]


async def test_what_could_not_be_asked_is_told(fake: FakeHub) -> None:
    listed(fake, unavailable="auth_db")
    listed(fake, known(ID, IN_DOUBT))
    status, output, errors = await run_command("tx", "list", "--target", fake.address)
    assert (status, ID in output) == (0, True)
    assert errors == "cannot be asked at the moment, so more may be there: auth_db\n"


async def test_one_services_transactions_are_listed_for_programs(fake: FakeHub) -> None:
    listed(fake, known(ID, IN_DOUBT))
    status, output, _ = await run_command(
        *("tx", "list", "--state", "in_doubt", "--state", "active", "--json"),
        *("--service", "catalog", "--target", fake.address),
    )
    assert status == 0
    found = json.loads(output)
    assert (found["transaction_id"], found["state"]) == (ID, "IN_DOUBT")
    assert found["waiting_for"] == ["catalog_db"]
    assert list(fake.requests[0].states) == [5, 1]


@pytest.mark.parametrize("decision", ["commit", "rollback"])
async def test_one_is_ended_by_hand_for_the_service_that_has_it(
    fake: FakeHub, decision: str
) -> None:
    doubtful(fake)
    status, output, errors = await run_command(
        "tx", "resolve", ID, f"--{decision}", "--yes", "--json", "--target", fake.address
    )
    assert status == 0, errors
    assert json.loads(output)["state"] == "COMMITTED"
    assert "WARNING: catalog_db decides" in errors
    assert "character_db will disagree" in errors
    *_, resolved = fake.requests
    assert resolved.source_service == "catalog"
    assert (resolved.transaction_id, resolved.commit) == (ID, decision == "commit")


@pytest.mark.parametrize("answer", ["y\n", "n\n", ""])
async def test_a_person_is_asked_first(fake: FakeHub, answer: str) -> None:
    doubtful(fake)
    command = ("tx", "resolve", ID, "--rollback", "--target", fake.address)
    status, _, errors = await finish(await start(*command, stdin=subprocess.PIPE), answer or "\n")
    assert "WARNING" in errors
    assert (status == 0) is (answer == "y\n")
    assert (type(fake.requests[-1]).__name__ == "ResolveTransactionRequest") is (answer == "y\n")


async def test_only_what_is_in_doubt_is_ended(fake: FakeHub) -> None:
    found = GetTransactionResponse(transaction=known(ID, COMMITTED))
    fake.transactions["GetTransaction"].append(found)
    status, _, errors = await run_command(
        "tx", "resolve", ID, "--rollback", "--yes", "--target", fake.address
    )
    assert (status, "is COMMITTED" in errors) == (1, True)
    assert len(fake.requests) == 1


async def test_nothing_is_ended_without_a_decision_or_a_transaction(fake: FakeHub) -> None:
    status, _, errors = await run_command("tx", "resolve", ID, "--target", fake.address)
    assert (status, "--commit or --rollback" in errors) == (2, True)
    fake.transactions["GetTransaction"].extend([TransactionNotFound("not yours")] * 2)
    status, _, errors = await run_command(
        "tx", "resolve", ID, "--commit", "--yes", "--target", fake.address
    )
    assert (status, "TRANSACTION_NOT_FOUND" in errors) == (1, True)
