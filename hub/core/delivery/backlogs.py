"""What waits in the inbox, as the status board shows it: often, and when somebody asks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from hub.core.delivery.inbox import Inbox
from hub.core.status import StatusBoard
from messagehub.errors import HubError

_log = logging.getLogger(__name__)


class Backlogs:
    """Looks every so many seconds, between `start` and `stop`, and tells the board of changes.

    A submission is no change that a watcher is woken by at once: there may be thousands a second.
    """

    def __init__(
        self,
        inbox: Inbox,
        status: StatusBoard,
        databases: Sequence[str],
        *,
        seconds: float,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._inbox = inbox
        self._status = status
        self._databases = databases
        self._seconds = seconds
        self._sleep = sleep
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._looking = asyncio.create_task(self._keep_looking(), name="inbox-backlogs")

    async def stop(self) -> None:
        """Looks no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def look(self) -> None:
        """Brings the board up to date; an inbox that cannot be read leaves it as it is."""
        try:
            found = {name: await self._inbox.backlog(name) for name in self._databases}
        except HubError as failure:
            _log.warning("the inbox cannot be read", extra={"detail": failure.message})
        else:
            self._status.wait_for(found)

    async def _keep_looking(self) -> None:
        while True:
            await self.look()
            await self._sleep(self._seconds)
