"""`python -m hub`: what a user sees when it starts, ends, or cannot start."""

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager

from hub.config import HubConfig
from hub.server import HubServer
from messagehub.serving.health import READY
from tests.support.health import NOT_SERVING, wait_for_status
from tests.support.ports import free_address

EXIT_SECONDS_MAX = 20.0


@asynccontextmanager
async def hub_process(directory, *arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MESSAGEHUB_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hub",
        *arguments,
        cwd=directory,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ended(process):
    async with asyncio.timeout(EXIT_SECONDS_MAX):
        output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode().splitlines()


async def test_a_wrong_setting_is_one_line_with_its_place(tmp_path):
    (tmp_path / "messagehub.toml").write_text("[hub]\nlissten = 'x:1'\n")
    async with hub_process(tmp_path) as process:
        status, output, errors = await ended(process)
    assert status == 2
    assert output == ""
    (line,) = errors
    assert line.startswith("messagehub hub: messagehub.toml: [hub] lissten: there is no setting")
    assert line.endswith("did you mean listen?")


async def test_a_wrong_flag_is_refused_with_its_name(tmp_path):
    async with hub_process(tmp_path, "--log-level", "loud") as process:
        status, _, errors = await ended(process)
    assert status == 2
    assert len(errors) == 1
    assert "--log-level" in errors[0]


async def test_an_address_in_use_is_one_line(tmp_path):
    data_dir = str(tmp_path / "other")
    hub = HubServer(HubConfig(listen="127.0.0.1:0", storage=free_address(), data_dir=data_dir))
    await hub.start()
    try:
        async with hub_process(tmp_path, "--listen", hub.address) as process:
            status, _, errors = await ended(process)
    finally:
        await hub.stop()
    assert status == 1
    told = [line for line in errors if line.startswith("messagehub hub: ")]
    assert told == [f"messagehub hub: cannot listen on {hub.address}: is the address in use?"]


async def test_a_data_directory_of_another_hub_is_one_line(tmp_path):
    data_dir = str(tmp_path / "shared")
    hub = HubServer(HubConfig(listen="127.0.0.1:0", storage=free_address(), data_dir=data_dir))
    await hub.start()
    try:
        flags = ["--data-dir", data_dir, "--listen", free_address(), "--storage", free_address()]
        async with hub_process(tmp_path, *flags) as process:
            status, _, errors = await ended(process)
    finally:
        await hub.stop()
    assert status == 1
    (told,) = [line for line in errors if line.startswith("messagehub hub: ")]
    assert told.startswith(f"messagehub hub: the data directory {data_dir} belongs to another hub")
    assert "--data-dir" in told


async def test_it_serves_until_it_is_told_to_stop(tmp_path):
    address = free_address()
    flags = ["--data-dir", "data", "--listen", address, "--storage", free_address()]
    async with hub_process(tmp_path, *flags) as process:
        await wait_for_status(address, READY, NOT_SERVING)
        process.send_signal(signal.SIGTERM)
        status, _, errors = await ended(process)
    assert status == 0
    lines = [json.loads(line) for line in errors if line.startswith("{")]
    messages = [line["message"] for line in lines]
    assert messages[0] == "serving"
    assert lines[0]["address"] == address
    assert messages[-2:] == ["stopping", "stopped"]
