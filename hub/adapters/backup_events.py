"""The events that tell how backups ended, each in the journal of every database in it."""

from collections.abc import Sequence
from typing import Final

from hub.core.announcements import Announcements
from hub.core.backups.backup import Manifest
from messagehub.errors import HubError
from messagehub.status import to_status
from messagehub.v1.event_pb2 import BackupFinished, Event

COMPLETED: Final = "storage.backup_completed"
FAILED: Final = "storage.backup_failed"
TYPED_CONTENT: Final = "application/protobuf"


class AnnouncedBackups:
    """The port `BackupEvents`."""

    def __init__(self, announcements: Announcements) -> None:
        self._announcements = announcements

    def completed(self, manifest: Manifest, databases: Sequence[str]) -> None:
        """Announces a backup that is whole."""
        self._tell(COMPLETED, manifest, databases, BackupFinished())

    def failed(self, manifest: Manifest, databases: Sequence[str], error: HubError) -> None:
        """Announces one that is not."""
        self._tell(FAILED, manifest, databases, BackupFinished(error=to_status(error)))

    def _tell(
        self, kind: str, manifest: Manifest, databases: Sequence[str], finished: BackupFinished
    ) -> None:
        finished.backup_id = manifest.backup_id
        finished.databases.extend(databases)
        finished.size_bytes = sum(one.compressed_bytes for one in manifest.databases)
        finished.duration.FromMicroseconds(manifest.duration_us)
        for database in databases:
            event = Event(type=kind, data_content_type=TYPED_CONTENT, backup_finished=finished)
            self._announcements.announce(database, event, correlation_id=manifest.correlation_id)
