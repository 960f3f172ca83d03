"""What the README tells a person to type, typed at real processes."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.eventually import eventually
from tests.support.health import wait_for_status
from tests.support.ports import free_address
from tests.support.processes import (
    Processes,
    ServerProcess,
    messagehub_command,
    run_command,
    running_processes,
)

SECONDS_MAX = 30


class Platform:
    """`messagehub up`, and the addresses of what it supervises."""

    def __init__(self, processes: Processes) -> None:
        self.storage_address = free_address()
        self.up: ServerProcess = processes.up(storage_address=self.storage_address)

    async def run(self, *arguments: str) -> str:
        """Runs a client command, which must succeed, and gives what it prints."""
        status, output, errors = await run_command(*arguments, "--target", self.up.address)
        assert status == 0, f"{arguments}: {errors}"
        return output

    def started(self) -> dict[str, int]:
        """What the screen says runs where: name to process id."""
        found = {}
        for line in self.up.whole_log().splitlines():
            words = line.split()
            if len(words) == 4 and words[2] == "pid":
                found[words[0]] = int(words[3])
        return found

    def restarted(self, name: str) -> set[int]:
        """The process ids that the log says a child had after its first."""
        lines = [line for line in self.up.log_lines() if line.get("child") == name]
        return {line["pid"] for line in lines if "pid" in line}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    async with running_processes(tmp_path_factory.mktemp("up")) as processes:
        one = Platform(processes)
        await one.up.ready()
        yield one
        assert await one.up.stop() == 0


async def test_health_and_status(platform: Platform) -> None:
    await platform.run("health")
    await platform.run("health", "storage.character_db")
    status = json.loads(await platform.run("status", "--json"))
    assert status["ready"]
    assert {route["database"] for route in status["routes"]} >= {"character_db", "catalog_db"}
    assert "character_db" in await platform.run("status")


async def test_health_of_what_is_not_there_fails(platform: Platform) -> None:
    status, _, _ = await run_command(
        "health", "storage.nowhere_db", "--target", platform.up.address
    )
    assert status == 1
    status, _, errors = await run_command("health", "--target", free_address())
    assert status == 1
    assert "Traceback" not in errors


async def test_sql_writes_and_reads(platform: Platform, table: str) -> None:
    await platform.run("sql", "character_db", f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, n)")
    await platform.run("sql", "character_db", f"INSERT INTO {table} (n) VALUES ('Ada ✓'), (NULL)")
    lines = await platform.run("sql", "character_db", f"SELECT * FROM {table}", "--json")
    assert [json.loads(line) for line in lines.splitlines()] == [
        {"id": 1, "n": "Ada ✓"},
        {"id": 2, "n": None},
    ]


async def test_sql_that_fails_says_why_in_a_line(platform: Platform) -> None:
    status, output, errors = await run_command(
        "sql", "character_db", "SELECT * FROM nowhere", "--target", platform.up.address
    )
    assert status == 1
    assert output == ""
    assert "INVALID_STATEMENT" in errors
    assert "nowhere" in errors
    assert "Traceback" not in errors


async def test_events_prints_what_sql_writes(platform: Platform, table: str) -> None:
    process = await asyncio.create_subprocess_exec(
        messagehub_command(),
        *("events", "--json", "--database", "campaign_db", "--target", platform.up.address),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SECONDS_MAX):
            # Nothing says when the other terminal has begun to listen, so write until it heard.
            heard = asyncio.ensure_future(process.stdout.readline())
            number = 0
            while not heard.done():
                await platform.run("sql", "campaign_db", f"CREATE TABLE {table}_{number} (n)")
                number += 1
                await asyncio.wait([heard], timeout=0.2)
            event = json.loads(heard.result())
        assert event["type"] == "storage.operation_completed"
        assert event["subject"] == "campaign_db"
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
        assert process.returncode == 0
        assert b"Traceback" not in errors
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("name", ["storage", "hub"])
async def test_what_dies_is_started_again(platform: Platform, table: str, name: str) -> None:
    await platform.run("sql", "auth_db", f"CREATE TABLE {table} (n)")
    await kill_child(platform, name)
    await platform.up.ready()
    await platform.up.ready("storage.auth_db")
    assert await platform.run("sql", "auth_db", f"SELECT count(*) AS n FROM {table}", "--json")


async def kill_child(platform: Platform, name: str) -> None:
    before = platform.restarted(name)
    os.kill(max(before or {platform.started()[name]}), signal.SIGKILL)
    await eventually(lambda: bool(platform.restarted(name) - before))


async def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    async with running_processes(tmp_path) as processes:
        platform = Platform(processes)
        await platform.up.ready()
        platform.up.send(signal.SIGINT)
        assert await platform.up.wait() == 0
        for address in (platform.up.address, platform.storage_address):
            await wait_for_status(address, "", None)


async def test_children_do_not_outlive_up_that_was_killed(tmp_path: Path) -> None:
    async with running_processes(tmp_path) as processes:
        platform = Platform(processes)
        await platform.up.ready()
        platform.up.kill()
        for address in (platform.up.address, platform.storage_address):
            await wait_for_status(address, "", None)


@pytest.mark.parametrize("command", ["up", "hub", "storage"])
async def test_a_wrong_setting_is_refused_with_its_place(tmp_path: Path, command: str) -> None:
    file = tmp_path / "settings.toml"
    table = "storage" if command == "storage" else "hub"
    file.write_text(f"[{table}]\nlisten_on = 'x'\n", "utf-8")
    arguments: list[Any] = [command, "--config", str(file), "--data-dir", str(tmp_path / "data")]
    arguments += ["--listen", free_address()]
    status, _, errors = await run_command(*arguments, seconds=SECONDS_MAX)
    assert status == 2
    assert str(file) in errors
    assert "listen_on" in errors
    assert "Traceback" not in errors


async def test_a_port_that_is_taken_is_said(platform: Platform, tmp_path: Path) -> None:
    status, _, errors = await run_command(
        *("storage", "--listen", platform.up.address, "--data-dir", str(tmp_path)),
        seconds=SECONDS_MAX,
    )
    assert status == 1
    assert platform.up.address in errors
    assert "Traceback" not in errors
