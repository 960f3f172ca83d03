"""What a flood costs the others: a quiet caller alone, and beside one that sends all it may.

The flood keeps slow reads, quick writes, long writes and streamed queries under way on one
database, all that its share lets in. The quiet caller makes point reads and single inserts, one
after the other, on the same database and on another one. In this process, so one core is the
loop's and SQLite's work competes for the rest.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

from benchmarks.engine import CREATE, INSERT, SLOW, operation
from benchmarks.table import milliseconds, p, show
from messagehub.errors import HubError
from storage.config import StorageConfig
from storage.core.database import Database
from storage.core.operation import ask
from storage.server import make_databases

CALLS = 100
FILL = 1000
SLOW_STEPS = 3_000_000
WRITE_STEPS = 100_000
LONG_WRITE = (
    "INSERT INTO samples (value) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
    "LIMIT ?) SELECT max(i) FROM n"
)
READ = "SELECT value FROM samples WHERE id = ?"


async def flood(database: Database, kind: str) -> None:
    """Sends one kind of operation again and again; refusals are what it is meant to meet."""
    while True:
        with suppress(HubError):
            if kind == "streams":
                request = operation(SLOW, SLOW_STEPS, service="flood")
                async with aclosing(database.pages(request, 100)) as pages:
                    async for _ in pages:
                        pass
            elif kind == "slow reads":
                await ask(database.submit, operation(SLOW, SLOW_STEPS, service="flood"))
            elif kind == "long writes":
                await ask(database.submit, operation(LONG_WRITE, WRITE_STEPS, service="flood"))
            else:
                await ask(database.submit, operation(INSERT, 1, service="flood"))
        await asyncio.sleep(0.001)


@asynccontextmanager
async def flooded(database: Database, kind: str, senders: int) -> AsyncIterator[None]:
    """The flood goes on as long as the context."""
    tasks = [asyncio.create_task(flood(database, kind)) for _ in range(senders)]
    await asyncio.sleep(0.2)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def seconds_of(call: Callable[[int], Awaitable[object]]) -> list[float]:
    """Seconds of calls, one after the other."""
    seconds = []
    for number in range(CALLS):
        began = time.perf_counter()
        await call(number)
        seconds.append(time.perf_counter() - began)
    return seconds


async def quiet(database: Database) -> dict[str, list[float]]:
    """What the quiet caller sees of one database."""
    return {
        "point reads": await seconds_of(
            lambda n: ask(database.submit, operation(READ, n % FILL, service="quiet"))
        ),
        "inserts": await seconds_of(
            lambda n: ask(database.submit, operation(INSERT, n, service="quiet"))
        ),
    }


async def main() -> None:
    """Measures everything and prints one table."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".benchmark-") as directory:
        databases = make_databases(StorageConfig(data_dir=directory), lambda _: None)
        both = {name: databases.get(name) for name in ("flooded_db", "other_db")}
        for database in both.values():
            await ask(database.submit, operation(CREATE))
            for number in range(FILL):
                await ask(database.submit, operation(INSERT, number))
        alone = {name: await quiet(database) for name, database in both.items()}
        rows = []
        for kind, senders in (
            ("slow reads", 50),
            ("streams", 50),
            ("quick writes", 50),
            ("long writes", 20),
        ):
            async with flooded(both["flooded_db"], kind, senders):
                for name, database in both.items():
                    for what, seconds in (await quiet(database)).items():
                        base = alone[name][what]
                        rows.append(
                            (
                                kind,
                                "the same" if name == "flooded_db" else "another",
                                what,
                                milliseconds(p(seconds, 50)),
                                milliseconds(p(seconds, 99)),
                                f"{p(seconds, 50) / p(base, 50):.1f}",
                                f"{p(seconds, 99) / p(base, 99):.1f}",
                            )
                        )
        await databases.end()
    show(
        "A quiet caller beside a flood, compared with itself alone",
        [("flood", "database", "what", "p50", "p99", "p50 / alone", "p99 / alone"), *rows],
    )


if __name__ == "__main__":
    asyncio.run(main())
