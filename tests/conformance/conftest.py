"""Gives every test of the suite a fresh place of every engine."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from storage.core.engine import Engine
from tests.conformance.engines import PLACES, Place
from tests.conformance.operations import CREATE, done


@pytest_asyncio.fixture(params=PLACES, ids=lambda place: place.name, loop_scope="session")
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    # A name that means something else in a URI.
    fresh: Any = request.param(tmp_path / "place #1 %41?")
    yield fresh
    await fresh.close()


@pytest_asyncio.fixture(loop_scope="session")
async def engine(place: Place) -> Engine:
    """An open engine with an empty table `items`; its journal stands at 1."""
    opened = await place.open()
    await done(opened, CREATE)
    return opened
