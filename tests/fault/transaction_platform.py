"""Processes that die in the middle of a transaction, and what must hold afterwards."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from messagehub.client import Hub, Operation
from messagehub.errors import HubError, TransactionNotFound
from messagehub.retries import Retries
from messagehub.transactions import TransactionState
from tests.support.eventually import eventually
from tests.support.processes import ServerProcess, running_processes

DATABASES: Final = ("auth_db", "campaign_db", "character_db")
SERVICE: Final = "character"
# Longer than any restart and the recovery from it, on a slow machine.
ANSWER_SECONDS: Final = 60.0
# What a hub that died leaves open holds its databases for so long.
IDLE_SECONDS: Final = 4.0
CREATE: Final = "CREATE TABLE IF NOT EXISTS kept (name TEXT)"
INSERT: Final = "INSERT INTO kept VALUES (?)"
COUNT: Final = "SELECT count(*) FROM kept WHERE name = ?"
UNKNOWN: Final = ("UNAVAILABLE", "DEADLINE_EXCEEDED")


@dataclass
class Told:
    """What a client was told of its transaction; `committed` is None if that was nothing."""

    committed: bool | None
    transaction_id: str = ""


class TransactionPlatform:
    """Storage servers, hubs, and clients that try once only."""

    def __init__(
        self, storages: Mapping[str, ServerProcess], hubs: Sequence[ServerProcess]
    ) -> None:
        self.storages = dict(storages)
        self.hubs = list(hubs)

    @property
    def processes(self) -> list[ServerProcess]:
        """All of them, each once."""
        return list(dict.fromkeys([*self.storages.values(), *self.hubs]))

    @asynccontextmanager
    async def client(self, hub: int = 0, *, attempts_max: int | None = 1) -> AsyncIterator[Hub]:
        """A client of one of the hubs."""
        retries = Retries(attempts_max=attempts_max)
        address = self.hubs[hub].address
        async with Hub(address, service=SERVICE, timeout=ANSWER_SECONDS, retries=retries) as client:
            yield client

    async def ready(self) -> None:
        """Starts what does not run, and waits until every hub can use every database."""
        for process in self.processes:
            if not process.running:
                process.start()
        for hub in self.hubs:
            for database in DATABASES:
                await hub.ready(f"storage.{database}")

    async def create(self) -> None:
        """Makes the tables."""
        await self.ready()
        async with self.client(attempts_max=None) as hub:
            for database in DATABASES:
                await hub.execute(CREATE, database=database)

    async def dies_while(
        self, victim: ServerProcess, failpoint: str, call: Callable[[], Awaitable[Told]]
    ) -> Told:
        """Has a process die where the failpoint says, during a call, and everything come back."""
        await victim.restart(failpoints=f"{failpoint}=kill")
        await self.ready()
        calling = asyncio.ensure_future(call())
        try:
            assert await victim.wait() == -signal.SIGKILL
            await self.ready()
            return await calling
        finally:
            calling.cancel()

    async def in_one_call(self, name: str, databases: Sequence[str], hub: int = 0) -> Told:
        """A transaction in one call; its name is its request id."""
        async with self.client(hub) as client:
            try:
                done = await client.execute_transaction(
                    [Operation(INSERT, [name], database=database) for database in databases],
                    request_id=name,
                )
            except HubError as failure:
                if failure.code == "ABORTED":
                    return Told(committed=False)
                if failure.code in UNKNOWN:
                    return Told(None)
                raise
        return Told(True, done.transaction_id)

    async def step_by_step(self, name: str, databases: Sequence[str], hub: int = 0) -> Told:
        """A transaction that is open while its client works."""
        async with self.client(hub) as client:
            transaction = client.transaction(*databases, idle_timeout=IDLE_SECONDS)
            try:
                async with transaction:
                    for database in databases:
                        await transaction.execute(INSERT, [name], database=database)
            except HubError as failure:
                # An open part is lost with its storage server.
                if failure.code not in (*UNKNOWN, "ABORTED", "NOT_FOUND"):
                    raise
            state = transaction.state
        if not transaction.id:
            # It did not even begin: nobody can commit it any more.
            return Told(committed=False)
        committed = state is TransactionState.COMMITTED if state.final else None
        return Told(committed, transaction.id)

    async def check(self, name: str, databases: Sequence[str], told: Told, hub: int = 0) -> bool:
        """Everything or nothing is there, and everybody says the same; gives which it is."""
        async with self.client(hub, attempts_max=None) as client:
            # That it can be written to says that nothing is left undecided in a database.
            for database in databases:
                await client.execute(INSERT, ["later"], database=database)
            counts = [await _count(client, name, database) for database in databases]
            assert counts in ([0] * len(databases), [1] * len(databases)), counts
            committed = counts[0] == 1
            if told.committed is not None:
                assert told.committed is committed, told
            if told.transaction_id:
                await eventually(lambda: _says(client, told.transaction_id, committed=committed))
            return committed

    async def ask_again(
        self, name: str, databases: Sequence[str], *, committed: bool, hub: int = 0
    ) -> None:
        """The same call again gives what was done, or does it; in the end it is there once."""
        async with self.client(hub, attempts_max=None) as client:
            again = await client.execute_transaction(
                [Operation(INSERT, [name], database=database) for database in databases],
                request_id=name,
            )
            assert again.replayed is committed
            assert [result.database for result in again.results] == list(databases)
        await self.check(name, databases, Told(True, again.transaction_id), hub)


@asynccontextmanager
async def two_storages(directory: Path) -> AsyncIterator[TransactionPlatform]:
    """One storage server has the home, the other one the others."""
    async with running_processes(directory) as processes:
        mine, other = processes.storage(), processes.storage("--data-dir", "other-data")
        (directory / "messagehub.toml").write_text(
            "".join(
                f'[hub.databases.{database}]\nstorage = ["{other.address}"]\n'
                for database in DATABASES[:2]
            )
        )
        platform = TransactionPlatform(
            {DATABASES[0]: other, DATABASES[1]: other, DATABASES[2]: mine},
            [processes.hub(mine.address)],
        )
        await platform.create()
        yield platform


async def _count(client: Hub, name: str, database: str) -> int:
    return int(str((await client.execute(COUNT, [name], database=database)).rows[0][0]))


async def _says(client: Hub, transaction_id: str, *, committed: bool) -> bool:
    """True once the hub tells the truth; it may say for a while that it does not know yet."""
    try:
        state = (await client.get_transaction(transaction_id)).state
    except TransactionNotFound:
        # What was never decided may be forgotten; what was committed may not.
        assert not committed
        return True
    if not state.final:
        return False
    assert (state is TransactionState.COMMITTED) is committed, state
    return True
