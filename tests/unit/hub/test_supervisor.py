"""The supervisor with real processes: what it starts, starts again, stops, and outlives."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

SECONDS_MAX = 30.0
RUN = Path(__file__).with_name("supervised_run.py")


class Run:
    """A supervisor in a process of its own, and the log of its children."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.screen = ""
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, **settings: Any) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(RUN), str(self.directory), json.dumps(settings)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    async def up(self, **settings: Any) -> None:
        """Starts and waits for the screen."""
        await self.start(**settings)
        async with asyncio.timeout(SECONDS_MAX):
            while "messagehub status" not in self.screen:
                self.screen += (await self.process.stdout.readline()).decode()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> tuple[int, str, str]:
        async with asyncio.timeout(SECONDS_MAX):
            output, errors = await self.process.communicate()
        return self.process.returncode, output.decode(), errors.decode()

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(SECONDS_MAX):
            while not condition():  # noqa: ASYNC110 - other processes set no events
                await asyncio.sleep(0.01)

    def log(self) -> list[dict[str, Any]]:
        path = self.directory / "log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def starts(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if (line["what"], line["name"]) == ("start", name)]

    def started_again(self, name: str, before: int) -> bool:
        return len(self.starts(name)) > before

    def stops(self) -> list[str]:
        return [line["name"] for line in self.log() if line["what"] == "stop"]

    def alive(self) -> list[int]:
        return [line["pid"] for line in self.log() if runs(line["pid"])]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest_asyncio.fixture(loop_scope="session")
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    running = Run(tmp_path)
    yield running
    if running.process is not None and running.process.returncode is None:
        running.process.kill()
        await running.process.wait()
    for pid in running.alive():
        os.kill(pid, signal.SIGKILL)


async def test_both_are_started_shown_and_stopped_in_order(run: Run) -> None:
    await run.up(data_dir="d", listen="127.0.0.1:0", config="c.toml", log_level="info")
    [storage], [hub] = run.starts("storage"), run.starts("hub")
    assert storage["flags"] == ["--data-dir", "d", "--config", "c.toml", "--log-level", "info"]
    assert hub["flags"] == [
        *("--data-dir", "d", "--listen", "127.0.0.1:0", "--config", "c.toml"),
        *("--log-level", "info", "--storage", f"127.0.0.1:{storage['pid']}"),
    ]
    assert f"127.0.0.1:{hub['pid']}" in run.screen
    assert f"pid {storage['pid']}" in run.screen
    assert "messagehub sql a_db" in run.screen
    status, _, _ = await run.end()
    assert status == 0
    assert run.stops() == ["hub", "storage"]
    assert run.alive() == []


async def test_ctrl_c_reaches_the_supervisor_alone(run: Run) -> None:
    await run.up()
    os.killpg(run.process.pid, signal.SIGINT)
    assert (await run.ended())[0] == 0
    assert run.stops() == ["hub", "storage"]


@pytest.mark.parametrize("name", ["storage", "hub"])
async def test_what_dies_is_started_again_where_it_was(run: Run, name: str) -> None:
    await run.up()
    address = f"127.0.0.1:{run.starts(name)[0]['pid']}"
    for _ in range(2):
        before = len(run.starts(name))
        os.kill(run.starts(name)[-1]["pid"], signal.SIGKILL)
        await run.until(partial(run.started_again, name, before))
        flags = run.starts(name)[-1]["flags"]
        assert flags[flags.index("--listen") + 1] == address
    assert (await run.end())[0] == 0
    assert run.alive() == []


@pytest.mark.parametrize(("name", "status"), [("storage", 2), ("storage", 1), ("hub", 2)])
async def test_what_does_not_start_ends_everything(run: Run, name: str, status: int) -> None:
    (run.directory / f"{name}.exit").write_text(str(status))
    await run.start()
    code, output, errors = await run.ended()
    assert code == status
    assert f"{name} did not start (exit status {status})" in errors
    assert output == ""
    assert len(run.starts(name)) == 1
    assert run.alive() == []


async def test_a_child_that_keeps_failing_ends_everything(run: Run) -> None:
    await run.up(restarts_max=3)
    (run.directory / "storage.exit").write_text("7")
    os.kill(run.starts("storage")[0]["pid"], signal.SIGKILL)
    code, _, errors = await run.ended()
    assert code == 7
    assert "storage ended (exit status 7) and is not started again" in errors
    assert len(run.starts("storage")) == 4
    assert run.stops() == ["hub"]
    assert run.alive() == []


async def test_a_configuration_that_became_wrong_is_not_tried_again(run: Run) -> None:
    await run.up()
    (run.directory / "hub.exit").write_text("2")
    os.kill(run.starts("hub")[0]["pid"], signal.SIGKILL)
    code, _, _ = await run.ended()
    assert code == 2
    assert len(run.starts("hub")) == 2


async def test_a_child_that_does_not_stop_is_killed(run: Run) -> None:
    (run.directory / "hub.stubborn").touch()
    await run.up(stop_seconds_max=0.2)
    assert (await run.end())[0] == 0
    assert run.stops() == ["storage"]
    assert run.alive() == []


async def test_a_second_signal_does_not_wait(run: Run) -> None:
    (run.directory / "hub.stubborn").touch()
    await run.up(stop_seconds_max=1000.0)
    run.process.send_signal(signal.SIGINT)
    assert (await run.end(signal.SIGTERM))[0] == 0
    assert run.alive() == []


async def test_nothing_outlives_a_killed_supervisor(run: Run) -> None:
    await run.up()
    await run.end(signal.SIGKILL)
    await run.until(lambda: run.alive() == [])
    assert sorted(run.stops()) == ["hub", "storage"]
