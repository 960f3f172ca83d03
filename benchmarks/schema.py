"""Schema updates: what coordination costs, beside the same scripts in plain sqlite3.

Five databases in one call, with empty scripts and with a script that adds a column, fills it and
indexes it over many rows. Plain sqlite3 runs the same scripts one database after the other, each in
a transaction with the same durability. While the large update runs, one writer for each database
goes on: the longest write is what the update makes others wait.
"""

import asyncio
import contextlib
import sqlite3
import tempfile
import time
import uuid
from pathlib import Path
from statistics import median

import grpc

from benchmarks.bench_servers import hub_and_storage
from benchmarks.table import milliseconds, show
from messagehub.v1 import (
    schema_pb2,
    schema_service_pb2,
    schema_service_pb2_grpc,
    statement_pb2,
    storage_service_pb2_grpc,
)
from messagehub.v1 import storage_service_pb2 as storage

SERVICE = "metrics"
DATABASES = tuple(f"{name}_db" for name in ("auth", "campaign", "catalog", "character", "metrics"))
ROWS = 100_000
ROUNDS = 7
CALL_SECONDS = 120.0
CREATE = f"""
CREATE TABLE samples (id INTEGER PRIMARY KEY, name TEXT NOT NULL, value INTEGER NOT NULL);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
INSERT INTO samples SELECT i, 'sample ' || i, i FROM n;
"""


def work(number: int) -> str:
    """A script over every row."""
    return (
        f"ALTER TABLE samples ADD COLUMN c{number} INTEGER;"
        f"UPDATE samples SET c{number} = value * 2;"
        f"CREATE INDEX i{number} ON samples (c{number});"
    )


class Hub:
    """Updates all five through a hub."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._schemas = schema_service_pb2_grpc.SchemaServiceStub(channel)
        self._storage = storage_service_pb2_grpc.StorageServiceStub(channel)
        self._version = 0

    async def update(self, script: str) -> float:
        """Gives the seconds that it took."""
        self._version += 1
        request = schema_service_pb2.UpdateSchemaRequest(
            source_service=SERVICE,
            request_id=str(uuid.uuid4()),
            updates=[
                schema_pb2.SchemaUpdate(
                    database=database, version=f"{self._version}.0.0", script=script
                )
                for database in DATABASES
            ],
        )
        began = time.perf_counter()
        await self._schemas.UpdateSchema(request, timeout=CALL_SECONDS)
        return time.perf_counter() - began

    async def write(self, database: str, seconds: list[float]) -> None:
        """Writes until it is cancelled."""
        while True:
            statement = statement_pb2.Statement(query="UPDATE samples SET value = 0 WHERE id = 1")
            began = time.perf_counter()
            await self._storage.Execute(
                storage.ExecuteRequest(
                    source_service=SERVICE,
                    database=database,
                    request_id=str(uuid.uuid4()),
                    statement=statement,
                ),
                timeout=CALL_SECONDS,
            )
            seconds.append(time.perf_counter() - began)


class Plain:
    """Updates five files with sqlite3 alone."""

    def __init__(self, directory: Path) -> None:
        self._files = [
            sqlite3.connect(directory / f"{name}.db", isolation_level=None) for name in DATABASES
        ]
        for file in self._files:
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("PRAGMA synchronous = FULL")

    def update(self, script: str) -> float:
        """Gives the seconds that it took."""
        began = time.perf_counter()
        for number, file in enumerate(self._files):
            file.executescript(f"BEGIN IMMEDIATE; PRAGMA user_version = {number}; {script} COMMIT;")
        return time.perf_counter() - began


async def measure() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as directory:
        plain = Plain(Path(directory))
        async with (
            hub_and_storage() as running,
            grpc.aio.insecure_channel(running.address) as channel,
        ):
            hub = Hub(channel)
            await hub.update("")  # connections are opened, statements compiled
            empty = [(await hub.update(""), plain.update("")) for _ in range(ROUNDS)]
            await hub.update(CREATE)
            plain.update(CREATE)
            large = [(await hub.update(work(n)), plain.update(work(n))) for n in range(ROUNDS)]
            waits: list[float] = []
            writers = [asyncio.create_task(hub.write(name, waits)) for name in DATABASES]
            beside = await hub.update(work(ROUNDS))
            for writer in writers:
                writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*writers)
    rows = [["five databases", "hub", "plain sqlite3", "ratio", "more by"]]
    for name, pairs in (("empty scripts", empty), (f"scripts over {ROWS:,} rows each", large)):
        ours, theirs = (median(one) for one in zip(*pairs, strict=True))
        rows.append(
            [
                name,
                milliseconds(ours),
                milliseconds(theirs),
                f"{ours / theirs:.2f}",
                milliseconds(ours - theirs),
            ]
        )
    show("An update of five databases in one transaction", rows)
    print(
        f"\nWhile one took {milliseconds(beside)}, {len(waits)} writes were done; the longest took "
        f"{milliseconds(max(waits))}."
    )


if __name__ == "__main__":
    asyncio.run(measure())
