"""The teardown check: a test leaves no task behind and no exception that nobody handled."""

import asyncio
from typing import Any, Final

# gRPC finishes its own bookkeeping tasks after `stop()` has returned.
SETTLE_SECONDS_MAX: Final = 5.0


class LeakCheck:
    """Watches a loop from its creation until `verify`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._unhandled: list[str] = []
        self._known = asyncio.all_tasks(loop)
        loop.set_exception_handler(self._record)

    async def verify(self) -> None:
        """Raises `AssertionError` naming the tasks that are left and the unhandled exceptions."""
        left = asyncio.all_tasks() - self._known - {asyncio.current_task()}
        if left:
            _, left = await asyncio.wait(left, timeout=SETTLE_SECONDS_MAX)
        self._loop.set_exception_handler(None)
        names = [str(task) for task in left]
        for task in left:
            task.cancel()
        assert not names, "tasks are left behind:\n" + "\n".join(names)
        assert not self._unhandled, "exceptions nobody handled:\n" + "\n".join(self._unhandled)

    def _record(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        failure = context.get("exception")
        # gRPC has one poller for all loops of a process and wakes them all; those that come too
        # late find nothing to read and say so. Harmless, and not ours: grpc/grpc#25364.
        if isinstance(failure, BlockingIOError) and "PollerCompletionQueue" in str(context):
            return
        self._unhandled.append(f"{context.get('message')}: {failure!r} {context}")
