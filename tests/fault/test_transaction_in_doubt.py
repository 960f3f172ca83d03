"""A transaction whose home is away: seen by everybody, and ended by hand if it must be."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from messagehub.client import Hub
from messagehub.errors import HubError
from messagehub.request_ids import new_request_id
from messagehub.transactions import TransactionRecord, TransactionState
from tests.fault.transaction_platform import (
    COUNT,
    DATABASES,
    INSERT,
    Told,
    TransactionPlatform,
    two_storages,
)
from tests.support.eventually import eventually
from tests.support.processes import run_command

HOME = DATABASES[-1]
HELD = DATABASES[0]


@pytest_asyncio.fixture(loop_scope="session")
async def platform(tmp_path: Path) -> AsyncIterator[TransactionPlatform]:
    async with two_storages(tmp_path) as made:
        yield made


async def in_doubt(platform: TransactionPlatform, name: str, failpoint: str) -> Told:
    """A transaction over two databases whose home dies when all others are prepared."""
    home = platform.storages[HOME]
    await home.restart(failpoints=f"{failpoint}=kill")
    await platform.ready()
    async with platform.client() as hub:
        transaction = hub.transaction(HELD, HOME, timeout=5.0)
        try:
            async with transaction:
                for database in (HELD, HOME):
                    await transaction.execute(INSERT, [name], database=database)
        except HubError as failure:
            if failure.code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise
    await home.wait()
    return Told(None, transaction.id)


async def listed(hub: Hub) -> list[TransactionRecord]:
    return [record async for record in hub.transactions(states=[TransactionState.IN_DOUBT])]


async def test_it_is_seen_and_ends_when_its_home_is_back(platform: TransactionPlatform) -> None:
    name = new_request_id()
    told = await in_doubt(platform, name, "home.committed")
    async with platform.client(attempts_max=None) as hub:
        await eventually(lambda: _seen(hub, told.transaction_id))
        record = await hub.get_transaction(told.transaction_id)
        assert record.state is TransactionState.IN_DOUBT
        assert (record.databases, record.waiting_for) == ((HOME, HELD), (HOME,))
        # It can be read, as it was before, but not be written to.
        assert (await hub.execute(COUNT, [name], database=HELD)).rows == [(0,)]
        writing = asyncio.ensure_future(hub.execute(INSERT, ["waits"], database=HELD))
        await hub.execute(INSERT, ["free"], database=DATABASES[1])
        assert not writing.done()
        await platform.ready()
        await writing
    assert await platform.check(name, (HELD, HOME), told)


async def _seen(hub: Hub, transaction_id: str) -> bool:
    return transaction_id in [record.id for record in await listed(hub)]


async def test_an_operator_ends_it(platform: TransactionPlatform) -> None:
    name = new_request_id()
    told = await in_doubt(platform, name, "home.before_commit")
    address = platform.hubs[0].address
    async with platform.client(attempts_max=None) as hub:
        await eventually(lambda: _seen(hub, told.transaction_id))
        status, output, errors = await run_command("tx", "list", "--json", "--target", address)
        assert status == 0, errors
        lines = [json.loads(line) for line in output.splitlines()]
        assert told.transaction_id in [line["transaction_id"] for line in lines]
        status, output, errors = await run_command(
            *("tx", "resolve", told.transaction_id, "--rollback", "--yes"), "--target", address
        )
        assert status == 0, errors
        assert f"WARNING: {HOME} decides" in errors
        # Its database is free although the home is still away.
        await hub.execute(INSERT, ["free"], database=HELD)
        assert (await hub.execute(COUNT, [name], database=HELD)).rows == [(0,)]
    await platform.ready()
    assert not await platform.check(name, (HELD, HOME), told)
