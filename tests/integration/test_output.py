"""Commands whose output nobody takes, and data that would control a terminal."""

import asyncio
import os
import re
import subprocess
from typing import Any, Final

import pytest

from tests.support.calls import run_async
from tests.support.processes import messagehub_command
from tests.support.servers import Servers

SECONDS_MAX: Final = 60.0
READER_LEFT: Final = 1
COMMANDS: Final[tuple[tuple[str, ...], ...]] = (
    ("--help",),
    ("--version",),
    ("sql", "--help"),
    ("sql", "auth_db", "SELECT 1"),
    ("sql", "auth_db", "SELECT 1", "--json"),
    ("sql", "auth_db", "CREATE TABLE IF NOT EXISTS heroes (name)"),
    ("events", "--database", "auth_db", "--from", "earliest"),
    ("events", "--database", "auth_db", "--from", "earliest", "--json"),
    ("status",),
    ("status", "--json"),
    ("status", "--watch"),
    ("health",),
    ("health", "--json"),
    ("submit", "auth_db", "DELETE FROM heroes"),
    ("operations",),
    ("operations", "list", "--json"),
    ("subscriptions",),
    ("storage", "--help"),
    ("hub", "--help"),
    ("up", "--help"),
)
EVERY_COMMAND: Final = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
WITH_TARGET: Final = {"sql", "events", "status", "health", "submit", "operations", "subscriptions"}


def command_line(words: tuple[str, ...], servers: Servers) -> list[str]:
    line = [messagehub_command(), *words]
    if words[0] in WITH_TARGET and "--help" not in words:
        line += ["--target", servers.hub.address]
    return line


async def run_into(output: int, line: list[str]) -> tuple[int, str]:
    """Runs a command whose standard output is a descriptor: exit status and standard error."""
    process = await asyncio.create_subprocess_exec(
        *line, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(SECONDS_MAX):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, errors.decode()


@pytest.fixture
async def heroes(storage_stub: Any) -> None:
    await run_async(storage_stub, "CREATE TABLE IF NOT EXISTS heroes (name)", service="auth")


@EVERY_COMMAND
async def test_a_full_output_is_an_error_of_one_line(
    servers: Servers, heroes: None, words: tuple[str, ...]
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        status, errors = await run_into(full, command_line(words, servers))
    finally:
        os.close(full)
    assert errors.lower() == "error: standard output cannot be written: no space left on device\n"
    assert status == 1


@EVERY_COMMAND
async def test_a_reader_that_left_ends_a_command_silently(
    servers: Servers, heroes: None, words: tuple[str, ...]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        status, errors = await run_into(writing, command_line(words, servers))
    finally:
        os.close(writing)
    assert (status, errors) == (READER_LEFT, "")


@pytest.mark.parametrize(
    "words", [words for words in COMMANDS if words[0] in WITH_TARGET], ids=" ".join
)
async def test_an_output_that_is_closed_is_an_error_of_one_line(
    servers: Servers, words: tuple[str, ...]
) -> None:
    line = ["sh", "-c", 'exec "$@" >&-', "sh", *command_line(words, servers)]
    status, errors = await run_into(subprocess.DEVNULL, line)
    assert errors.startswith("Error: standard output is closed")
    assert (status, len(errors.splitlines())) == (1, 1)


HOSTILE: Final = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202eevil"
NOT_FOR_TERMINALS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


async def output_of(servers: Servers, *words: str, service: str = "auth") -> tuple[str, str]:
    process = await asyncio.create_subprocess_exec(
        *command_line((*words, "--service", service), servers),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS_MAX):
        output, errors = await process.communicate()
    return output.decode(), errors.decode()


@pytest.mark.parametrize("as_json", [(), ("--json",)])
async def test_data_arrive_in_a_pipe_whole_and_without_control_characters(
    servers: Servers, storage_stub: Any, as_json: tuple[str, ...]
) -> None:
    name = HOSTILE.replace("\x00", "")
    await run_async(storage_stub, "CREATE TABLE IF NOT EXISTS names (name)", service="auth")
    await run_async(storage_stub, "DELETE FROM names", service="auth")
    await run_async(storage_stub, "INSERT INTO names VALUES (?)", name, service="auth")
    query = f'SELECT name AS "{name}" FROM names'
    output, _ = await output_of(servers, "sql", "auth_db", query, *as_json)
    assert not NOT_FOR_TERMINALS.search(output)
    spelled = r"\u001b]0;owned\u0007" if as_json else r"\x1b]0;owned\x07"
    assert output.count(spelled) == 2, "the name of the column, and the value"


async def test_neither_events_nor_errors_nor_subscriptions_control_a_terminal(
    servers: Servers, storage_stub: Any
) -> None:
    query = f'SELECT nonsense /* {HOSTILE} */ FROM "{HOSTILE}"'
    output, errors = await output_of(servers, "sql", "auth_db", query)
    assert output == ""
    assert "INVALID_STATEMENT" in errors
    assert not NOT_FOR_TERMINALS.search(errors)
    _, errors = await output_of(servers, "sql", HOSTILE, "SELECT 1", service=HOSTILE)
    assert errors.startswith("error: INVALID_ROUTE")
    assert not NOT_FOR_TERMINALS.search(errors)
