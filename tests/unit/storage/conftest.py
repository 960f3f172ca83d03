"""Settings that end with their test, whatever it held up."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.unit.storage.scripted_databases import Server, Setting


@pytest_asyncio.fixture(loop_scope="session")
async def setting() -> AsyncIterator[Setting]:
    made = Setting()
    yield made
    made.disk.let_all_through()
    await made.database.end()


@pytest_asyncio.fixture(loop_scope="session")
async def server() -> AsyncIterator[Server]:
    made = Server()
    yield made
    for disk in made.disks.values():
        disk.let_all_through()
    await made.databases.end()
