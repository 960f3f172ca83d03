"""kill -9 at every step of a schema update over three databases: all of it, or nothing.

A process dies at a failpoint and comes back. Then version, history and tables agree within each
database and among them, the client was not told otherwise, and the same call again does it once.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from messagehub.client import Hub
from messagehub.errors import HubError
from messagehub.request_ids import new_request_id
from messagehub.schemas import SchemaUpdate
from tests.fault.test_transaction_kills import HUB, STORAGE, assert_decided, some_of, victim_of
from tests.fault.transaction_platform import DATABASES, UNKNOWN, Told, TransactionPlatform
from tests.support.processes import running_processes


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TransactionPlatform]:
    async with running_processes(tmp_path_factory.mktemp("platform")) as processes:
        storage = processes.storage()
        platform = TransactionPlatform(
            dict.fromkeys(DATABASES, storage), [processes.hub(storage.address)]
        )
        await platform.create()
        yield platform


def updates(number: int) -> list[SchemaUpdate]:
    script = f"""CREATE TABLE table_{number} (id INTEGER PRIMARY KEY, chance INTEGER);
    INSERT INTO table_{number} (chance) VALUES (random()), (random());
    CREATE TRIGGER trigger_{number} AFTER INSERT ON table_{number} BEGIN SELECT 1; END;"""
    back = f"DROP TABLE table_{number}"
    return [SchemaUpdate(f"{number}.0.0", script, back, database=name) for name in DATABASES]


async def update(platform: TransactionPlatform, number: int, request_id: str) -> Told:
    async with platform.client() as client:
        try:
            await client.update_schema(updates(number), request_id=request_id)
        except HubError as failure:
            if failure.code in UNKNOWN:
                return Told(None)
            if failure.code == "ABORTED":
                return Told(committed=False)
            raise
    return Told(committed=True)


async def agreed_version(client: Hub) -> int:
    """The version of all databases, whose histories and tables must say the same."""
    numbers = set()
    for database in DATABASES:
        await client.execute("INSERT INTO kept VALUES ('later')", database=database)
        schema = await client.schema(database)
        number = int(schema.version.partition(".")[0] or 0)
        expected = {f"table_{n}" for n in range(1, number + 1)} | {"kept"}
        assert {table.name for table in schema.tables} == expected
        assert [change.version for change in schema.history] == [
            f"{n}.0.0" for n in range(1, number + 1)
        ]
        assert not schema.drifted
        numbers.add(number)
    assert len(numbers) == 1, numbers
    return numbers.pop()


@some_of(HUB + STORAGE, "coordinator.all_prepared", "participant.prepared", "home.committed")
async def test_all_databases_or_none(started: TransactionPlatform, failpoint: str) -> None:
    await started.ready()
    async with started.client(attempts_max=None) as client:
        number = await agreed_version(client) + 1
    request_id = new_request_id()
    told = await started.dies_while(
        victim_of(started, failpoint), failpoint, lambda: update(started, number, request_id)
    )
    async with started.client(attempts_max=None) as client:
        committed = await agreed_version(client) == number
        assert told.committed in (None, committed)
        assert_decided(committed, failpoint)
        again = await client.update_schema(updates(number), request_id=request_id)
        assert again.replayed is committed
        assert await agreed_version(client) == number
