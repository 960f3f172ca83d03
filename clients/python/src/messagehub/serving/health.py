"""`grpc.health.v1`, told by the process, never by I/O inside a probe.

A board keeps the newest status of every name. A watcher that reads slowly misses statuses in
between but always gets the newest, and cannot hold anybody up; `close` ends every watch, so that
an open one does not use up the server's drain time.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Status = health_pb2.HealthCheckResponse.ServingStatus
READY: Final = ""
LIVENESS: Final = "liveness"


class HealthBoard(health_pb2_grpc.HealthServicer):
    """The statuses by name. `""` is NOT_SERVING until the process says otherwise."""

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {READY: False, LIVENESS: True}
        self._changed = asyncio.Condition()
        self._closed = False
        self._announcements: set[asyncio.Task[None]] = set()

    def set(self, name: str, *, serving: bool) -> None:
        """Records a status and wakes the watchers. Ignored once closed, except for liveness."""
        if self._closed and name != LIVENESS:
            return
        if self._serving.get(name) is not serving:
            self._serving[name] = serving
            self._announce()

    def forget(self, name: str) -> None:
        """Drops a name; it is NOT_FOUND from now on."""
        if self._serving.pop(name, None) is not None:
            self._announce()

    def close(self) -> None:
        """Everything but liveness is NOT_SERVING from now on, and watches end."""
        for name in self._serving:
            self._serving[name] = name == LIVENESS
        self._closed = True
        self._announce()

    def _announce(self) -> None:
        async def wake() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.get_running_loop().create_task(wake())
        self._announcements.add(task)
        task.add_done_callback(self._announcements.discard)

    def _status(self, name: str) -> Any:
        serving = self._serving.get(name)
        if serving is None:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if serving:
            return health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse.NOT_SERVING

    async def Check(  # noqa: N802 - the name on the wire
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """Answers the newest status; NOT_FOUND for a name that nobody ever set."""
        if request.service not in self._serving:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"there is no health name {request.service!r}"
            )
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def Watch(  # noqa: N802 - the name on the wire
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002 - the signature of gRPC
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Streams the status and its changes; SERVICE_UNKNOWN until the name is set."""
        told: Any = None
        while True:
            status = self._status(request.service)
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
                continue
            if self._closed:
                return
            async with self._changed:
                if self._status(request.service) == told and not self._closed:
                    await self._changed.wait()
