"""Clients that append to lists in several databases and read them, and remember what they saw."""

import asyncio
import itertools
import random
from collections.abc import Iterator, Sequence

from messagehub.client import Hub, Operation
from messagehub.errors import HubError, TransactionConflict
from messagehub.request_ids import new_request_id
from messagehub.transactions import CommittedTransaction
from tests.support.histories import Append, History, Key, ListTransaction, Outcome, Read
from tests.support.list_append_checker import anomalies

LISTS = 3
OPERATIONS_MAX = 6
UNKNOWN = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
CREATE = "CREATE TABLE lists (position INTEGER PRIMARY KEY, name TEXT, value INTEGER)"
APPEND = "INSERT INTO lists (name, value) VALUES (?, ?)"
READ = "SELECT value FROM lists WHERE name = ? ORDER BY position"


class Lists:
    """Lists in several databases; the key of each is its database and its name."""

    def __init__(self, databases: Sequence[str]) -> None:
        self.history = History()
        self._databases = databases
        self._keys = [(d, f"list-{n}") for d in databases for n in range(LISTS)]
        self._values: Iterator[int] = itertools.count(1)
        self._unsettled: list[tuple[ListTransaction, str, bool]] = []

    async def create(self, hub: Hub) -> None:
        """Makes the tables."""
        for database in self._databases:
            await hub.execute(CREATE, database=database)

    async def keep_working(self, hub: Hub, dice: random.Random, enough: asyncio.Event) -> None:
        """Does one random transaction after the other."""
        while not enough.is_set():
            read_only = dice.random() < 0.3
            done = ListTransaction(f"t{len(self.history.transactions)}", [])
            self.history.transactions.append(done)
            for _ in range(dice.randint(1, OPERATIONS_MAX)):
                key = dice.choice(self._keys)
                appends = not read_only and dice.random() < 0.5
                done.operations.append(Append(key, next(self._values)) if appends else Read(key))
            await self._send(hub, done, new_request_id(), read_only)

    async def check(self, hub: Hub) -> None:
        """Settles what is not known, reads every list, and fails if anything is wrong."""
        while self._unsettled:
            await self._send(hub, *self._unsettled.pop())
        final = [Operation(READ, [name], database=database) for database, name in self._keys]
        # A transaction of its own: it waits for what is decided but not yet done everywhere.
        done = await hub.execute_transaction(final, read_only=True)
        for key, result in zip(self._keys, done.results, strict=True):
            self.history.final[key] = tuple(int(str(row[0])) for row in result.rows)
        assert not (wrong := anomalies(self.history)), wrong[:10]

    async def _send(
        self, hub: Hub, sent: ListTransaction, request_id: str, read_only: bool
    ) -> None:
        operations = [_operation(each) for each in sent.operations]
        try:
            done = await hub.execute_transaction(
                operations, request_id=request_id, read_only=read_only
            )
        except TransactionConflict:
            sent.outcome = Outcome.ABORTED
        except HubError as failure:
            if failure.code not in UNKNOWN:
                raise
            self._unsettled.append((sent, request_id, read_only))
        else:
            _take(sent, done)


def _operation(each: Append | Read) -> Operation:
    database, name = _place(each.key)
    if isinstance(each, Append):
        return Operation(APPEND, [name, each.value], database=database)
    return Operation(READ, [name], database=database)


def _place(key: Key) -> tuple[str, str]:
    assert isinstance(key, tuple)
    return key


def _take(sent: ListTransaction, done: CommittedTransaction) -> None:
    sent.outcome = Outcome.COMMITTED
    for each, result in zip(sent.operations, done.results, strict=True):
        if isinstance(each, Read):
            each.values = tuple(int(str(row[0])) for row in result.rows)
