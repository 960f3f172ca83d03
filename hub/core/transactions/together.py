"""The same step at several databases at once."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from hub.core.transactions.verdicts import Verdict, judge
from messagehub.errors import HubError

Answer = TypeVar("Answer")


async def all_or_first_failure(steps: Iterable[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """Gives all answers; when one step fails the others are cancelled, and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step) for step in steps]
    except BaseExceptionGroup as failures:
        raise _telling(failures) from failures
    return [task.result() for task in tasks]


async def each(steps: Iterable[Coroutine[Any, Any, Answer]]) -> list[Answer | HubError]:
    """Gives an answer or a `HubError` for each step; none disturbs another."""
    return await all_or_first_failure(_settled(step) for step in steps)


async def _settled(step: Coroutine[Any, Any, Answer]) -> Answer | HubError:
    try:
        return await step
    except HubError as failure:
        return failure


def _telling(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that says most: what always fails, before what may not do so again."""
    for verdict in (Verdict.FINAL, Verdict.OTHER):
        for failure in failures.exceptions:
            if isinstance(failure, HubError) and judge(failure) is verdict:
                return failure
    return failures.exceptions[0]
