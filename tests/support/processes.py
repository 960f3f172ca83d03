"""Real server processes: started, killed, frozen, restarted on the same port, always reaped."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.health import wait_until_serving
from tests.support.ports import free_address

REPOSITORY: Final = Path(__file__).resolve().parents[2]
EXIT_SECONDS_MAX: Final = 15.0
LOG_TAIL_CHARACTERS: Final = 4000


class ServerProcess:
    """One server process with a fixed address and a log file that all its lives append to."""

    def __init__(self, name: str, command: Sequence[str], address: str, log: Path) -> None:
        self.name = name
        self.address = address
        self._command = list(command)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """True from `start` until it was killed, stopped or waited for."""
        return self._process is not None

    def start(self, *, failpoints: str = "") -> None:
        """Starts the process in a process group of its own.

        `failpoints` says where it shall die by itself; see `messagehub.serving.failpoints`.
        """
        assert self._process is None, f"{self.name} already runs"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MESSAGEHUB_")}
        if failpoints:
            environment["MESSAGEHUB_FAILPOINTS"] = failpoints
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._log.parent,
                env=environment,
                start_new_session=True,
            )

    async def ready(self, name: str = "") -> None:
        """Waits until a health name is SERVING; fails with the log when the process ends."""
        waiting = asyncio.create_task(wait_until_serving(self.address, name))
        try:
            while not waiting.done():
                if self._process is None or self._process.poll() is not None:
                    raise AssertionError(f"{self.name} ended:\n{self.log_text()}")
                await asyncio.wait([waiting], timeout=0.1)
            try:
                waiting.result()
            except TimeoutError as failure:
                raise AssertionError(f"{failure}\n{self.log_text()}") from failure
        finally:
            waiting.cancel()

    def kill(self) -> None:
        """Ends the process and all of its children at once (SIGKILL), and reaps it."""
        if self._process is None:
            return
        self._signal_group(signal.SIGCONT)
        self._signal_group(signal.SIGKILL)
        self._process.wait(EXIT_SECONDS_MAX)
        self._process = None

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process alone."""
        os.kill(self.pid, number)

    def freeze(self) -> None:
        """Stops the process where it stands (SIGSTOP); its connections stay open."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets a frozen process go on."""
        self.send(signal.SIGCONT)

    async def stop(self) -> int:
        """Asks the process to end (SIGTERM) and gives its exit status."""
        self.send(signal.SIGTERM)
        return await self.wait()

    async def wait(self) -> int:
        """Waits for the process to end by itself and gives its exit status."""
        assert self._process is not None, f"{self.name} was not started"
        status = await asyncio.to_thread(self._process.wait, EXIT_SECONDS_MAX)
        self._signal_group(signal.SIGKILL)
        self._process = None
        return status

    async def restart(self, *, failpoints: str = "") -> None:
        """Starts the process again on its address and waits until it is ready."""
        self.kill()
        self.start(failpoints=failpoints)
        await self.ready()

    def log_lines(self) -> list[dict[str, Any]]:
        """The log lines that are JSON, in order."""
        lines = self._log.read_text("utf-8", "replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def log_text(self) -> str:
        """The end of the log as it stands."""
        return self.whole_log()[-LOG_TAIL_CHARACTERS:]

    def whole_log(self) -> str:
        """All of the log as it stands."""
        return self._log.read_text("utf-8", "replace")

    def _signal_group(self, number: signal.Signals) -> None:
        assert self._process is not None
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return


class Processes:
    """The processes of one test, below one directory."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "data"
        self._directory = directory
        self._started: list[ServerProcess] = []

    def storage(self, *flags: str, address: str | None = None) -> ServerProcess:
        """Starts `python -m storage`; without `address` on a free one."""
        at = address or free_address()
        arguments = ["--data-dir", str(self.data_dir), "--listen", at, *flags]
        return self._run("storage", [sys.executable, "-m", "storage", *arguments], at)

    def hub(self, storage: str, *flags: str) -> ServerProcess:
        """Starts `python -m hub` for the storage server at an address."""
        at = free_address()
        data_dir = str(self._directory / "hub-data")
        arguments = ["--data-dir", data_dir, "--listen", at, "--storage", storage, *flags]
        return self._run("hub", [sys.executable, "-m", "hub", *arguments], at)

    def up(self, *flags: str, storage_address: str | None = None) -> ServerProcess:
        """Starts `messagehub up`, which supervises both."""
        at = free_address()
        arguments = ["--data-dir", str(self.data_dir), "--listen", at]
        arguments += ["--storage-listen", storage_address or free_address(), *flags]
        return self._run("up", [messagehub_command(), "up", *arguments], at)

    def kill_all(self) -> None:
        """Ends everything that was started here."""
        for process in reversed(self._started):
            process.kill()

    def _run(self, name: str, command: Sequence[str], address: str) -> ServerProcess:
        log = self._directory / f"{name}-{len(self._started)}.log"
        process = ServerProcess(name, command, address, log)
        self._started.append(process)
        process.start()
        return process


def messagehub_command() -> str:
    """The installed command `messagehub`, beside the interpreter that runs the tests."""
    return str(Path(sys.executable).with_name("messagehub"))


async def run_command(*arguments: str, seconds: float = 60.0) -> tuple[int, str, str]:
    """Runs `messagehub …` to its end: exit status, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        messagehub_command(),
        *arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


@asynccontextmanager
async def running_processes(directory: Path) -> AsyncIterator[Processes]:
    """Gives a place to start processes from; none of them outlives the block."""
    processes = Processes(directory)
    try:
        yield processes
    finally:
        processes.kill_all()
