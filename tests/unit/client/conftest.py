"""A fake hub and a client of it for each test."""

from collections.abc import AsyncIterator

import pytest_asyncio

from messagehub.client import Hub
from messagehub.retries import Retries
from tests.unit.client.fake_hub import FakeHub


class Waits:
    """Takes the place of sleeping: remembers how long one would have waited."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest_asyncio.fixture(loop_scope="session")
async def fake() -> AsyncIterator[FakeHub]:
    async with FakeHub.running() as hub:
        yield hub


@pytest_asyncio.fixture
async def waits() -> Waits:
    return Waits()


@pytest_asyncio.fixture(loop_scope="session")
async def hub(fake: FakeHub, waits: Waits) -> AsyncIterator[Hub]:
    retries = Retries(random=lambda: 1.0, sleep=waits)
    async with Hub(fake.address, service="character", retries=retries, timeout=20.0) as client:
        yield client
