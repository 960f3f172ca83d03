"""The leases of this hub's streams: prolonged while the stream lives, given up when it ends.

A hub that is killed prolongs nothing, so its leases end by themselves. A hub that cannot reach
the storage server ends its streams before their leases do, so that no other hub's stream reads for
the same name at the same time. All leases in a database are prolonged together, so that one more
costs next to nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Final

from hub.core.subscriptions.subscription_store import Hold, Name, SubscriptionStore
from messagehub.errors import (
    HubError,
    InternalError,
    StorageUnavailable,
    SubscriptionInUse,
    SubscriptionNotFound,
)

# How often a lease is prolonged before it would be over, and tried to be after a failure.
PROLONGED_EACH: Final = 3
TRIED_EACH: Final = 15

_log = logging.getLogger(__name__)


def _nobody(_: HubError) -> None:
    """The stream does not live yet."""


@dataclass(slots=True, eq=False)
class Lease:
    """The right of one stream to read for a name, kept in one database, until a time.

    `lost` is told, once, why the stream may read no longer.
    """

    hold: Hold
    database: str
    until: float
    lost: Callable[[HubError], None] = _nobody
    over: bool = False


class Leases:
    """Keeps leases of `seconds`; `clock` gives the time of `Lease.until`."""

    def __init__(
        self,
        store: SubscriptionStore,
        *,
        seconds: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.seconds = seconds
        # How long until a lease is prolonged; also how soon it pays to ask for one again.
        self.pause = seconds / PROLONGED_EACH
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self._kept: dict[str, set[Lease]] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._releases: dict[Name, asyncio.Task[None]] = {}

    async def settled(self, name: Name) -> None:
        """Returns when this hub gives up no lease on a name any more."""
        if release := self._releases.get(name):
            await asyncio.wait((release,))

    def begin(self, hold: Hold, database: str) -> Lease:
        """A lease that is about to be taken; its time runs from here."""
        return Lease(hold, database, self._clock() + self.seconds)

    def keep(self, lease: Lease, lost: Callable[[HubError], None]) -> None:
        """Prolongs a lease until it is given up, or lost."""
        if lease.over:
            return
        lease.lost = lost
        self._kept.setdefault(lease.database, set()).add(lease)
        if lease.database not in self._keepers:
            self._start(lease.database)

    def give_up(self, lease: Lease) -> None:
        """Frees the name for other streams, in the background. May be called again."""
        if lease.over:
            return
        self._forget(lease)
        release = asyncio.get_running_loop().create_task(
            self._release(lease), name=f"release-{lease.hold.name.name}", context=Context()
        )
        self._releases[lease.hold.name] = release
        release.add_done_callback(lambda task: self._released(lease.hold.name, task))

    async def close(self) -> None:
        """Returns when every lease that was given up is free, or cannot be told so."""
        for keeper in self._keepers.values():
            keeper.cancel()
        if tasks := [*self._keepers.values(), *self._releases.values()]:
            await asyncio.wait(tasks)

    def _start(self, database: str) -> None:
        keeper = asyncio.get_running_loop().create_task(
            self._keep(database), name=f"leases-{database}", context=Context()
        )
        self._keepers[database] = keeper
        keeper.add_done_callback(lambda task: self._ended(database, task))

    async def _keep(self, database: str) -> None:
        leases = self._kept[database]
        pause = self.pause
        reason = "the storage server did not answer"
        while leases:
            first = min(lease.until for lease in leases)
            await self._sleep(max(0.0, min(pause, first - self._clock())))
            self._end_those_over(leases, reason)
            if not leases:
                break
            try:
                await self._prolong(database, list(leases))
            except HubError as failure:
                reason = failure.message
                pause = self.seconds / TRIED_EACH
            else:
                pause = self.pause

    async def _prolong(self, database: str, leases: Sequence[Lease]) -> None:
        asked = self._clock()
        first = min(lease.until for lease in leases)
        outcomes = await self._store.hold(
            database,
            [lease.hold for lease in leases],
            lease_seconds=self.seconds,
            seconds=min(self.pause, first - asked),
        )
        others = []
        for lease, outcome in zip(leases, outcomes, strict=True):
            if isinstance(outcome, SubscriptionInUse | SubscriptionNotFound):
                self._lose(lease, outcome)
            elif outcome is None:
                lease.until = asked + self.seconds
            else:
                others.append(outcome)
        if others:
            raise others[0]

    def _end_those_over(self, leases: set[Lease], reason: str) -> None:
        now = self._clock()
        for lease in [lease for lease in leases if lease.until <= now]:
            name = lease.hold.name.name
            _log.warning(
                "a lease could not be prolonged in time",
                extra={"database": lease.database, "subscription": name, "detail": reason},
            )
            failure = StorageUnavailable(
                f"the hub could not hold the subscription {name} any longer ({reason}): subscribe "
                "again",
                retry_after=self.pause,
            )
            self._lose(lease, failure)

    def _lose(self, lease: Lease, failure: HubError) -> None:
        if not lease.over:
            self._forget(lease)
            lease.lost(failure)

    def _forget(self, lease: Lease) -> None:
        lease.over = True
        self._kept.get(lease.database, set()).discard(lease)

    def _ended(self, database: str, task: asyncio.Task[None]) -> None:
        del self._keepers[database]
        if task.cancelled():
            return
        if (defect := task.exception()) is not None:
            _log.error("leases are kept no longer", exc_info=defect, extra={"database": database})
            for lease in list(self._kept[database]):
                self._lose(
                    lease, InternalError("the hub cannot hold the subscription: its log says why")
                )
        if self._kept[database]:  # by one that came when the last one had just gone
            self._start(database)
        else:
            del self._kept[database]

    async def _release(self, lease: Lease) -> None:
        try:
            (failure,) = await self._store.hold(
                lease.database, [lease.hold], lease_seconds=0, seconds=self.pause
            )
        except HubError as unavailable:
            failure = unavailable
        if failure is not None:
            # Then it ends by its time, or somebody has it already.
            _log.info(
                "a lease was not given up",
                extra={"subscription": lease.hold.name.name, "detail": failure.message},
            )

    def _released(self, name: Name, task: asyncio.Task[None]) -> None:
        if self._releases.get(name) is task:
            del self._releases[name]
        if not task.cancelled() and (defect := task.exception()) is not None:
            _log.error("a lease was not given up", exc_info=defect)
