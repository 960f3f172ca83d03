"""The attempts that this hub works on, until everybody was told how they ended."""

import asyncio
from collections.abc import Collection
from contextlib import suppress

from hub.core.transactions.attempt import Attempt
from hub.core.transactions.endings import Endings
from hub.core.transactions.surroundings import Surroundings
from messagehub.errors import HubError


class LiveAttempts:
    """By transaction id. An attempt is added once, and ends by one `tell` or one `forget`."""

    def __init__(self, surroundings: Surroundings, endings: Endings) -> None:
        self._around = surroundings
        self._endings = endings
        self._attempts: dict[str, Attempt] = {}

    def add(self, attempt: Attempt) -> None:
        """The work on an attempt begins."""
        self._attempts[attempt.header.transaction_id] = attempt

    def get(self, transaction_id: str) -> Attempt | None:
        """Gives an attempt that is worked on."""
        return self._attempts.get(transaction_id)

    def forget(self, attempt: Attempt) -> None:
        """Nothing more is done here; what locks are left are given back."""
        attempt.release_all()
        self._attempts.pop(attempt.header.transaction_id, None)

    def tell(
        self,
        attempt: Attempt,
        databases: Collection[str],
        *,
        commit: bool,
        error: HubError | None = None,
    ) -> asyncio.Event:
        """Lets participants know in the background; their locks are given back as they answer.

        The event says that each of them was told, or cannot be told for now.
        """
        heard = asyncio.Event()
        missing = set(databases)

        def release(database: str) -> None:
            attempt.release(database)
            missing.discard(database)
            if not missing:
                heard.set()

        for database in missing.symmetric_difference(attempt.header.databases):
            release(database)
        if not missing:
            self.forget(attempt)
            return heard

        async def tell() -> None:
            try:
                await self._endings.tell(
                    attempt.header,
                    databases,
                    commit=commit,
                    error=error,
                    released=release,
                )
                self._around.reached("coordinator.finished")
            finally:
                self.forget(attempt)

        self._around.background.start(tell(), name="transaction-end")
        return heard

    async def show(self, heard: asyncio.Event, *, deadline: float) -> None:
        """Waits a moment, so that whoever is answered finds in every database what it did.

        The transaction is committed in any case; nobody who is away is waited for.
        """
        left = max(0.0, deadline - self._around.clock())
        with suppress(TimeoutError):
            async with asyncio.timeout(min(left, self._around.limits.visible_seconds)):
                await heard.wait()
