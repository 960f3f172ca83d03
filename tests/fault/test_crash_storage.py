"""kill -9 at random moments under writers that never give up, and nothing is lost or done twice.

After each kill what is left on disk is copied, opened, and compared with what the writers know:

- every acknowledged write is there, with the outcome that was told,
- every write is there once, and the journal and the data are equal row for row,
- sequences have no gap, and `PRAGMA integrity_check` finds nothing.
"""

import asyncio
import json
import os
import random
import shutil
import sqlite3
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from messagehub.storage.v1.storage_service_pb2 import JournalRecord
from tests.fault.crash_clients import DATABASES, Hub, Write, Writer
from tests.support.calls import rows
from tests.support.processes import ServerProcess, running_processes

WRITERS = 6
LIFE_SECONDS_MAX = 0.5
GUARD_SECONDS = 60.0
# The upkeep runs all the time, so that databases close and open again under the writers.
CONFIG = """[storage]
log_level = "warning"
trim_every_seconds = 0.02
idle_close_seconds = 0.005
"""


async def crash_often(directory: Path, rounds: int, seed: int) -> None:
    print(f"SOAK_SEED={seed}")
    dice = random.Random(seed)
    async with running_processes(directory) as processes:
        config = directory / "messagehub.toml"
        config.write_text(CONFIG)
        process = processes.storage("--config", str(config))
        hubs = [Hub(process.address) for _ in range(2)]
        writers = [
            Writer(f"w{n}", DATABASES[n % 2], hubs, random.Random(dice.random()))
            for n in range(WRITERS)
        ]
        stop = asyncio.Event()
        await process.ready()
        await hubs[0].prepare()
        running = [asyncio.ensure_future(writer.run(stop)) for writer in writers]
        try:
            for _ in range(rounds):
                await live_and_die(process, writers, dice)
                check(processes.data_dir, directory / "left", writers)
                process.start()
            await life_begins(writers)
        finally:
            stop.set()
            await asyncio.gather(*running, return_exceptions=True)
            for hub in hubs:
                await hub.close()
        for task in running:
            task.result()
        assert await process.stop() == 0
    check(processes.data_dir, directory / "left", writers)
    print(f"{rounds} kills, {sum(writer.acknowledged for writer in writers)} writes acknowledged")


async def life_begins(writers: list[Writer]) -> None:
    """Waits until writes are acknowledged again."""
    before = sum(writer.acknowledged for writer in writers)
    async with asyncio.timeout(GUARD_SECONDS):
        while sum(writer.acknowledged for writer in writers) < before + WRITERS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def live_and_die(process: ServerProcess, writers: list[Writer], dice: random.Random) -> None:
    # Sometimes it dies while it starts, mostly under load.
    if dice.random() < 0.85:
        await life_begins(writers)
    await asyncio.sleep(dice.uniform(0.0, LIFE_SECONDS_MAX))
    process.kill()


# What is left on disk.


def check(data_dir: Path, scratch: Path, writers: list[Writer]) -> None:
    """Opens a copy of what is left, and compares."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(data_dir, scratch)
    for database in DATABASES:
        known = {
            write.request_id: write
            for writer in writers
            if writer.database == database
            for write in writer.writes
        }
        raw = sqlite3.connect(scratch / f"{database}.db")
        try:
            Left(raw, known).check()
        finally:
            raw.close()


class Left:
    """One database as it was left, beside what its writers know of it."""

    def __init__(self, raw: sqlite3.Connection, known: dict[str, Write]) -> None:
        self.raw = raw
        self.known = known
        self.entries: dict[str, tuple[int, JournalRecord]] = {}

    def check(self) -> None:
        assert self.raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        self.read_journal()
        self.check_answers()
        self.check_data()
        self.check_order()

    def read_journal(self) -> None:
        """Sequences have no gap; no request id is there twice."""
        found = self.raw.execute(
            "SELECT sequence, request_id, record FROM _messagehub_journal ORDER BY sequence"
        ).fetchall()
        assert [row[0] for row in found] == list(range(1, len(found) + 1))
        for sequence, request_id, content in found:
            if request_id is not None:
                name = str(uuid.UUID(bytes=request_id))
                assert name not in self.entries, "one request id, one entry"
                self.entries[name] = sequence, JournalRecord.FromString(content)
        assert self.entries.keys() <= self.known.keys()

    def check_answers(self) -> None:
        """What was acknowledged is there, as it was told."""
        for request_id, write in self.known.items():
            for told in write.told:
                assert request_id in self.entries, f"lost: {describe(write)}"
                sequence, record = self.entries[request_id]
                assert told.sequence == sequence
                if told.HasField("error"):
                    assert record.error == told.error
                else:
                    assert record.result == told.result
            fresh = [told for told in write.told if not told.replayed]
            assert len(fresh) <= 1, f"done twice: {describe(write)}"

    def check_data(self) -> None:
        """The journal and the data are equal, row for row."""
        ledger: dict[tuple[str, int], str] = {}
        totals: dict[str, list[Any]] = defaultdict(list)
        for request_id, (_, record) in self.entries.items():
            write = self.known[request_id]
            assert record.HasField("error") == (write.kind == "fail")
            if write.kind == "insert":
                ledger[write.writer, write.n] = write.content
            elif write.kind == "count":
                totals[write.writer] += [row[0] for row in rows(record.result)]
            elif write.kind == "event":
                assert record.event.custom == write.content.encode()
        kept = self.raw.execute("SELECT writer, n, content FROM ledger").fetchall()
        assert {(writer, n): content for writer, n, content in kept} == ledger
        assert len(kept) == len(ledger)
        counted = dict(self.raw.execute("SELECT writer, total FROM counters").fetchall())
        assert counted == {writer: len(given) for writer, given in totals.items()}
        for given in totals.values():
            assert given == list(range(1, len(given) + 1)), "each count was given once"

    def check_order(self) -> None:
        """Each writer did one thing after the other, so its sequences grow."""
        by_writer: dict[str, list[int]] = defaultdict(list)
        for request_id, write in self.known.items():
            if request_id in self.entries:
                by_writer[write.writer].append(self.entries[request_id][0])
        for sequences in by_writer.values():
            assert sequences == sorted(sequences)


def describe(write: Write) -> str:
    return json.dumps({"writer": write.writer, "n": write.n, "kind": write.kind})


def soak_seed() -> int:
    """The seed of SOAK_SEED, which repeats a run as far as the machine does, or a new one."""
    return int(os.environ.get("SOAK_SEED") or int.from_bytes(os.urandom(4), "big"))


async def test_a_few_kills_lose_nothing(tmp_path: Path) -> None:
    await crash_often(tmp_path, rounds=4, seed=soak_seed())


@pytest.mark.soak
async def test_hundreds_of_kills_lose_nothing(tmp_path: Path) -> None:
    await crash_often(tmp_path, int(os.environ.get("SOAK_ROUNDS") or 300), seed=soak_seed())
