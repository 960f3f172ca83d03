"""Backups that this hub makes in the background, and what it remembers of those that failed.

That is for those who ask; nothing rests on it. What a storage server has is the truth.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any, Final

from hub.core.backups.backup import Backup, BackupState, Manifest
from messagehub.errors import HubError, InternalError, QueueFull, ShuttingDown

FAILURES_KEPT: Final = 100
RETRY_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


class Jobs:
    """Everything runs on the loop; at most `running_max` are on their way."""

    def __init__(self, *, running_max: int) -> None:
        self._running_max = running_max
        self._running: dict[str, tuple[Manifest, asyncio.Task[None]]] = {}
        self._failed: OrderedDict[str, Backup] = OrderedDict()

    def start(self, manifest: Manifest, work: Coroutine[Any, Any, None]) -> None:
        """Begins the work on a backup; raises `QueueFull`, and then the work is closed."""
        if len(self._running) >= self._running_max:
            work.close()
            raise QueueFull(
                f"{self._running_max} backups are being made (backups_running_max): wait for one",
                retry_after=RETRY_SECONDS,
            )
        self._failed.pop(manifest.backup_id, None)
        task = asyncio.get_running_loop().create_task(
            self._run(manifest, work), name=f"backup-{manifest.backup_id}"
        )
        self._running[manifest.backup_id] = manifest, task

    def get(self, backup_id: str) -> Backup | None:
        """Gives a backup that is being made here, or that failed."""
        if (running := self._running.get(backup_id)) is not None:
            return Backup(running[0], BackupState.RUNNING)
        return self._failed.get(backup_id)

    def all(self) -> list[Backup]:
        """Gives all of them."""
        running = [Backup(manifest, BackupState.RUNNING) for manifest, _ in self._running.values()]
        return [*running, *self._failed.values()]

    def fail(self, manifest: Manifest, error: HubError) -> None:
        """Remembers why a backup failed."""
        self._failed[manifest.backup_id] = Backup(manifest, BackupState.FAILED, error=error)
        while len(self._failed) > FAILURES_KEPT:
            self._failed.popitem(last=False)

    def forget(self, backup_id: str) -> bool:
        """Forgets one that failed; False if none did."""
        return self._failed.pop(backup_id, None) is not None

    def cancel(self, backup_id: str) -> bool:
        """Ends the work on a backup; False if there is none here."""
        if (running := self._running.get(backup_id)) is None:
            return False
        running[1].cancel()
        return True

    async def wait(self, backup_id: str) -> None:
        """Waits until nothing is done with a backup here."""
        if (running := self._running.get(backup_id)) is not None:
            await asyncio.wait([running[1]])

    async def close(self) -> None:
        """The hub stops: what is on its way ends, and leaves nothing."""
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, manifest: Manifest, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            self.fail(manifest, ShuttingDown("it was cancelled, or its hub stopped"))
            raise
        except HubError as error:
            self.fail(manifest, error)
        except Exception:  # noqa: BLE001 - a defect must not end silently
            _log.exception("a backup failed by a defect", extra={"backup_id": manifest.backup_id})
            self.fail(manifest, InternalError("the backup failed by a defect; see the log"))
        finally:
            del self._running[manifest.backup_id]
