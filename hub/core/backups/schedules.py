"""Backups at their times, once each, however many hubs there are.

A backup that is due has a name that follows from its schedule and its time, so every hub asks for
the same one, and the storage servers make it once. Nothing is remembered: what is there, is done.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hub.core.backups.backup import BackupState
from hub.core.backups.backups import Backups, Wanted
from hub.core.backups.retention import Retention, outlived
from messagehub.errors import BackupNeeded, HubError

# Names of backups that follow from their schedule; made once for this purpose.
NAMESPACE: Final = uuid.UUID("5b9a2f0e-3b0c-5f7e-9d55-2f6f0f3f8a61")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When which databases are backed up, and which of these backups are kept.

    `due` gives the last time before now that a backup was due, and `retention` what stays.
    """

    name: str
    databases: tuple[str, ...]
    due: Callable[[datetime], datetime]
    retention: Retention


class Schedules:
    """Looks every `look_seconds`; one that failed is tried again after `retry_seconds`."""

    def __init__(
        self,
        backups: Backups,
        schedules: Mapping[str, Schedule],
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        look_seconds: float,
        retry_seconds: float,
    ) -> None:
        self._backups = backups
        self._schedules = schedules
        self._now = now
        self._clock = clock
        self._look_seconds = look_seconds
        self._retry_seconds = retry_seconds
        # By schedule: the backup that was begun last, and when.
        self._tried: dict[str, tuple[str, float]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look, if there is anything to look after."""
        if self._schedules:
            self._task = asyncio.get_running_loop().create_task(self._keep(), name="schedules")

    async def stop(self) -> None:
        """Ends it; a backup on its way is ended by `Backups`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def look(self) -> None:
        """Begins what is due, and deletes what is outlived."""
        for schedule in self._schedules.values():
            try:
                await self._make_due(schedule)
                await self._delete_outlived(schedule)
            except HubError as failure:
                _log.warning(
                    "a schedule of backups has to wait",
                    extra={"schedule": schedule.name, "detail": failure.message},
                )

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._look_seconds)
            await self.look()

    async def _make_due(self, schedule: Schedule) -> None:
        due = schedule.due(self._now())
        backup_id = name_of(schedule.name, due)
        known = await self._backups.look_up(backup_id)
        if known is not None and known.state is not BackupState.FAILED:
            return
        tried, tried_at = self._tried.get(schedule.name, ("", 0.0))
        if tried == backup_id and self._clock() - tried_at < self._retry_seconds:
            return
        self._tried[schedule.name] = backup_id, self._clock()
        if known is not None and known.addresses:
            await self._backups.delete(known, even_last_verified=False)
        await self._backups.create(
            Wanted(
                backup_id=backup_id,
                source_service="hub",
                correlation_id=backup_id,
                databases=schedule.databases,
                schedule=schedule.name,
            )
        )

    async def _delete_outlived(self, schedule: Schedule) -> None:
        every = [one for one in await self._backups.all() if one.manifest.schedule == schedule.name]
        for backup in outlived(every, schedule.retention):
            _log.info(
                "a backup is outlived",
                extra={"schedule": schedule.name, "backup_id": backup.backup_id},
            )
            # It may be the last of a database that the schedule does not have any more.
            with suppress(BackupNeeded):
                await self._backups.delete(backup, even_last_verified=False)


def name_of(schedule: str, due: datetime) -> str:
    """Names the backup of a schedule that is due at a time."""
    return str(uuid.uuid5(NAMESPACE, f"{schedule}/{due.isoformat()}"))
