"""The README's commands and programs do what the README says, in its order."""

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.support.processes import REPOSITORY, ServerProcess, running_processes

README = REPOSITORY / "README.md"
DEFAULT_HUB = "127.0.0.1:50051"
SECONDS_MAX = 60
# These run until Ctrl-C; they must have printed something by then.
ENDLESS = ("messagehub events",)
# Another test is about these, or a person.
LEFT_OUT = (
    "make ",
    "messagehub up",
    "messagehub adopt",
    "messagehub hub",
    "messagehub storage",
    "pip ",
)


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )


def shell_commands() -> list[str]:
    # The drill loses data; tests/fault/test_readme_backup.py runs it where there are none to lose.
    safe = (block for block in blocks("sh") if "backup create" not in block)
    text = "\n".join(safe).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", *LEFT_OUT))]


@pytest_asyncio.fixture(loop_scope="session")
async def up(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with running_processes(tmp_path) as processes:
        process = processes.up()
        await process.ready()
        yield process


def environment(address: str) -> dict[str, str]:
    here = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
        "MESSAGEHUB_TARGET": address,
    }


async def run(arguments: list[str], address: str) -> str:
    """Runs a program to its end, which must be a good one, and gives its output."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(address),
        cwd=REPOSITORY,
    )
    try:
        async with asyncio.timeout(SECONDS_MAX):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{arguments}: {errors.decode()}"
    return output.decode()


async def first_line(arguments: list[str], address: str) -> str:
    """Runs a program until it has printed a line."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(address),
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SECONDS_MAX):
            return (await process.stdout.readline()).decode()
    finally:
        process.kill()
        await process.wait()


async def test_everything_that_is_shown_works(up: ServerProcess) -> None:
    commands = [line.replace(DEFAULT_HUB, up.address) for line in shell_commands()]
    assert any(line.startswith("messagehub sql") for line in commands)
    assert any("buf curl" in line for line in commands)
    programs = [text for text in blocks("python") if "import" in text]
    assert len(programs) >= 2

    typed = [line for line in commands if line.startswith("messagehub ")]
    for line in typed:
        show = first_line if line.startswith(ENDLESS) else run
        assert await show(shlex.split(line), up.address), line
    for text in programs:
        program = text.replace(DEFAULT_HUB, up.address)
        assert await run([sys.executable, "-W", "error", "-c", program], up.address), text
    for line in commands:
        if line not in typed and "buf curl" in line:
            assert await run(shlex.split(line), up.address), line


async def test_the_stub_alone_writes_and_prints_its_event(up: ServerProcess) -> None:
    await run(["messagehub", "sql", "character_db", "CREATE TABLE heroes (name)"], up.address)
    (program,) = [text for text in blocks("python") if "pb2_grpc" in text]
    program = program.replace(DEFAULT_HUB, up.address)
    output = await run([sys.executable, "-W", "error", "-c", program], up.address)
    assert "character_db" in output
    assert "storage.operation_completed" in output
