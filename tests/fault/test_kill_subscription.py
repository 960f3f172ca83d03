"""kill -9 of the consumer, the hub and the storage server between handling and acknowledging.

Whatever was written is handled. What was acknowledged never comes again, and within one life of
the consumer nothing comes twice.
"""

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest

from messagehub import Hub, HubError, Result
from messagehub.client import Operation
from messagehub.errors import SubscriptionInUse
from tests.support.processes import REPOSITORY, Processes, ServerProcess, running_processes

NAME = "billing"
SECONDS_MAX = 60
LEASE_SECONDS = 3.0
ROUNDS = 4
HANDLED_BETWEEN_KILLS = 25
WRITES_AT_ONCE = 8


class Log:
    """What the lives of the consumer said, one list for each."""

    def __init__(self) -> None:
        self.lives: list[list[tuple[str, str]]] = []

    def said(self, word: str) -> list[str]:
        return [event for life in self.lives for said, event in life if said == word]

    async def reaches(self, handled: int) -> None:
        async with asyncio.timeout(SECONDS_MAX):
            while len(self.said("handled")) < handled:  # noqa: ASYNC110 - read from a pipe
                await asyncio.sleep(0.005)

    def check(self) -> None:
        """What was acknowledged did not come again, and no life saw an event twice."""
        acknowledged: set[str] = set()
        for life in self.lives:
            handled = [event for said, event in life if said == "handled"]
            assert len(handled) == len(set(handled)), "twice within one process"
            assert not acknowledged.intersection(handled), "acknowledged, and came again"
            assert handled == sorted(handled, key=sequence_of), "out of order"
            acknowledged |= {event for said, event in life if said == "acknowledged"}


def sequence_of(event_id: str) -> int:
    return int(event_id.rpartition("/")[2])


@asynccontextmanager
async def consumer(address: str, log: Log) -> AsyncIterator[asyncio.subprocess.Process]:
    """One life of the consumer; killed at the end, if not before."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.consumer", address, NAME),
        cwd=REPOSITORY,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=None,
    )
    life: list[tuple[str, str]] = []
    log.lives.append(life)

    async def listen() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            # A line that was cut by the kill was not said.
            if line.endswith(b"\n"):
                word, event = line.decode().split()
                life.append((word, event))

    listening = asyncio.create_task(listen())
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


class Writer:
    """Writes without end, a few at once so that messages hold several events.

    `written` are the places of the writes that were answered.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.written: list[int] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            batch = [Operation("INSERT INTO t VALUES (?)", [n]) for n in range(WRITES_AT_ONCE)]
            try:
                results = await self._hub.execute_batch(batch)
            except HubError:
                continue
            self.written += [one.sequence for one in results if isinstance(one, Result)]
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))
        with pytest.raises(asyncio.CancelledError):
            self._task.result()


@asynccontextmanager
async def platform(
    directory: Path,
) -> AsyncIterator[tuple[Processes, ServerProcess, ServerProcess]]:
    async with running_processes(directory) as processes:
        storage = processes.storage()
        config = directory / "messagehub.toml"
        config.write_text(f"[hub]\nsubscription_lease_seconds = {LEASE_SECONDS}\n")
        hub = processes.hub(storage.address, "--config", str(config))
        await hub.ready()
        yield processes, storage, hub


async def everything_is_handled(log: Log, written: list[int]) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            handled = {sequence_of(event) for event in log.said("handled")}
            if handled.issuperset(written):
                return
            await asyncio.sleep(0.02)


async def test_nothing_acknowledged_comes_again_whoever_is_killed(tmp_path: Path) -> None:
    chance = random.Random(20261123)
    log = Log()
    async with (
        asyncio.timeout(2 * SECONDS_MAX),
        platform(tmp_path) as (_, storage, hub),
        Hub(hub.address, service="character", timeout=SECONDS_MAX) as client,
    ):
        await client.execute("CREATE TABLE t (n)")
        writer = Writer(client)
        # The consumer dies and is started again, while everything else lives.
        for _ in range(ROUNDS):
            enough = len(log.said("handled")) + HANDLED_BETWEEN_KILLS
            async with consumer(hub.address, log) as process:
                await log.reaches(enough)
                await asyncio.sleep(chance.random() * 0.01)
                process.kill()
        # The hub and the storage server die, while the consumer lives.
        async with consumer(hub.address, log):
            for victim in (hub, storage) * 2:
                await log.reaches(len(log.said("handled")) + HANDLED_BETWEEN_KILLS)
                await asyncio.sleep(chance.random() * 0.01)
                await victim.restart()
            await log.reaches(len(log.said("handled")) + HANDLED_BETWEEN_KILLS)
            await writer.stop()
            await everything_is_handled(log, writer.written)
    assert len(log.lives) == ROUNDS + 1
    log.check()
    assert log.said("acknowledged")


async def test_the_name_of_a_killed_hub_is_free_after_its_lease(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(SECONDS_MAX),
        platform(tmp_path) as (processes, storage, first),
        Hub(first.address, service="character") as before,
    ):
        stream = before.subscribe(subscription=NAME, consumer="worker-1")
        await stream.__aenter__()
        second = processes.hub(storage.address, "--data-dir", str(tmp_path / "second"))
        await second.ready()
        first.kill()
        async with Hub(second.address, service="character", timeout=0.5) as hasty:
            with pytest.raises(SubscriptionInUse) as caught:
                await anext(hasty.subscribe(subscription=NAME, consumer="worker-2"))
        assert caught.value.metadata == {"consumer": "worker-1"}
        async with (
            Hub(second.address, service="character") as patient,
            patient.subscribe(subscription=NAME, consumer="worker-2"),
        ):
            assert (await patient.subscriptions()).subscriptions[0].consumer == "worker-2"
        stream.close()
