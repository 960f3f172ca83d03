"""`messagehub up`: one storage server and one hub, kept running together.

The supervisor serves nothing and opens no gRPC channel: gRPC and child processes do not mix well
in one process. It learns where a child serves from the child itself (`messagehub.serving.
supervision`), and whether the hub is ready from a short-lived `messagehub status`.
"""

import asyncio
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from messagehub.serving.supervision import DESCRIPTOR_VARIABLE

CONFIGURATION_REFUSED: Final = 2
FAILED: Final = 1
DEFAULT_TARGET: Final = "127.0.0.1:50051"
WILDCARDS: Final = ("0.0.0.0", "[::]")  # noqa: S104 - compared with, not listened on

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Programs:
    """How the programs are started; a test puts others in their places.

    `-P`: a directory `hub` or `storage` where the user happens to stand is not meant.
    """

    storage: Sequence[str] = (sys.executable, "-P", "-m", "storage")
    hub: Sequence[str] = (sys.executable, "-P", "-m", "hub")
    status: Sequence[str] = (sys.executable, "-P", "-m", "messagehub", "status")


@dataclass(frozen=True)
class Settings:
    """What the user asked for; None = as the child's own configuration says.

    A child that ended is started again after a random part of a delay that doubles from
    `restart_seconds_min` to `restart_seconds_max`. After `restarts_max` in a row, none of which
    lasted for `steady_seconds`, everything is stopped.
    """

    data_dir: str | None = None
    listen: str | None = None
    storage_listen: str | None = None
    config: Path | None = None
    log_level: str | None = None
    start_seconds_max: float = 60.0
    ready_seconds_max: float = 30.0
    stop_seconds_max: float = 30.0
    restart_seconds_min: float = 0.2
    restart_seconds_max: float = 10.0
    restarts_max: int = 10
    steady_seconds: float = 60.0
    programs: Programs = field(default_factory=Programs)


class ChildFailed(Exception):
    """A child that did not start, or ended too often."""

    def __init__(self, problem: str, exit_status: int) -> None:
        super().__init__(problem)
        self.exit_status = exit_status if exit_status > 0 else FAILED


class Child:
    """One server process; started again, it listens where it listened first."""

    def __init__(self, name: str, program: Sequence[str], flags: dict[str, str | None]) -> None:
        self.name = name
        self.address = ""
        self.flags = flags
        self._program = program
        self._process: asyncio.subprocess.Process | None = None
        self._tie: asyncio.StreamWriter | None = None

    @property
    def pid(self) -> int:
        """The id of the process that was started last."""
        return self._process.pid if self._process else 0

    async def start(self, seconds: float) -> None:
        """Starts the process and returns once it serves; raises `ChildFailed` if it does not."""
        ours, theirs = socket.socketpair()
        with theirs:
            reader, self._tie = await asyncio.open_connection(sock=ours)
            # A session of its own: Ctrl-C reaches the supervisor alone, which stops in order.
            self._process = await asyncio.create_subprocess_exec(
                *self._program,
                *self._arguments(),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, DESCRIPTOR_VARIABLE: str(theirs.fileno())},
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(seconds):
                line = await reader.readline()
        except TimeoutError as failure:
            await self.stop(0.0)
            raise ChildFailed(
                f"{self.name} did not serve within {seconds:g} seconds", FAILED
            ) from failure
        if not line:
            status = await self.ended()
            raise ChildFailed(f"{self.name} did not start ({describe(status)})", status)
        self.address = json.loads(line)["address"]

    async def ended(self) -> int:
        """Waits for the process to end and gives its exit status; negative = a signal."""
        if self._process is None:
            return 0
        status = await self._process.wait()
        if self._tie is not None:
            self._tie.close()
            self._tie = None
        return status

    async def stop(self, seconds: float) -> None:
        """Ends the process: SIGTERM, and SIGKILL if it still runs after so many seconds."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await self.ended()
        except TimeoutError:
            _log.warning("a child is killed, it did not stop in time", extra={"child": self.name})
            self._signal(signal.SIGKILL)
            await self.ended()

    def _signal(self, number: signal.Signals) -> None:
        # Not through the process object: it would reap the child behind asyncio's back.
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def _arguments(self) -> list[str]:
        flags = {**self.flags, "--listen": self.address or self.flags["--listen"]}
        given = [(flag, value) for flag, value in flags.items() if value is not None]
        return [text for pair in given for text in pair]


class Supervisor:
    """Starts storage and hub, starts again what dies, stops them in order.

    `show` gets the screen that says what runs where.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        show: Callable[[str], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._show = show
        self._chance = chance
        self._told = asyncio.Event()
        self._hurried = asyncio.Event()
        self.storage = self._child(
            "storage", settings.programs.storage, listen=settings.storage_listen
        )
        self.hub = self._child("hub", settings.programs.hub, listen=settings.listen)

    def _child(self, name: str, program: Sequence[str], *, listen: str | None) -> Child:
        return Child(
            name,
            program,
            {
                "--data-dir": self._settings.data_dir,
                "--listen": listen,
                "--config": str(self._settings.config) if self._settings.config else None,
                "--log-level": self._settings.log_level,
            },
        )

    async def run(self) -> None:
        """Runs both until SIGTERM or Ctrl-C; a second one does not wait for them.

        Raises `ChildFailed` when one cannot be started or kept running; both are stopped then.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        work = asyncio.create_task(self._serve())
        told = asyncio.create_task(self._told.wait())
        try:
            await asyncio.wait([work, told], return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
            work.cancel()
            await asyncio.wait([work, told])
            await self._stop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        if not work.cancelled():
            work.result()

    def _on_signal(self) -> None:
        if self._told.is_set():
            self._hurried.set()
        self._told.set()

    async def _serve(self) -> None:
        await self.storage.start(self._settings.start_seconds_max)
        self.hub.flags["--storage"] = reachable(self.storage.address)
        await self.hub.start(self._settings.start_seconds_max)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep(self.storage))
                group.create_task(self._keep(self.hub))
                group.create_task(self._introduce())
        except ExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _keep(self, child: Child) -> None:
        """Starts a child again whenever it ends."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            status = await child.ended()
            if loop.time() - began >= self._settings.steady_seconds:
                failures = 0
            while True:
                failures += 1
                delay = self._delay(child, failures, status)
                _log.warning(
                    "a child ended, it is started again",
                    extra={"child": child.name, "status": status, "in_seconds": round(delay, 3)},
                )
                await asyncio.sleep(delay)
                try:
                    await child.start(self._settings.start_seconds_max)
                except ChildFailed as failure:
                    status = failure.exit_status
                else:
                    break
            _log.info("a child serves again", extra={"child": child.name, "pid": child.pid})

    def _delay(self, child: Child, failures: int, status: int) -> float:
        settings = self._settings
        if status == CONFIGURATION_REFUSED or failures > settings.restarts_max:
            raise ChildFailed(
                f"{child.name} ended ({describe(status)}) and is not started again", status
            )
        doublings = min(failures - 1, 32)
        longest = min(settings.restart_seconds_max, settings.restart_seconds_min * 2.0**doublings)
        return self._chance() * longest

    async def _introduce(self) -> None:
        """Shows the screen once the hub is ready, or says that it is not."""
        process = await asyncio.create_subprocess_exec(
            *self._settings.programs.status,
            *("--json", "--wait", f"{self._settings.ready_seconds_max:g}"),
            *("--target", reachable(self.hub.address)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        # Without an answer there is nothing on the output, and the screen says what is missing.
        status = json.loads(output) if output else {}
        self._show(screen(self.hub, self.storage, self._settings.data_dir, status))

    async def _stop(self) -> None:
        """The hub first, so that it can answer what it has accepted."""
        for child in (self.hub, self.storage):
            stopping = asyncio.create_task(child.stop(self._settings.stop_seconds_max))
            hurried = asyncio.create_task(self._hurried.wait())
            await asyncio.wait([stopping, hurried], return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            if not stopping.done():
                stopping.cancel()
                await asyncio.wait([stopping])
                await child.stop(0.0)


def reachable(address: str) -> str:
    """Gives an address to connect to for one that was listened on."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in WILDCARDS else address


def describe(status: int) -> str:
    """Says how a process ended."""
    return f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"


def screen(hub: Child, storage: Child, data_dir: str | None, status: dict[str, Any]) -> str:
    """Says what runs where, and how to try it."""
    data = str(Path(data_dir).resolve()) if data_dir else "as configured, .messagehub by default"
    target = reachable(hub.address)
    option = "" if target == DEFAULT_TARGET else f" --target {target}"
    databases = [route["database"] for route in status.get("routes", ())]
    database = databases[0] if databases else "DATABASE"
    if status.get("ready"):
        state = "The Message Hub is up. Ctrl-C stops it."
    else:
        state = "The Message Hub runs but is NOT READY; `messagehub status` and the log say why."
    return f"""
{state}

  hub        {hub.address:<22}  pid {hub.pid}
  storage    {storage.address:<22}  pid {storage.pid}
  data       {data}
  databases  {", ".join(databases) or "unknown"}

Try it in another terminal:

  messagehub sql {database} "SELECT 'hello' AS greeting"{option}
  messagehub events{option}
  messagehub status{option}
"""
