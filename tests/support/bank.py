"""A bank over several databases: money moves between them, none is made and none is lost.

Each account and each transfer's two records (what went out, what came in) are in the database of
the account. `Books` is what the bank's clients were told; `problems` compares it with the tables.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

ACCOUNTS: Final = 10
BALANCE: Final = 100


class Told(Enum):
    """What a client was told of its transfer."""

    NOTHING = "no answer yet"
    DONE = "committed"
    REFUSED = "not committed"


@dataclass(frozen=True)
class Account:
    """An account in a database."""

    database: str
    number: int


@dataclass
class Transfer:
    """An amount that is to go from one account to another, under the name of its call."""

    request_id: str
    source: Account
    target: Account
    amount: int
    told: Told = Told.NOTHING
    transaction_id: str = ""

    @property
    def records(self) -> list[tuple[str, str, int]]:
        """What it leaves in the databases: database, name, amount."""
        return [
            (self.source.database, self.request_id, -self.amount),
            (self.target.database, self.request_id, self.amount),
        ]


@dataclass
class Books:
    """All transfers that were sent, by name."""

    databases: tuple[str, ...]
    transfers: dict[str, Transfer] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All money there is, at any moment."""
        return len(self.databases) * ACCOUNTS * BALANCE

    def unsettled(self) -> list[Transfer]:
        """The transfers of which nothing is known."""
        return [one for one in self.transfers.values() if one.told is Told.NOTHING]

    def count(self, told: Told) -> int:
        """How many transfers were told so."""
        return sum(one.told is told for one in self.transfers.values())


@dataclass
class Tables:
    """What stands in the databases."""

    balances: dict[Account, int]
    records: list[tuple[str, str, int]]


def problems_of_cut(books: Books, sums: Mapping[str, int], records: Mapping[str, int]) -> list[str]:
    """Says what is wrong with one cut: the sum of balances and the number of records of each."""
    found = []
    if sum(sums.values()) != books.total:
        found.append(f"the balances are {dict(sums)}, together not {books.total}")
    if sum(records.values()) % 2:
        found.append(f"half a transfer is there: the records are {dict(records)}")
    return found


def problems(books: Books, tables: Tables) -> list[str]:
    """Says what is wrong at the end, when every transfer is settled."""
    found = [f"{one.request_id} is not settled" for one in books.unsettled()]
    kept = Counter(tables.records)
    for transfer in books.transfers.values():
        wanted = Counter(transfer.records if transfer.told is Told.DONE else ())
        there = Counter({one: kept.pop(one, 0) for one in set(transfer.records)})
        if +there != wanted:
            found.append(f"{transfer.told.value}, but {dict(+there)} is there: {transfer}")
    found += [f"nobody sent {record}" for record in kept]
    return found + _wrong_balances(books, tables)


def _wrong_balances(books: Books, tables: Tables) -> Iterable[str]:
    balances = {
        Account(database, number): BALANCE
        for database in books.databases
        for number in range(ACCOUNTS)
    }
    for transfer in books.transfers.values():
        if transfer.told is Told.DONE:
            balances[transfer.source] -= transfer.amount
            balances[transfer.target] += transfer.amount
    return [
        f"{account} has {tables.balances.get(account)}, not {balance}"
        for account, balance in balances.items()
        if tables.balances.get(account) != balance
    ]
