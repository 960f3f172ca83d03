"""An event loop on a thread of its own, for tests that call an asyncio server synchronously."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from tests.support.leaks import LeakCheck

Answer = TypeVar("Answer")
CALL_SECONDS_MAX: Final = 60.0


class LoopThread:
    """Runs coroutines for callers on other threads.

    `close` raises `AssertionError` when tasks are left or the loop met an exception that nobody
    handled.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._leaks = LeakCheck(self._loop)
        self._thread = threading.Thread(target=self._serve, name="test server loop")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Runs `work` on the loop and waits for its answer, at most a minute."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS_MAX)

    def close(self) -> None:
        """Ends the loop and its thread, then tells what was left behind."""
        try:
            self.run(self._leaks.verify())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
