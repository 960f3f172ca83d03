"""The part of the composition root that makes backups."""

import time
from datetime import UTC, datetime
from typing import Final

from hub import cron
from hub.adapters.backup_events import AnnouncedBackups
from hub.api.backup_requests import BackupRequests
from hub.api.backup_service import BackupService
from hub.atomic_transactions import AtomicTransactions
from hub.config import HubConfig
from hub.core.announcements import Announcements
from hub.core.backups.backups import Backups
from hub.core.backups.creation import Creation
from hub.core.backups.jobs import Jobs
from hub.core.backups.pinned_cuts import PinnedCuts
from hub.core.backups.ports import BackupServers
from hub.core.backups.restoration import Restorer
from hub.core.backups.retention import Retention
from hub.core.backups.schedules import Schedule, Schedules
from hub.core.routing.routes import Routes
from messagehub import __version__
from messagehub.serving import failpoints

NANOSECONDS_PER_MICROSECOND: Final = 1000


class ProvenBackups:
    """`service` and `requests` for the edge."""

    def __init__(
        self,
        config: HubConfig,
        *,
        routes: Routes,
        servers: BackupServers,
        transactions: AtomicTransactions,
        announcements: Announcements,
    ) -> None:
        creation = Creation(
            servers,
            PinnedCuts(
                transactions.surroundings, transactions.cuts, seconds=config.backup_cut_seconds
            ),
            AnnouncedBackups(announcements),
            now_us=_now_us,
            version=__version__,
        )
        restorer = Restorer(
            servers, databases=routes.databases, wait_seconds=config.restore_wait_seconds
        )
        self.backups = Backups(
            servers,
            creation,
            restorer,
            Jobs(running_max=config.backups_running_max),
            now_us=_now_us,
            reached=failpoints.reached,
        )
        self._schedules = Schedules(
            self.backups,
            _schedules(config, routes),
            now=lambda: datetime.now(UTC),
            clock=time.monotonic,
            look_seconds=config.backup_look_seconds,
            retry_seconds=config.backup_retry_seconds,
        )
        self.requests = BackupRequests(routes=routes, backups=self.backups)
        self.service = BackupService(routes=routes, backups=self.backups)

    def start(self) -> None:
        """Begins to look after the schedules."""
        self._schedules.start()

    async def stop(self) -> None:
        """What is on its way ends, and leaves nothing."""
        await self._schedules.stop()
        await self.backups.close()


def _schedules(config: HubConfig, routes: Routes) -> dict[str, Schedule]:
    return {
        name: Schedule(
            name,
            tuple(sorted(backup.databases or routes.databases)),
            cron.last_due(backup.schedule),
            Retention(backup.keep_last, backup.keep_daily, backup.keep_weekly),
        )
        for name, backup in config.backups.items()
    }


def _now_us() -> int:
    return time.time_ns() // NANOSECONDS_PER_MICROSECOND
