"""Opens interactive transactions: all of their parts, or none."""

import asyncio
from collections.abc import Callable

from hub.core.transactions.attempt import Attempt
from hub.core.transactions.live_attempts import LiveAttempts
from hub.core.transactions.locks import LockTable
from hub.core.transactions.states import Happening
from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.together import all_or_first_failure
from hub.core.transactions.transaction import Advance, Header, Step, Work
from hub.core.transactions.verdicts import Verdict, judge
from messagehub.errors import Cancelled, HubError


class Beginning:
    """Begins the parts of transactions that write, in the lanes of this hub."""

    def __init__(self, surroundings: Surroundings, live: LiveAttempts, *, lanes: LockTable) -> None:
        self._around = surroundings
        self._live = live
        self._lanes = lanes

    async def begin(self, make_header: Callable[[], Header], seconds: float) -> Attempt:
        """Gives an attempt whose parts are open, with its lanes.

        Raises `TransactionConflict` if a database was not free in time. A caller who goes away
        leaves nothing open.
        """
        deadline = self._around.clock() + seconds
        try:
            return await self._try(make_header(), deadline, in_order=False)
        except HubError as failure:
            if judge(failure) is not Verdict.CONFLICT:
                raise
        # One after the other, as nobody can wait in a circle.
        return await self._try(make_header(), deadline, in_order=True)

    async def _try(self, header: Header, deadline: float, *, in_order: bool) -> Attempt:
        left = max(0.0, deadline - self._around.clock())
        seconds = min(self._around.limits.wait_seconds, left)
        attempt = Attempt(header)
        attempt.hold(await self._lanes.take(header.databases, seconds=seconds))
        try:
            await self._open(attempt, deadline, in_order=in_order)
        except HubError as failure:
            self._give_up(attempt, failure)
            raise
        except asyncio.CancelledError:
            self._give_up(attempt, Cancelled("the caller went away"))
            raise
        attempt.begins = False
        return attempt

    async def _open(self, attempt: Attempt, deadline: float, *, in_order: bool) -> None:
        databases = attempt.header.databases
        if in_order:
            for database in databases:
                await self._open_part(attempt, database, deadline)
        else:
            await all_or_first_failure(
                self._open_part(attempt, database, deadline) for database in databases
            )

    async def _open_part(self, attempt: Attempt, database: str, deadline: float) -> None:
        header = attempt.header
        seconds = max(0.0, deadline - self._around.clock())
        attempt.begun.add(database)
        await self._around.participants.advance(
            Advance(
                database=database,
                transaction_id=header.transaction_id,
                correlation_id=header.correlation_id,
                header=header,
                work=Work(),
                step=Step.STAY_OPEN,
                wait_seconds=min(self._around.limits.wait_seconds, seconds / 2),
            ),
            seconds=seconds,
        )

    def _give_up(self, attempt: Attempt, failure: HubError) -> None:
        """Nobody else has heard of its id yet, so nobody can be committing it."""
        attempt.happens(Happening.GIVE_UP)
        self._live.tell(attempt, attempt.begun, commit=False, error=failure)
