"""A storage process on a disk that can be filled, sealed and limited, and what it says of it."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import pytest

from messagehub.errors import HubError
from messagehub.storage.v1 import storage_service_pb2 as wire
from tests.conformance.storage_client import StorageClient, asking, failure_of
from tests.support.calls import Python, rows
from tests.support.ports import free_address
from tests.support.processes import ServerProcess

CONFIG: Final = "[storage]\nreopen_seconds = 0.05\nlog_level = 'warning'\ndrain_seconds = 5.0\n"
CREATE: Final = "CREATE TABLE items (id INTEGER PRIMARY KEY, content TEXT)"
INSERT: Final = "INSERT INTO items VALUES (?, ?)"
ROW_BYTES: Final = 10_000


@asynccontextmanager
async def storage_process(
    directory: Path, data_dir: Path, *prefix: str
) -> AsyncIterator[tuple[ServerProcess, StorageClient]]:
    """Runs `python -m storage` on `data_dir` behind the words of `prefix`, and a client of it."""
    directory.mkdir(exist_ok=True)
    config = directory / "messagehub.toml"
    config.write_text(CONFIG)
    address = free_address()
    arguments = ["--data-dir", str(data_dir), "--listen", address, "--config", str(config)]
    command = [*prefix, sys.executable, "-m", "storage", *arguments]
    process = ServerProcess("storage", command, address, directory / "storage.log")
    process.start()
    try:
        await process.ready()
        client = StorageClient(address)
        try:
            yield process, client
        finally:
            await client.close()
    finally:
        process.kill()


class Ask:
    """Asks one database, in few words."""

    def __init__(self, client: StorageClient, database: str) -> None:
        self._client = client
        self.database = database

    async def outcome(self, query: str, *parameters: Python, request_id: str = "") -> wire.Outcome:
        (outcome,) = await self._client.run(
            asking(query, *parameters, database=self.database, request_id=request_id)
        )
        return outcome

    async def done(self, query: str, *parameters: Python) -> list[tuple[Python, ...]]:
        """Runs what must succeed, and gives its rows."""
        outcome = await self.outcome(query, *parameters)
        assert not outcome.HasField("error"), failure_of(outcome).message
        return rows(outcome.result)

    async def refused(self, query: str, *parameters: Python) -> HubError:
        """Runs what must fail, and gives why."""
        return failure_of(await self.outcome(query, *parameters))

    async def fill(self, rows_max: int = 2000) -> tuple[list[int], HubError]:
        """Inserts until it is refused: what was acknowledged, and why no more."""
        acknowledged: list[int] = []
        while len(acknowledged) < rows_max:
            number = len(acknowledged)
            outcome = await self.outcome(INSERT, number, "x" * ROW_BYTES)
            if outcome.HasField("error"):
                return acknowledged, failure_of(outcome)
            acknowledged.append(number)
        raise AssertionError("it was never refused")

    async def ids(self) -> list[int]:
        return [int(str(row[0])) for row in await self.done("SELECT id FROM items ORDER BY id")]

    async def state(self) -> wire.DatabaseState:
        """How the server says that the database stands."""
        call = self._client.stub.WatchDatabases(
            wire.WatchDatabasesRequest(databases=[self.database])
        )
        response = await call.read()
        call.cancel()
        return response.databases[0]


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """A file system of its own; skips where mounting is not permitted."""
    directory.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"mounting is not permitted: {made.stderr.decode(errors='replace').strip()}")
    try:
        yield directory
    finally:
        subprocess.run([umount, "-l", str(directory)], check=True)


def remount(directory: Path, how: str) -> None:
    """Makes a mounted file system `ro` or `rw`."""
    mount = shutil.which("mount")
    assert mount is not None
    subprocess.run([mount, "-o", f"remount,{how}", str(directory)], check=True)


def limit_files_of(pid: int, size_bytes: int) -> None:
    """From now on a process cannot make a file larger than this (-1 = any)."""
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    soft = resource.RLIM_INFINITY if size_bytes < 0 else size_bytes
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


def strace(*options: str) -> Sequence[str]:
    """The words in front of a command that run it under strace; skips where it is missing."""
    path = shutil.which("strace")
    if path is None:
        pytest.skip("strace is not installed")
    return [path, "-f", "-qq", "--seccomp-bpf", *options]
