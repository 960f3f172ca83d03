"""The clients of the bank in `tests.support.bank`, through the client library."""

import asyncio
import random
from collections.abc import Iterable, Sequence

from messagehub.client import Hub, Operation
from messagehub.errors import ConstraintViolation, HubError, TransactionConflict
from messagehub.request_ids import new_request_id
from tests.support.bank import (
    ACCOUNTS,
    BALANCE,
    Account,
    Books,
    Tables,
    Told,
    Transfer,
    problems,
    problems_of_cut,
)

AMOUNT_MAX = 60
# What leaves open whether a transfer was done.
UNKNOWN = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
CREATE = (
    "CREATE TABLE accounts (number INTEGER PRIMARY KEY, balance INTEGER CHECK (balance >= 0))",
    "CREATE TABLE transfers (name TEXT, amount INTEGER)",
)
OPEN = "INSERT INTO accounts VALUES (?, ?)"
MOVE = "UPDATE accounts SET balance = balance + ? WHERE number = ?"
RECORD = "INSERT INTO transfers VALUES (?, ?)"
SUM = "SELECT sum(balance), (SELECT count(*) FROM transfers) FROM accounts"


async def open_bank(hub: Hub, databases: Sequence[str]) -> Books:
    """Makes the tables and the accounts."""
    for database in databases:
        for query in CREATE:
            await hub.execute(query, database=database)
        for number in range(ACCOUNTS):
            await hub.execute(OPEN, [number, BALANCE], database=database)
    return Books(tuple(databases))


def operations(transfer: Transfer) -> list[Operation]:
    """The statements of a transfer."""
    return [
        operation
        for account, amount in (
            (transfer.source, -transfer.amount),
            (transfer.target, transfer.amount),
        )
        for operation in (
            Operation(MOVE, [amount, account.number], database=account.database),
            Operation(RECORD, [transfer.request_id, amount], database=account.database),
        )
    ]


async def send(hub: Hub, transfer: Transfer) -> None:
    """Sends a transfer and writes down what was told of it."""
    try:
        done = await hub.execute_transaction(operations(transfer), request_id=transfer.request_id)
    except (ConstraintViolation, TransactionConflict):
        transfer.told = Told.REFUSED
    except HubError as failure:
        if failure.code not in UNKNOWN:
            raise
    else:
        transfer.told = Told.DONE
        transfer.transaction_id = done.transaction_id


async def keep_transferring(
    hub: Hub, books: Books, dice: random.Random, enough: asyncio.Event
) -> None:
    """Sends one random transfer after the other."""
    while not enough.is_set():
        source, target = (
            Account(dice.choice(books.databases), dice.randrange(ACCOUNTS)) for _ in range(2)
        )
        if source == target:
            continue
        transfer = Transfer(new_request_id(), source, target, dice.randint(1, AMOUNT_MAX))
        books.transfers[transfer.request_id] = transfer
        await send(hub, transfer)


async def audit(hub: Hub, books: Books) -> None:
    """Looks at all databases at one moment; fails if a transfer is half there."""
    cut = await hub.execute_transaction(
        [Operation(SUM, database=database) for database in books.databases], read_only=True
    )
    looks = dict(zip(books.databases, (result.rows[0] for result in cut.results), strict=True))
    sums = {database: look[0] for database, look in looks.items()}
    records = {database: look[1] for database, look in looks.items()}
    assert not (wrong := problems_of_cut(books, sums, records)), wrong


async def keep_auditing(hub: Hub, books: Books, enough: asyncio.Event) -> int:
    """Audits again and again; gives how often it could."""
    audits = 0
    while not enough.is_set():
        try:
            await audit(hub, books)
        except HubError as failure:
            if failure.code not in (*UNKNOWN, "ABORTED"):
                raise
        else:
            audits += 1
    return audits


async def settle(hub: Hub, transfers: Iterable[Transfer]) -> None:
    """Sends what was not answered again, under its name, until it is."""
    for transfer in transfers:
        while transfer.told is Told.NOTHING:
            await send(hub, transfer)


async def close_bank(hub: Hub, books: Books) -> None:
    """Compares what was told with what is there."""
    await settle(hub, books.unsettled())
    # It waits for what is decided but not yet done everywhere, which a plain read does not.
    await audit(hub, books)
    balances: dict[Account, int] = {}
    records: list[tuple[str, str, int]] = []
    for database in books.databases:
        async for number, balance in hub.query("SELECT * FROM accounts", database=database):
            balances[Account(database, int(str(number)))] = int(str(balance))
        async for name, amount in hub.query("SELECT * FROM transfers", database=database):
            records.append((database, str(name), int(str(amount))))
    assert not (wrong := problems(books, Tables(balances, records))), wrong
