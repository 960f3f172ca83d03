"""kill -9 at every step of a transaction over several databases: all of it, or nothing.

A process dies at a failpoint and comes back. Then every database must be usable, agree with the
others and with what the client was told, and the same call again must not do anything twice.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from messagehub.request_ids import new_request_id
from tests.fault.transaction_platform import DATABASES, Told, TransactionPlatform, two_storages
from tests.support.processes import ServerProcess, running_processes

HUB = (
    "coordinator.before_prepare",
    "coordinator.after_one_prepare",
    "coordinator.all_prepared",
    "coordinator.decided",
    "coordinator.after_one_commit",
    "coordinator.finished",
)
STORAGE = (
    "participant.begun",
    "participant.before_prepare_fsync",
    "participant.prepared",
    "home.before_commit",
    "home.committed",
    "participant.before_commit",
    "participant.committed",
    "participant.resolved",
)
# From here on the home has decided.
COMMITTED = {
    "coordinator.decided",
    "coordinator.after_one_commit",
    "coordinator.finished",
    "home.committed",
    "participant.before_commit",
    "participant.committed",
    "participant.resolved",
}
TWO, THREE = DATABASES[:2], DATABASES


def some_of(failpoints: Sequence[str], *always: str) -> Any:
    """Every failpoint; those that are not `always` tested belong to the long tests."""
    return pytest.mark.parametrize(
        "failpoint",
        [pytest.param(one, marks=() if one in always else pytest.mark.soak) for one in failpoints],
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TransactionPlatform]:
    """One storage server, one hub."""
    async with running_processes(tmp_path_factory.mktemp("platform")) as processes:
        storage = processes.storage()
        platform = TransactionPlatform(
            dict.fromkeys(DATABASES, storage), [processes.hub(storage.address)]
        )
        await platform.create()
        yield platform


@pytest_asyncio.fixture(loop_scope="session")
async def platform(started: TransactionPlatform) -> TransactionPlatform:
    await started.ready()
    return started


@pytest.fixture
def name() -> str:
    return new_request_id()


def victim_of(platform: TransactionPlatform, failpoint: str) -> ServerProcess:
    return platform.hubs[0] if failpoint in HUB else platform.storages[DATABASES[0]]


def assert_decided(committed: bool, failpoint: str) -> None:
    """What was decided holds, and what its coordinator did not live to decide does not.

    A coordinator that lives may go on when its storage server is back, or begin anew.
    """
    if failpoint in COMMITTED:
        assert committed
    elif failpoint in HUB:
        assert not committed


@pytest.mark.parametrize(
    "databases",
    [pytest.param(TWO, id="two", marks=pytest.mark.soak), pytest.param(THREE, id="three")],
)
@pytest.mark.parametrize("failpoint", HUB + STORAGE)
async def test_in_one_call(
    platform: TransactionPlatform, name: str, failpoint: str, databases: tuple[str, ...]
) -> None:
    told = await platform.dies_while(
        victim_of(platform, failpoint), failpoint, lambda: platform.in_one_call(name, databases)
    )
    committed = await platform.check(name, databases, told)
    assert_decided(committed, failpoint)
    await platform.ask_again(name, databases, committed=committed)


@pytest.mark.parametrize(
    "databases",
    [pytest.param(TWO, id="two"), pytest.param(THREE, id="three", marks=pytest.mark.soak)],
)
@some_of(HUB + STORAGE, *HUB, "participant.prepared", "home.committed")
async def test_step_by_step(
    platform: TransactionPlatform, name: str, failpoint: str, databases: tuple[str, ...]
) -> None:
    told = await platform.dies_while(
        victim_of(platform, failpoint), failpoint, lambda: platform.step_by_step(name, databases)
    )
    committed = await platform.check(name, databases, told)
    assert_decided(committed, failpoint)


@pytest.mark.parametrize("failpoint", ["home.before_commit", "home.committed"])
async def test_in_one_database(platform: TransactionPlatform, name: str, failpoint: str) -> None:
    """It needs no protocol; what is in doubt is only what its client was told."""
    databases = DATABASES[:1]
    told = await platform.dies_while(
        victim_of(platform, failpoint), failpoint, lambda: platform.step_by_step(name, databases)
    )
    committed = await platform.check(name, databases, told)
    assert_decided(committed, failpoint)


async def test_in_the_middle_of_recovery(platform: TransactionPlatform, name: str) -> None:
    """It dies prepared, and again as soon as it has found that out."""
    storage = platform.storages[DATABASES[0]]
    await storage.restart(failpoints="participant.prepared=kill")
    await platform.ready()
    calling = asyncio.ensure_future(platform.in_one_call(name, THREE))
    await storage.wait()
    for _ in range(2):
        storage.start(failpoints="participant.recovered=kill")
        await storage.wait()
    await platform.ready()
    committed = await platform.check(name, THREE, await calling)
    await platform.ask_again(name, THREE, committed=committed)


@some_of(HUB, "coordinator.all_prepared", "coordinator.decided")
async def test_hub_and_storage_at_once(
    platform: TransactionPlatform, name: str, failpoint: str
) -> None:
    [hub], storage = platform.hubs, platform.storages[DATABASES[0]]
    await hub.restart(failpoints=f"{failpoint}=kill")
    await platform.ready()
    calling = asyncio.ensure_future(platform.in_one_call(name, THREE))
    await hub.wait()
    storage.kill()
    await platform.ready()
    committed = await platform.check(name, THREE, await calling)
    assert_decided(committed, failpoint)
    await platform.ask_again(name, THREE, committed=committed)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def apart(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TransactionPlatform]:
    async with two_storages(tmp_path_factory.mktemp("apart")) as platform:
        yield platform


@some_of(STORAGE, "participant.prepared", "home.committed", "participant.before_commit")
async def test_one_of_two_storage_servers(
    apart: TransactionPlatform, name: str, failpoint: str
) -> None:
    await apart.ready()
    home = apart.storages[DATABASES[2]]
    victim = home if failpoint.startswith("home.") else apart.storages[DATABASES[0]]
    told = await apart.dies_while(victim, failpoint, lambda: apart.in_one_call(name, THREE))
    committed = await apart.check(name, THREE, told)
    assert_decided(committed, failpoint)
    await apart.ask_again(name, THREE, committed=committed)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def with_two_hubs(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[TransactionPlatform]:
    async with running_processes(tmp_path_factory.mktemp("hubs")) as processes:
        storage = processes.storage()
        hubs = [
            processes.hub(storage.address, "--data-dir", f"hub-{number}") for number in range(2)
        ]
        platform = TransactionPlatform(dict.fromkeys(DATABASES, storage), hubs)
        await platform.create()
        yield platform


@some_of(HUB, "coordinator.all_prepared", "coordinator.decided")
async def test_another_hub_ends_what_the_first_one_left(
    with_two_hubs: TransactionPlatform, name: str, failpoint: str
) -> None:
    platform = with_two_hubs
    first = platform.hubs[0]
    await first.restart(failpoints=f"{failpoint}=kill")
    await platform.ready()
    calling = asyncio.ensure_future(platform.in_one_call(name, THREE))
    await first.wait()
    told = await calling
    committed = await platform.check(name, THREE, told, hub=1)
    assert_decided(committed, failpoint)
    await platform.ask_again(name, THREE, committed=committed, hub=1)
    await platform.ready()
    await platform.check(name, THREE, Told(committed=True))


async def test_another_hub_goes_on_with_an_open_transaction(
    with_two_hubs: TransactionPlatform, name: str
) -> None:
    """What a hub knows of an open transaction can be had from its home."""
    platform = with_two_hubs
    await platform.ready()
    async with platform.client() as client, platform.client(1) as other:
        mine = client.transaction(*THREE)
        await mine.__aenter__()
        await mine.execute("INSERT INTO kept VALUES (?)", [name], database=THREE[0])
        platform.hubs[0].kill()
        # The same transaction, by its id alone.
        theirs = other.transaction(*THREE)
        theirs.id, theirs._open = mine.id, True
        for database in THREE[1:]:
            await theirs.execute("INSERT INTO kept VALUES (?)", [name], database=database)
        await theirs.commit()
    assert await platform.check(name, THREE, Told(True, mine.id), hub=1)
    await platform.ready()
