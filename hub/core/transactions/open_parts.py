"""Calls to the parts of an open transaction."""

from collections.abc import Coroutine, Sequence
from typing import Any, TypeAlias

from hub.core.transactions.open_transaction import OpenTransaction
from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.together import each
from hub.core.transactions.transaction import Advance, Advanced, Step, Work
from messagehub.errors import HubError, StorageUnavailable

Call: TypeAlias = Coroutine[Any, Any, Advanced]


class OpenParts:
    """Runs statements in parts, and keeps the parts that are not used alive meanwhile."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings

    async def run(
        self,
        one: OpenTransaction,
        database: str,
        work: Work,
        *,
        correlation_id: str,
        deadline: float,
    ) -> Sequence[Advanced | HubError]:
        """Gives the answer of the part that runs something, then those of the others."""
        one.touch([database])
        return await each(
            [
                self._advance(one, database, work, correlation_id, deadline),
                *self._touches(one, deadline),
            ]
        )

    async def touch(self, one: OpenTransaction) -> None:
        """Keeps the parts alive that are not used; what one says shows in the next call."""
        deadline = self._around.clock() + self._around.limits.answer_seconds
        await each(self._touches(one, deadline))

    def _touches(self, one: OpenTransaction, deadline: float) -> list[Call]:
        stale = one.untouched()
        one.touch(stale)
        correlation_id = one.header.correlation_id
        return [self._advance(one, name, Work(), correlation_id, deadline) for name in stale]

    async def _advance(
        self,
        one: OpenTransaction,
        database: str,
        work: Work,
        correlation_id: str,
        deadline: float,
    ) -> Advanced:
        """Calls again if the connection broke: a statement has a name and is not run twice."""
        around = self._around
        backoff = around.backoff()
        failures = 0
        while True:
            seconds = max(0.0, deadline - around.clock())
            advance = Advance(
                database=database,
                transaction_id=one.header.transaction_id,
                correlation_id=correlation_id,
                header=None,
                work=work,
                step=Step.STAY_OPEN,
                wait_seconds=min(around.limits.wait_seconds, seconds / 2),
            )
            try:
                return await around.participants.advance(advance, seconds=seconds)
            except StorageUnavailable:
                failures += 1
                delay = backoff.next()
                late = around.clock() + delay >= deadline
                if late or failures >= around.limits.passing_attempts_max:
                    raise
            await around.sleep(delay)
