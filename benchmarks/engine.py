"""The storage engine alone: what the journal costs, in time and bytes, and a slow read the others.

Groups of operations go through `SqliteEngine.apply` in this process; beside them the same inserts
through Python's sqlite3, one transaction per group, with the same settings.
"""

import asyncio
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

from benchmarks.table import milliseconds, p, show
from messagehub.v1.statement_pb2 import Statement, Value
from storage.config import StorageConfig
from storage.core.databases import Databases
from storage.core.operation import Operation, ask
from storage.server import make_databases

GROUP = 64
GROUPS = 200
ROUNDS = 5
READS = 2000
INSERT = "INSERT INTO samples (value) VALUES (?)"
CREATE = "CREATE TABLE samples (id INTEGER PRIMARY KEY, value INTEGER)"
SLOW = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) SELECT max(i) FROM n"
)
SLOW_STEPS = 20_000_000


def operation(query: str, *values: int, service: str = "metrics") -> Operation:
    """One statement, as the hub sends it."""
    return Operation(
        source_service=service,
        correlation_id="benchmark",
        request_id=str(uuid.uuid4()),
        deadline=asyncio.get_running_loop().time() + 60.0,
        deliver=lambda _: None,
        statement=Statement(query=query, parameters=[Value(integer=value) for value in values]),
    )


def plain(file: Path, *, journal: bool, savepoints: bool) -> float:
    """Inserts a second through sqlite3, in groups, each one commit with one fsync."""
    raw = sqlite3.connect(file, isolation_level=None)
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("PRAGMA synchronous = FULL")
    raw.execute("CREATE TABLE samples (id INTEGER PRIMARY KEY, value INTEGER)")
    raw.execute(
        "CREATE TABLE journal (sequence INTEGER PRIMARY KEY, request_id BLOB UNIQUE, "
        "fingerprint BLOB, time_us INTEGER, record BLOB)"
    )
    record = b"x" * 100
    began = time.perf_counter()
    for group in range(GROUPS):
        raw.execute("BEGIN IMMEDIATE")
        for number in range(GROUP):
            if savepoints:
                raw.execute("SAVEPOINT operation")
            raw.execute(INSERT, (group * number,))
            if savepoints:
                raw.execute("RELEASE operation")
        if journal:
            lines = [
                (None, uuid.uuid4().bytes, b"y" * 16, number, record) for number in range(GROUP)
            ]
            raw.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?)", lines)
        raw.execute("COMMIT")
    rate = GROUP * GROUPS / (time.perf_counter() - began)
    raw.close()
    return rate


async def engine(databases: Databases, name: str) -> float:
    """Inserts a second through the whole storage core: queue, group commit, journal, events."""
    database = databases.get(name)
    await ask(database.submit, operation(CREATE))
    requests = [operation(INSERT, number) for number in range(GROUP * GROUPS)]
    waiting = [asyncio.get_running_loop().create_future() for _ in requests]
    began = time.perf_counter()
    for start in range(0, len(requests), GROUP):
        for request, done in zip(requests[start : start + GROUP], waiting[start:], strict=False):
            request.deliver = done.set_result
            database.submit(request)
        await asyncio.gather(*waiting[start : start + GROUP])
    return len(requests) / (time.perf_counter() - began)


async def quick_reads(databases: Databases, name: str, during: Callable[[], bool]) -> list[float]:
    """Seconds of point reads, one after the other, as long as `during` says."""
    seconds = []
    for number in range(READS):
        if not during():
            break
        began = time.perf_counter()
        read = operation("SELECT value FROM samples WHERE id = ?", number)
        await ask(databases.get(name).submit, read)
        seconds.append(time.perf_counter() - began)
    return seconds


async def main() -> None:
    """Measures everything and prints two tables."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".benchmark-") as directory:
        config = StorageConfig(data_dir=directory, readers_max=4)
        databases = make_databases(config, lambda _: None)
        rows: dict[str, list[float]] = {}
        for number in range(ROUNDS):
            for name, rate in (
                (
                    "sqlite3: inserts",
                    plain(_file(directory, 0, number), journal=False, savepoints=False),
                ),
                (
                    "sqlite3: inserts behind savepoints",
                    plain(_file(directory, 1, number), journal=False, savepoints=True),
                ),
                (
                    "sqlite3: savepoints and journal rows",
                    plain(_file(directory, 2, number), journal=True, savepoints=True),
                ),
                ("the engine, journal and events", await engine(databases, f"round{number}_db")),
            ):
                rows.setdefault(name, []).append(rate)
        quiet = await quick_reads(databases, "round0_db", lambda: True)
        slow = [
            asyncio.create_task(ask(databases.get("round0_db").submit, operation(SLOW, SLOW_STEPS)))
            for _ in range(2)
        ]
        await asyncio.sleep(0.05)
        disturbed = await quick_reads(
            databases, "round0_db", lambda: not all(task.done() for task in slow)
        )
        await asyncio.gather(*slow)
        await databases.end()
        data_bytes, journal_bytes = bytes_of(Path(directory) / "round0_db.db")
    base = median(rows["sqlite3: inserts"])
    with_journal = rows["sqlite3: savepoints and journal rows"]
    share = 1 - median(with_journal) / median(rows["sqlite3: inserts behind savepoints"])
    show(
        f"Durable inserts in groups of {GROUP}, one fsync each, {ROUNDS} rounds",
        [
            ("what", "inserts/s (median)", "of plain inserts"),
            *((n, f"{median(r):,.0f}", f"{median(r) / base:.2f}") for n, r in rows.items()),
        ],
    )
    show(
        "What the journal costs; a group costs one commit and one fsync with it and without",
        [
            ("what", "inserts", "journal"),
            ("time, of an insert behind a savepoint", "1.00", f"{share / (1 - share):.2f} more"),
            ("bytes of the file for each insert", f"{data_bytes:.0f}", f"{journal_bytes:.0f}"),
        ],
    )
    show(
        "Point reads of one caller, alone and beside two slow reads of the same database",
        [
            ("what", "reads", "p50", "p99", "p50 / alone"),
            *(
                (
                    name,
                    str(len(s)),
                    milliseconds(p(s, 50)),
                    milliseconds(p(s, 99)),
                    f"{p(s, 50) / p(quiet, 50):.2f}",
                )
                for name, s in (("alone", quiet), ("beside two slow reads", disturbed))
            ),
        ],
    )


def bytes_of(file: Path) -> tuple[float, float]:
    """What one insert takes in the file: of its own table, and of the journal and its indexes."""
    with closing(sqlite3.connect(file)) as raw:
        pages = dict(
            raw.execute(
                "SELECT tbl_name = 'samples', sum(pgsize) FROM dbstat JOIN sqlite_master AS m "
                "ON m.name = dbstat.name GROUP BY 1"
            )
        )
    return pages[1] / (GROUP * GROUPS), pages[0] / (GROUP * GROUPS)


def _file(directory: str, kind: int, number: int) -> Path:
    return Path(directory) / f"plain-{kind}-{number}.sqlite3"


if __name__ == "__main__":
    asyncio.run(main())
