"""The part of the composition root that makes transactions."""

import asyncio
import os
import random
import time
from typing import Any, Final

from hub.api.checks import RequestChecks
from hub.api.joined_statements import JoinedStatements
from hub.api.transaction_checks import TransactionChecks
from hub.api.transaction_service import TransactionService
from hub.config import HubConfig
from hub.core.background import Background
from hub.core.routing.routes import Routes
from hub.core.status import StatusBoard
from hub.core.transactions.coordinator import Coordinator
from hub.core.transactions.cuts import Cuts
from hub.core.transactions.endings import Endings
from hub.core.transactions.finishing import Finishing
from hub.core.transactions.forcing import Forcing
from hub.core.transactions.inquiries import Inquiries
from hub.core.transactions.interactive import Interactive
from hub.core.transactions.limits import TransactionLimits
from hub.core.transactions.live_attempts import LiveAttempts
from hub.core.transactions.locks import LockTable
from hub.core.transactions.ports import Participants
from hub.core.transactions.remembered import Remembered
from hub.core.transactions.resolver import Resolver
from hub.core.transactions.surroundings import Surroundings
from messagehub.errors import ShuttingDown
from messagehub.request_ids import new_request_id
from messagehub.serving import failpoints

NANOSECONDS_PER_MICROSECOND: Final = 1000
SEED_BYTES: Final = 32


class AtomicTransactions:
    """`service` and `joined` for the edge, `coordinator` for schemas.

    `cuts` pins databases at one moment, in `surroundings`. The resolver follows the status until
    `stop`.
    """

    def __init__(
        self,
        config: HubConfig,
        *,
        routes: Routes,
        participants: Participants,
        checks: RequestChecks,
        status: StatusBoard,
    ) -> None:
        self._background = Background()
        self.surroundings = surroundings = Surroundings(
            participants=participants,
            limits=_limits(config),
            background=self._background,
            clock=time.monotonic,
            now_us=_now_us,
            sleep=asyncio.sleep,
            random=random.random,
            unique=new_request_id,
            seed=lambda: os.urandom(SEED_BYTES),
            epoch=lambda database: status.database(database).epoch,
            size_of=_size,
            reached=failpoints.reached,
        )
        lanes, commits = LockTable(), LockTable()
        endings = Endings(surroundings)
        live = LiveAttempts(surroundings, endings)
        remembered = Remembered(config.transactions_kept_max)
        self.cuts = cuts = Cuts(surroundings, commits=commits)
        self._resolver = Resolver(surroundings, is_live=lambda name: live.get(name) is not None)
        status.listen(self._resolver.follow)
        self._interactive = Interactive(
            surroundings,
            live,
            Finishing(surroundings, endings, live, remembered),
            remembered,
            cuts,
            databases=routes.databases,
            lanes=lanes,
            commits=commits,
        )
        inquiries = Inquiries(
            surroundings,
            live,
            remembered,
            databases=routes.databases,
            is_stuck=self._resolver.is_stuck,
        )
        self.joined = JoinedStatements(routes=routes, interactive=self._interactive)
        self.coordinator = Coordinator(surroundings, endings, live, lanes=lanes, commits=commits)
        self.service = TransactionService(
            routes=routes,
            checks=TransactionChecks(config, routes=routes, checks=checks),
            coordinator=self.coordinator,
            cuts=cuts,
            interactive=self._interactive,
            inquiries=inquiries,
            forcing=Forcing(surroundings, inquiries),
        )

    async def stop(self, seconds: float) -> None:
        """Rolls back what is open, when no call comes any more; what takes longer others end."""
        reason = ShuttingDown("the hub that it was open in has stopped")
        self._interactive.close(reason)
        await self._background.close(seconds)
        await self._resolver.stop()


def _limits(config: HubConfig) -> TransactionLimits:
    return TransactionLimits(
        running_max=config.transactions_running_max,
        open_max=config.transactions_open_max,
        kept_max=config.transactions_kept_max,
        results_bytes_max=config.transaction_bytes_max,
        wait_seconds=config.transaction_wait_seconds,
        visible_seconds=config.transaction_visible_seconds,
        idle_seconds_max=config.transaction_idle_seconds_max,
        seconds_max=config.transaction_seconds_max,
        answer_seconds=config.storage_answer_seconds,
        settle_seconds=config.transaction_settle_seconds,
        abandoned_seconds=config.transaction_abandoned_seconds,
        lease_seconds=config.transaction_lease_seconds,
        busy_seconds=config.queue_retry_seconds,
        passing_attempts_max=config.retry_attempts_max,
        retry_seconds_min=config.transaction_retry_seconds_min,
        retry_seconds_max=config.transaction_retry_seconds_max,
    )


def _now_us() -> int:
    return time.time_ns() // NANOSECONDS_PER_MICROSECOND


def _size(result: Any) -> int:
    size: int = result.ByteSize()
    return size
