"""kill -9 at every step of a backup, of its proof and of a restore, while money moves.

A backup that died on the way is not there. A restore that died has replaced all of its databases,
or none: the bank is whole, and what it knows is what it knew at one moment.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from messagehub.backup_records import BackupState
from messagehub.client import Hub
from messagehub.errors import BackupNotFound, HubError, ShuttingDown
from messagehub.request_ids import new_request_id
from messagehub.retries import Retries
from tests.support.bank import Books
from tests.support.bank_clients import audit, keep_transferring, open_bank
from tests.support.eventually import eventually
from tests.support.processes import ServerProcess, running_processes

DATABASES = ("auth_db", "campaign_db", "character_db")
TRANSFERRING = 4
CREATING = (
    "backup.copied=kill@2",
    "backup.packed=kill@2",
    "backup.before_complete=kill",
    "backup.completed=kill",
)
VERIFYING = ("verify.one_checked=kill@2", "verify.checked=kill", "verify.recorded=kill")
RESTORING = (
    "restore.staged=kill@2",
    "restore.closed=kill",
    "restore.decided=kill",
    "restore.one_replaced=kill",
    "restore.replaced=kill",
)
# From here on a restore is decided.
DECIDED = RESTORING[2:]


class Platform:
    """One storage server, one hub, and a bank over three databases."""

    def __init__(self, storage: ServerProcess, hub: ServerProcess, data_dir: Path) -> None:
        self.storage = storage
        self.hub = hub
        self.data_dir = data_dir
        self.books = Books(DATABASES)

    @property
    def left(self) -> list[str]:
        """What a process that died may have left, by name."""
        backups = self.data_dir.with_name(f"{self.data_dir.name}-backups")
        places = [*self.data_dir.iterdir(), *(backups.iterdir() if backups.exists() else ())]
        return [one.name for one in places if one.name.startswith(".") and one.is_dir()]

    @asynccontextmanager
    async def client(self, attempts_max: int | None = None) -> AsyncIterator[Hub]:
        retries = Retries(attempts_max=attempts_max)
        address = self.hub.address
        async with Hub(address, service="character", timeout=60, retries=retries) as client:
            yield client

    @asynccontextmanager
    async def money_moving(self, hub: Hub) -> AsyncIterator[None]:
        enough = asyncio.Event()
        dice = random.Random(7)
        async with asyncio.TaskGroup() as tellers:
            for _ in range(TRANSFERRING):
                tellers.create_task(keep_transferring(hub, self.books, dice, enough))
            try:
                yield
            finally:
                enough.set()

    async def dying(self, failpoint: str) -> None:
        await self.storage.restart(failpoints=failpoint)
        await self.usable()

    async def usable(self) -> None:
        for database in DATABASES:
            await self.hub.ready(f"storage.{database}")

    async def back(self) -> None:
        await self.storage.wait()
        await self.storage.restart()
        await self.usable()


@asynccontextmanager
async def platform(directory: Path) -> AsyncIterator[tuple[Platform, Hub]]:
    async with running_processes(directory) as processes:
        storage = processes.storage()
        made = Platform(storage, processes.hub(storage.address), processes.data_dir)
        await storage.ready()
        await made.usable()
        async with made.client() as hub:
            made.books = await open_bank(hub, DATABASES)
            yield made, hub


@pytest.mark.parametrize("failpoint", CREATING)
async def test_a_backup_that_died_is_none_or_whole(tmp_path: Path, failpoint: str) -> None:
    async with platform(tmp_path) as (made, hub):
        await made.dying(failpoint)
        name = new_request_id()
        async with made.money_moving(hub):
            with pytest.raises(HubError):
                await hub.create_backup(DATABASES, request_id=name)
            await made.back()
        if failpoint == "backup.completed=kill":
            assert (await hub.verify_backup(name)).state is BackupState.VERIFIED
        else:
            known = [one async for one in hub.backups() if one.state is not BackupState.FAILED]
            assert known == []
            again = await hub.create_backup(DATABASES, request_id=name)
            assert again.state is BackupState.VERIFIED
        assert made.left == []
        await hub.restore_backup(name)
        await audit(hub, made.books)


@pytest.mark.parametrize("failpoint", VERIFYING)
async def test_a_proof_that_died_leaves_the_backup_as_it_was(
    tmp_path: Path, failpoint: str
) -> None:
    async with platform(tmp_path) as (made, hub):
        backup = await hub.create_backup(DATABASES, verify=False)
        await made.dying(failpoint)
        async with made.client(attempts_max=1) as once:
            with pytest.raises(HubError):
                await once.verify_backup(backup.id)
        await made.back()
        known = await hub.backup(backup.id)
        proven = failpoint == "verify.recorded=kill"
        assert known.state is (BackupState.VERIFIED if proven else BackupState.COMPLETED)
        assert (await hub.verify_backup(backup.id)).problems == ()
        assert made.left == []


@pytest.mark.parametrize("failpoint", RESTORING)
async def test_a_restore_that_died_replaced_all_or_nothing(tmp_path: Path, failpoint: str) -> None:
    async with platform(tmp_path) as (made, hub):
        async with made.money_moving(hub):
            backup = await hub.create_backup(DATABASES)
        epochs = {one.database: one.epoch for one in backup.databases}
        await made.dying(failpoint)
        name = new_request_id()
        async with made.client(attempts_max=1) as once:
            with pytest.raises(HubError):
                await once.restore_backup(backup.id, request_id=name)
        await made.back()
        await audit(hub, made.books)
        now = await hub.create_backup(DATABASES, verify=False)
        renewed = {one.database for one in now.databases if one.epoch != epochs[one.database]}
        assert renewed == (set(DATABASES) if failpoint in DECIDED else set())
        done = await hub.restore_backup(backup.id, request_id=name)
        assert {one.database for one in done.databases} == set(DATABASES)
        if failpoint in DECIDED:
            first = {one.database: one.epoch for one in now.databases}
            assert {one.database: one.epoch for one in done.databases} == first, "done once"
        await audit(hub, made.books)
        assert made.left == []


async def test_a_hub_that_died_leaves_no_backup_and_no_snapshot(tmp_path: Path) -> None:
    async with platform(tmp_path) as (made, hub):
        await made.dying("backup.copied=sleep:1")
        name = new_request_id()
        making = asyncio.create_task(hub.create_backup(DATABASES, request_id=name))
        await eventually(lambda: any(one.startswith(".making-") for one in made.left))
        made.hub.kill()
        making.cancel()
        made.hub.start()
        await made.usable()
        await eventually(lambda: not made.left)
        with pytest.raises(BackupNotFound):
            await hub.backup(name)
        backup = await hub.create_backup(DATABASES, request_id=name)
        assert backup.state is BackupState.VERIFIED


async def test_a_backup_can_be_cancelled(tmp_path: Path) -> None:
    async with platform(tmp_path) as (made, hub):
        await made.dying("backup.copied=sleep:1")
        name = new_request_id()
        making = asyncio.create_task(hub.create_backup(DATABASES, request_id=name))
        await eventually(lambda: any(one.startswith(".making-") for one in made.left))
        await hub.delete_backup(name)
        with pytest.raises((ShuttingDown, HubError)):
            await making
        await eventually(lambda: not made.left)
        await audit(hub, made.books)


@pytest.mark.parametrize(
    "rounds", [pytest.param(3), pytest.param(30, marks=[pytest.mark.soak, pytest.mark.timeout(0)])]
)
async def test_every_backup_under_transfers_is_a_whole_bank(tmp_path: Path, rounds: int) -> None:
    async with platform(tmp_path) as (made, hub):
        for _ in range(rounds):
            async with made.money_moving(hub):
                backup = await hub.create_backup(DATABASES)
                assert backup.state is BackupState.VERIFIED
                await audit(hub, made.books)
            await hub.restore_backup(backup.id)
            await audit(hub, made.books)
            newer = await hub.create_backup(DATABASES)
            held = {one.database: one.rows for one in newer.databases}
            assert held.keys() == set(DATABASES)
