"""Operations of several callers in one call, each answered when it is done.

A task for each operation takes the same way as an `Execute`. They begin in the order of the
request, and reach the exchange in it. What is ready together leaves together: while one message is
being sent the next one gathers.
"""

import asyncio
import logging
import math
import uuid
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final

from hub.api.checks import RequestChecks, positive_seconds, request_id_or_new, written_for
from hub.api.execute_messages import execute_response
from hub.core.routing.router import Draft, Router
from messagehub.errors import HubError, InternalError
from messagehub.serving import logs
from messagehub.serving.interceptor import check_correlation_id, time_left
from messagehub.status import to_status
from messagehub.v1 import storage_service_pb2 as messages

# What a message takes for each outcome besides its own bytes: a tag and a length.
OUTCOME_BYTES: Final = 6

_log = logging.getLogger(__name__)


class StreamedOperations:
    """Runs them.

    `message_bytes_max` bounds a message, unless a single outcome is larger. `taken_seconds` is
    after how long without an outcome the caller is told that the operations are taken in;
    `default_timeout_seconds` is the time of an operation of a call without a deadline.
    """

    def __init__(
        self,
        *,
        router: Router,
        checks: RequestChecks,
        message_bytes_max: int,
        taken_seconds: float,
        default_timeout_seconds: float,
    ) -> None:
        self._router = router
        self._checks = checks
        self._message_bytes_max = message_bytes_max
        self._taken_seconds = taken_seconds
        self._default_timeout_seconds = default_timeout_seconds

    async def run(
        self, request: messages.ExecuteStreamRequest
    ) -> AsyncGenerator[messages.ExecuteStreamResponse]:
        """Streams the outcomes; closing the generator withdraws what has none."""
        self._checks.batch_size(len(request.operations))
        ready: deque[messages.StreamedOutcome] = deque()
        wake = asyncio.Event()

        def settle(done: asyncio.Task[messages.StreamedOutcome]) -> None:
            if not done.cancelled():
                ready.append(done.result())
                wake.set()

        tasks = []
        for index, operation in enumerate(request.operations):
            task = asyncio.create_task(self._run(index, operation, request.source_service))
            task.add_done_callback(settle)
            tasks.append(task)
        left = len(tasks)
        taken = False
        try:
            while left:
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if taken else self._taken_seconds):
                        await wake.wait()
                wake.clear()
                while ready or not taken:
                    response = self._message(ready, request.correlation_id)
                    left -= len(response.outcomes)
                    taken = True
                    yield response
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _run(
        self, index: int, operation: messages.StreamedOperation, source_service: str
    ) -> messages.StreamedOutcome:
        outcome = messages.StreamedOutcome(index=index)
        try:
            outcome.response.CopyFrom(await self._execute(operation, source_service))
        except HubError as error:
            outcome.error.CopyFrom(to_status(error))
        except Exception:  # noqa: BLE001 - those who share the call are not to blame
            _log.exception("an operation failed by a defect")
            outcome.error.CopyFrom(to_status(InternalError("the hub failed: see its log")))
        return outcome

    async def _execute(
        self, operation: messages.StreamedOperation, source_service: str
    ) -> messages.ExecuteResponse:
        correlation_id = operation.correlation_id or uuid.uuid4().hex
        check_correlation_id(correlation_id)
        logs.correlation_id.set(correlation_id)
        self._checks.statement(operation.statement)
        content = written_for(operation.statement, operation.schema_version)
        request_id = request_id_or_new(operation.request_id)
        executed = await self._router.execute(
            Draft(operation.database, request_id, content),
            source_service=source_service,
            correlation_id=correlation_id,
            seconds=self._seconds(operation),
        )
        return execute_response(correlation_id, executed)

    def _seconds(self, operation: messages.StreamedOperation) -> float:
        seconds = time_left()
        if operation.HasField("timeout"):
            seconds = min(seconds, positive_seconds(operation.timeout, "timeout"))
        return self._default_timeout_seconds if math.isinf(seconds) else seconds

    def _message(
        self, ready: deque[messages.StreamedOutcome], correlation_id: str
    ) -> messages.ExecuteStreamResponse:
        response = messages.ExecuteStreamResponse(correlation_id=correlation_id)
        size = response.ByteSize()
        while ready:
            size += ready[0].ByteSize() + OUTCOME_BYTES
            if response.outcomes and size > self._message_bytes_max:
                break
            response.outcomes.append(ready.popleft())
        return response
