"""SQLite in the caller's own process: no hop, one fsync for each insert."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

from benchmarks.peers.payload import CREATE_SAMPLES, INSERT, VALUE


@asynccontextmanager
async def drive(
    target: dict[str, Any], operation: str, callers: int
) -> AsyncGenerator[Callable[[int], Awaitable[object]], None]:
    """The operation `insert`, in the file of the target; for one caller."""
    if operation != "insert" or callers != 1:
        raise ValueError(f"one caller inserts here, not {callers} that {operation}")
    with closing(sqlite3.connect(target["file"], isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(CREATE_SAMPLES.replace("TABLE", "TABLE IF NOT EXISTS"))

        async def insert(_: int) -> None:
            connection.execute(INSERT, (VALUE,))
            # The call never waits, and whoever counts the time must have a turn.
            await asyncio.sleep(0)

        yield insert
