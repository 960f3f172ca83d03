"""Callers that die in the middle of their calls leave a line in the log, never a trace."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.processes import REPOSITORY, ServerProcess, running_processes

KILLS: Final = 12
CALLS: Final = 100
# Calls that are refused, more of them than are answered at once, until the process is killed.
CALLER: Final = f"""
import asyncio, sys
import grpc
from messagehub.v1.storage_service_pb2_grpc import StorageServiceStub
from tests.support.calls import execute_request, query_request

async def ask(call):
    try:
        await call
    except grpc.aio.AioRpcError:
        pass

async def main():
    async with grpc.aio.insecure_channel(sys.argv[1]) as channel:
        stub = StorageServiceStub(channel)
        while True:
            request = execute_request("SELECT nonsense /* {"x" * 200} */")
            await asyncio.gather(
                *(ask(stub.Execute(request, timeout=0.01 + n / 1000)) for n in range({CALLS}))
            )
            print("round", flush=True)

asyncio.run(main())
"""


async def call_and_die(hub: ServerProcess) -> None:
    """Calls are under way when the hub stands still, and nobody waits for them when it goes on."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CALLER, hub.address, cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline()
    await asyncio.sleep(0.02)
    hub.freeze()
    process.kill()
    await process.wait()
    hub.thaw()


async def test_a_caller_that_is_killed_leaves_no_trace(tmp_path: Path) -> None:
    async with running_processes(tmp_path) as processes:
        storage = processes.storage()
        hub = processes.hub(storage.address)
        await hub.ready()
        for _ in range(KILLS):
            await call_and_die(hub)
        assert await hub.stop() == 0
        refused = [line for line in hub.log_lines() if line["message"] == "call refused"]
        assert len(refused) >= CALLS
        for server in (hub, storage):
            check(server)


def check(server: ServerProcess) -> None:
    """Every line is one of ours, and none has the trace of an exception."""
    lines = server.whole_log().splitlines()
    assert [line for line in lines if not line.startswith("{")] == []
    assert [line for line in server.log_lines() if "exception" in line] == []
