"""Transactions over several databases while hubs and storage servers are killed.

Two hubs, two storage servers with other databases each. Tellers move money between all databases
through both hubs, auditors read all of them at one moment, and others append to lists and read
them. No cut may ever show half a transfer; in the end every client's own record must agree with
the tables, the events with the record, and the lists must be explained by some serial order.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from messagehub.client import Hub, Operation
from tests.fault.transaction_platform import ANSWER_SECONDS, SERVICE
from tests.support.bank import Books, Told
from tests.support.bank_clients import close_bank, keep_auditing, keep_transferring, open_bank
from tests.support.list_clients import Lists
from tests.support.processes import Processes, ServerProcess, running_processes

MINE = ("auth_db", "character_db")
OTHER = ("campaign_db", "catalog_db")
DATABASES = sorted(MINE + OTHER)
TELLERS, LISTERS = 4, 2
# Short enough that a kill leaves some calls without an answer.
PATIENCE_SECONDS = 4.0
SETTLE_SECONDS = 240.0
PAUSE_SECONDS_MAX = 1.0


class Platform:
    """The processes, and what is done to them."""

    def __init__(self, directory: Path, processes: Processes) -> None:
        mine, other = processes.storage(), processes.storage("--data-dir", "other-data")
        (directory / "messagehub.toml").write_text(
            "".join(
                f'[hub.databases.{database}]\nstorage = ["{other.address}"]\n' for database in OTHER
            )
        )
        self.storages = [mine, other]
        self.hubs = [processes.hub(mine.address, "--data-dir", f"hub-{n}") for n in range(2)]

    @property
    def all(self) -> list[ServerProcess]:
        return [*self.hubs, *self.storages]

    async def ready(self) -> None:
        for hub in self.hubs:
            for database in DATABASES:
                await hub.ready(f"storage.{database}")

    async def strike(self, dice: random.Random) -> str:
        """Kills one or several of them, and brings them back."""
        victims = dice.choice(
            [
                [dice.choice(self.hubs)],
                [dice.choice(self.storages)],
                [dice.choice(self.hubs), dice.choice(self.storages)],
                self.all,
            ]
        )
        for victim in victims:
            victim.kill()
        await asyncio.sleep(dice.random() * PAUSE_SECONDS_MAX)
        for victim in dice.sample(victims, len(victims)):
            victim.start()
        await self.ready()
        return f"killed {', '.join(victim.address for victim in victims)}"

    @asynccontextmanager
    async def client(self, number: int, seconds: float = ANSWER_SECONDS) -> AsyncIterator[Hub]:
        """A client of one of the hubs in turn."""
        address = self.hubs[number % len(self.hubs)].address
        async with Hub(address, service=SERVICE, timeout=seconds) as hub:
            yield hub


async def work(
    platform: Platform,
    books: Books,
    lists: Lists,
    dice: random.Random,
    strikes: int,
    between: float,
) -> int:
    """Lets everybody work among the strikes; gives the number of audits."""
    enough = asyncio.Event()

    async def teller(number: int) -> None:
        async with platform.client(number, PATIENCE_SECONDS) as hub:
            await keep_transferring(hub, books, random.Random(dice.random()), enough)

    async def lister(number: int) -> None:
        async with platform.client(number, PATIENCE_SECONDS) as hub:
            await lists.keep_working(hub, random.Random(dice.random()), enough)

    async def auditor(number: int) -> int:
        async with platform.client(number, PATIENCE_SECONDS) as hub:
            return await keep_auditing(hub, books, enough)

    async with asyncio.TaskGroup() as tasks:
        for number in range(TELLERS):
            tasks.create_task(teller(number))
        for number in range(LISTERS):
            tasks.create_task(lister(number))
        audits = [tasks.create_task(auditor(number)) for number in range(2)]
        for number in range(strikes):
            await asyncio.sleep(between * (0.5 + dice.random()))
            print(f"strike {number + 1}: {await platform.strike(dice)}")
        await asyncio.sleep(between)
        enough.set()
    return sum(audit.result() for audit in audits)


async def check_events(hub: Hub, books: Books) -> None:
    """Each transfer is told of once in each of its databases."""
    last = await hub.execute_transaction(
        [Operation("CREATE TABLE the_end (n)", database=database) for database in books.databases]
    )
    ends = {(database, last.transaction_id) for database in books.databases}
    told: Counter[tuple[str, str]] = Counter()
    async for event in hub.subscribe(
        types="transaction.committed", databases=books.databases, start="earliest"
    ):
        told[event.subject, event.transaction_id] += 1
        if ends <= told.keys():
            break
    for transfer in books.transfers.values():
        if transfer.told is Told.DONE:
            for database in (transfer.source.database, transfer.target.database):
                assert told[database, transfer.transaction_id] == 1, transfer
    assert max(told.values()) == 1


async def chaos(directory: Path, *, strikes: int, between: float) -> None:
    seed = int(os.environ.get("SOAK_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"SOAK_SEED={seed}")
    dice = random.Random(seed)
    async with running_processes(directory) as processes:
        platform = Platform(directory, processes)
        await platform.ready()
        async with platform.client(0) as hub:
            books, lists = await open_bank(hub, DATABASES), Lists(DATABASES)
            await lists.create(hub)
            audits = await work(platform, books, lists, dice, strikes, between)
            unsettled = len(books.unsettled())
            async with asyncio.timeout(SETTLE_SECONDS):
                await close_bank(hub, books)
                await lists.check(hub)
                await check_events(hub, books)
        for process in platform.all:
            assert await process.stop() == 0
    print(
        f"{audits} audits, {books.count(Told.DONE)} transfers, {books.count(Told.REFUSED)} refused,"
        f" {unsettled} without an answer, {len(lists.history.transactions)} list transactions"
    )
    assert audits
    assert books.count(Told.DONE)
    assert lists.history.transactions


async def test_no_money_is_made_or_lost(tmp_path: Path) -> None:
    await chaos(tmp_path, strikes=4, between=1.0)


@pytest.mark.soak
async def test_the_same_for_a_long_time(tmp_path: Path) -> None:
    await chaos(tmp_path, strikes=150, between=3.0)
