"""An event loop whose time passes only when everybody sleeps, and then at once.

Code that takes its clock from the loop can so live through minutes in milliseconds, in an order
that depends on nothing but the program.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class NothingWillHappenError(Exception):
    """Everybody waits and no time is set: a deadlock."""


class _Selector(selectors.DefaultSelector):
    """Instead of waiting it moves the clock on."""

    loop: "VirtualTimeLoop"

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events and timeout != 0:
            if timeout is None:
                raise NothingWillHappenError
            self.loop.now += timeout
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that begins at time 0."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self.now = 0.0
        self.failures: list[dict[str, Any]] = []
        super().__init__(selector)
        self.set_exception_handler(lambda loop, context: self.failures.append(context))

    def time(self) -> float:
        return self.now


def run(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Runs to the end; fails on tasks left behind and on exceptions that nobody handled."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        answer = runner.run(work)
        loop = runner.get_loop()
        assert isinstance(loop, VirtualTimeLoop)
        left = [task.get_name() for task in asyncio.all_tasks(loop)]
        assert not left, f"tasks are left behind: {left}"
        assert not loop.failures, loop.failures
    return answer
