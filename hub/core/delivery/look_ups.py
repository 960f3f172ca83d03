"""Which database remembers a write whose database nobody named."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from hub.core.ports import Recorded
from hub.core.routing.router import Router
from messagehub.errors import HubError, OperationNotFound


class Found(NamedTuple):
    """A write that its database remembers; it was executed, or its submission is unknown here."""

    database: str
    recorded: Recorded


class LookUps:
    """Asks the journals of several databases, `at_once_max` of them at a time for one call."""

    def __init__(self, router: Router, *, at_once_max: int) -> None:
        self._router = router
        self._at_once_max = at_once_max

    async def find(
        self,
        request_id: str,
        databases: Sequence[str],
        *,
        source_service: str,
        correlation_id: str,
        seconds: float,
    ) -> Found:
        """Gives the first answer that knows a write of the service.

        Raises `OperationNotFound` only if every database said so; if one could not be asked, its
        error, because that one may know.
        """
        turns = asyncio.Semaphore(self._at_once_max)

        async def ask(database: str) -> Found | HubError:
            async with turns:
                try:
                    return Found(
                        *await self._router.look_up(
                            request_id,
                            source_service=source_service,
                            database=database,
                            correlation_id=correlation_id,
                            seconds=seconds,
                        )
                    )
                except HubError as failure:
                    return failure

        asking = [asyncio.create_task(ask(database)) for database in databases]
        failures: list[HubError] = []
        try:
            for answer in asyncio.as_completed(asking):
                told = await answer
                if isinstance(told, Found):
                    return told
                failures.append(told)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)
        raise _told(failures, request_id, databases)


def _told(failures: Sequence[HubError], request_id: str, databases: Sequence[str]) -> HubError:
    for failure in failures:
        if len(failures) == 1 or not isinstance(failure, OperationNotFound):
            return failure
    return OperationNotFound(
        f"none of {', '.join(databases)} has a record of a write with the request id {request_id}: "
        "it never arrived, is not executed yet, or is older than what the journals keep"
    )
