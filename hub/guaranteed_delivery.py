"""The part of the composition root that makes the inbox and its delivery."""

import asyncio
import random
import time
from pathlib import Path
from typing import Any, Final

from hub.adapters.inbox.store import InboxStore
from hub.adapters.journal_reach import JournalReach
from hub.config import HubConfig
from hub.core.delivery.backlogs import Backlogs
from hub.core.delivery.delivery import Delivery
from hub.core.delivery.dispatch import DeliveryLimits
from hub.core.delivery.inbox import Inbox, InboxLimits
from hub.core.delivery.look_ups import LookUps
from hub.core.delivery.submissions import Submissions
from hub.core.events.journal import Journal
from hub.core.routing.router import Router
from hub.core.routing.routes import Routes
from hub.core.status import HubState, StatusBoard

NANOSECONDS_PER_MICROSECOND: Final = 1000


class GuaranteedDelivery:
    """The inbox in the hub's data directory: `open`, `start`, `stop` delivering, `close`.

    `inbox` takes announcements from `open` on, `submissions` what services submit. The
    `status` board learns what waits, and when nothing can be kept any more.
    """

    def __init__(
        self,
        config: HubConfig,
        *,
        routes: Routes,
        router: Router,
        journal: Journal,
        status: StatusBoard,
    ) -> None:
        self._store = InboxStore(
            Path(config.data_dir),
            group_max=config.inbox_group_operations_max,
            lost=lambda failure: status.lose_inbox(failure.message),
        )
        self.inbox = Inbox(
            self._store, _inbox_limits(config), now_us=_now_us, size_of=_size, sleep=asyncio.sleep
        )
        self.backlogs = Backlogs(
            self.inbox,
            status,
            routes.databases,
            seconds=config.inbox_sweep_seconds,
            sleep=asyncio.sleep,
        )
        self.submissions = Submissions(
            routes=routes,
            inbox=self.inbox,
            store=self._store,
            look_ups=LookUps(router, at_once_max=config.operation_look_ups_max),
        )
        self._delivery = Delivery(
            self.inbox,
            _delivery_limits(config),
            destination=router,
            reach=JournalReach(journal),
            routes=routes,
            clock=time.monotonic,
            sleep=asyncio.sleep,
            random=random.random,
        )

    async def open(self) -> None:
        """Opens the inbox; raises `OSError` if another hub has it or it cannot be used."""
        await self._store.open()

    async def start(self) -> None:
        """Begins to deliver what is in the inbox."""
        await self._delivery.start()
        self.backlogs.start()

    def follow(self, state: HubState) -> None:
        """Hears how the databases stand, of every change."""
        for one in state.databases:
            self._delivery.set_available(one.database, available=one.usable)

    async def stop(self, seconds: float) -> None:
        """Stops to deliver; what is on its way may finish within `seconds`."""
        await self._delivery.stop(seconds)

    async def close(self) -> None:
        """Closes the inbox, when nobody submits any more."""
        await self.backlogs.stop()
        await self.inbox.close()
        await self._store.close()


def _inbox_limits(config: HubConfig) -> InboxLimits:
    return InboxLimits(
        operations_max=config.inbox_operations_max,
        bytes_max=config.inbox_bytes_max,
        age_seconds_max=config.inbox_age_seconds_max,
        keep_seconds=config.inbox_keep_seconds,
        kept_operations_max=config.inbox_kept_operations_max,
        kept_bytes_max=config.inbox_kept_bytes_max,
        # A batch that the exchange has no room for would never leave.
        claim_operations_max=min(
            config.delivery_batch_operations_max, config.pending_operations_max
        ),
        claim_bytes_max=min(config.delivery_batch_bytes_max, config.pending_bytes_max),
        sweep_seconds=config.inbox_sweep_seconds,
        retry_seconds=config.inbox_retry_seconds,
    )


def _delivery_limits(config: HubConfig) -> DeliveryLimits:
    return DeliveryLimits(
        attempt_seconds=config.delivery_attempt_seconds,
        setbacks_max=config.delivery_setbacks_max,
        retry_seconds_min=config.delivery_retry_seconds_min,
        retry_seconds_max=config.delivery_retry_seconds_max,
    )


def _now_us() -> int:
    return time.time_ns() // NANOSECONDS_PER_MICROSECOND


def _size(content: Any) -> int:
    size: int = content.ByteSize()
    return size
