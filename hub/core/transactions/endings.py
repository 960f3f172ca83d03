"""The last words: how a transaction ended is asked of its home, and told to the others.

Both are repeated until they are answered, for a bounded time. After that the participants that
wait say so themselves, and the resolver goes on.
"""

import logging
from collections.abc import Callable, Collection

from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.together import all_or_first_failure
from hub.core.transactions.transaction import Header, PartState, Resolution, Resolved
from hub.core.transactions.verdicts import may_be_repeated
from messagehub.errors import HubError

_log = logging.getLogger(__name__)


def _nothing() -> None:
    """Nobody wants to know."""


class Endings:
    """Asks and tells."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings

    async def resolve(
        self, resolution: Resolution, *, unanswered: Callable[[], None] = _nothing
    ) -> Resolved:
        """Repeats a resolution until it is answered; raises what the last failure was.

        `unanswered` is called after each try without an answer.
        """
        around = self._around
        backoff = around.backoff()
        last = around.clock() + around.limits.settle_seconds
        while True:
            try:
                return await around.participants.resolve(
                    resolution, seconds=around.limits.answer_seconds
                )
            except HubError as failure:
                unanswered()
                delay = backoff.next()
                if not may_be_repeated(failure) or around.clock() + delay > last:
                    raise
            await around.sleep(delay)

    async def tell(
        self,
        header: Header,
        databases: Collection[str],
        *,
        commit: bool,
        error: HubError | None = None,
        released: Callable[[str], None],
    ) -> None:
        """Tells participants how it ended, all at once; what cannot be told is logged.

        `released` gets each database that was told, or cannot be told for now: nobody of this hub
        needs to wait for it any more, because it guards itself.
        """
        told = 0

        async def tell_one(database: str) -> None:
            nonlocal told
            resolution = Resolution(database, commit, header, error)
            await self._tell(resolution, released)
            told += 1
            if commit and told == 1:
                self._around.reached("coordinator.after_one_commit")

        await all_or_first_failure(tell_one(database) for database in databases)

    async def _tell(self, resolution: Resolution, released: Callable[[str], None]) -> None:
        database = resolution.database
        expected = PartState.COMMITTED if resolution.commit else PartState.ROLLED_BACK
        fields = {
            "database": database,
            "transaction_id": resolution.header.transaction_id,
            "expected": expected.value,
        }
        try:
            resolved = await self.resolve(resolution, unanswered=lambda: released(database))
        except HubError as failure:
            _log.warning(
                "a participant could not be told how a transaction ended",
                extra=fields | {"reason": failure.reason, "detail": failure.message},
            )
        else:
            if resolved.record.state is not expected:
                _log.error(
                    "a participant ended a transaction in another way",
                    extra=fields | {"state": resolved.record.state.value},
                )
        finally:
            released(database)
