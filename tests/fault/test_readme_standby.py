"""The README's lines for a standby do what it says."""

import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from messagehub.client import Hub
from tests.support.ports import free_address
from tests.support.processes import REPOSITORY, ServerProcess, messagehub_command

SERVERS = ("messagehub storage ", "messagehub hub ")
SECONDS_MAX = 60.0


def lines(directory: Path) -> tuple[list[str], str]:
    """The lines, with addresses that are free and a directory of the test's; the hub's address."""
    text = (REPOSITORY / "README.md").read_text("utf-8")
    found = [line for line in text.splitlines() if line.startswith(SERVERS)]
    assert len(found) == 3
    whole = "\n".join(found).replace(".messagehub", str(directory))
    for address in sorted(set(re.findall(r"127\.0\.0\.1:\d+", whole))):
        whole = whole.replace(address, free_address())
    hub = free_address()
    *storages, last = whole.splitlines()
    return [*storages, f"{last} --listen {hub}"], hub


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[tuple[list[ServerProcess], str]]:
    commands, hub = lines(directory / "data")
    processes = [
        ServerProcess(
            f"line-{number}",
            [messagehub_command(), *shlex.split(command)[1:]],
            hub,
            directory / f"{number}.log",
        )
        for number, command in enumerate(commands)
    ]
    try:
        for process in processes:
            process.start()
        await processes[-1].ready("storage.character_db")
        yield processes, hub
    finally:
        for process in processes:
            process.kill()


async def test_the_other_one_takes_over(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as (processes, address),
        Hub(address, service="character", timeout=SECONDS_MAX) as hub,
    ):
        await hub.execute("CREATE TABLE heroes (name)")
        for victim in processes[:2]:
            await hub.execute("INSERT INTO heroes VALUES (?)", [victim.name])
            victim.kill()
            await hub.execute("INSERT INTO heroes VALUES (?)", ["behind it"])
            victim.start()
            await processes[-1].ready("storage.character_db")
        names = [row[0] async for row in hub.query("SELECT name FROM heroes ORDER BY rowid")]
    assert names == ["line-0", "behind it", "line-1", "behind it"]
