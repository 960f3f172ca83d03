"""A probe as Kubernetes makes it: the plain health service, no metadata, one second to answer."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.health import NOT_SERVING, SERVING

PROBE_SECONDS: Final = 1.0
PERIOD_SECONDS: Final = 0.1
# Kubernetes acts after so many failures in a row, because a machine may be busy for a moment.
LATE_MAX: Final = 2
LIVENESS: Final = "liveness"
NAMES: Final = ("", LIVENESS)


class Probe:
    """Asks a hub all the time, in a block; `check` tells whether the answers were right.

    A hub that nobody touches is alive and says whether it is ready. One that is hurt may be gone
    (UNAVAILABLE) or paused (no answer in time), but never says that it is not alive.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._doubts = 0
        self._changes = 0
        self._late = dict.fromkeys(NAMES, 0)
        self._asking: asyncio.Task[None] | None = None
        self.answers = 0
        self.wrong: list[str] = []

    async def __aenter__(self) -> Self:
        self._asking = asyncio.create_task(self._ask_all())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    @contextmanager
    def doubtful(self, hurt: bool) -> Iterator[None]:
        """While the hub is hurt, no answer is an answer too."""
        self._doubts += hurt
        self._changes += hurt
        try:
            yield
        finally:
            self._doubts -= hurt

    def check(self) -> None:
        """Raises `AssertionError` if there were wrong answers, or none."""
        assert not self.wrong, self.wrong
        assert self.answers

    async def _ask_all(self) -> None:
        while True:
            for name in NAMES:
                await self._ask(name)
            await asyncio.sleep(PERIOD_SECONDS)

    async def _ask(self, name: str) -> None:
        doubtful, changes = self._doubts, self._changes
        # A new connection each time, as the kubelet does it.
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(
                    health_pb2.HealthCheckRequest(service=name), timeout=PROBE_SECONDS
                )
            except grpc.aio.AioRpcError as failure:
                if not doubtful and changes == self._changes:
                    self._failed(name, failure)
                return
        self._late[name] = 0
        self.answers += 1
        if answer.status not in (SERVING, NOT_SERVING):
            self.wrong.append(f"{name!r}: {answer.status}")
        if name == LIVENESS and answer.status != SERVING:
            self.wrong.append("not alive")

    def _failed(self, name: str, failure: grpc.aio.AioRpcError) -> None:
        self._late[name] += 1
        late = failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if not late or self._late[name] > LATE_MAX:
            self.wrong.append(f"{name!r}: {failure.code()} {failure.details()}")
