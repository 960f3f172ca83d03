"""Backups in the words of the public contract."""

from typing import Final

from hub.core.backups.backup import Backup, BackupState
from hub.core.backups.ports import Restored
from messagehub.errors import InvalidRequest
from messagehub.status import to_status
from messagehub.v1 import backup_service_pb2 as messages

PAGE_BACKUPS: Final = 100
PAGE_BACKUPS_MAX: Final = 1000
_STATES: Final = {
    BackupState.RUNNING: messages.BackupState.BACKUP_STATE_RUNNING,
    BackupState.COMPLETED: messages.BackupState.BACKUP_STATE_COMPLETED,
    BackupState.VERIFIED: messages.BackupState.BACKUP_STATE_VERIFIED,
    BackupState.FAILED: messages.BackupState.BACKUP_STATE_FAILED,
}


def backup_message(backup: Backup) -> messages.Backup:
    """Gives a backup as callers see it."""
    manifest = backup.manifest
    message = messages.Backup(
        backup_id=backup.backup_id,
        state=_STATES[backup.state],
        size_bytes=backup.size_bytes,
        progress=backup.progress,
        source_service=manifest.source_service,
        correlation_id=manifest.correlation_id,
        activity=backup.activity.kind if backup.activity else "",
        problems=backup.problems,
        tool_version=manifest.tool_version,
        schedule=manifest.schedule,
    )
    message.create_time.FromMicroseconds(manifest.create_time_us)
    message.duration.FromMicroseconds(manifest.duration_us)
    if backup.verified_us:
        message.verify_time.FromMicroseconds(backup.verified_us)
    if backup.error is not None:
        message.error.CopyFrom(to_status(backup.error))
    for one in manifest.databases:
        message.databases.add(
            database=one.database,
            sequence=one.sequence,
            epoch=one.epoch,
            schema_version=one.schema_version,
            checksum=one.checksum,
            size_bytes=one.size_bytes,
            compressed_bytes=one.compressed_bytes,
            rows=one.rows,
        )
    return message


def restored_message(restored: Restored) -> messages.RestoredDatabase:
    """Gives a database that was replaced."""
    return messages.RestoredDatabase(
        database=restored.database,
        epoch=restored.epoch,
        sequence=restored.sequence,
        dropped_transaction_id=restored.dropped_transaction_id,
    )


def page_of(
    backups: list[Backup], request: messages.ListBackupsRequest
) -> tuple[list[Backup], str]:
    """Gives the page of backups, the newest first, that a request asks for, and the next token."""
    if not 0 <= request.page_size <= PAGE_BACKUPS_MAX:
        what = f"must be from 0 (for {PAGE_BACKUPS}) to {PAGE_BACKUPS_MAX}"
        raise InvalidRequest(f"page_size {what}", fields={"page_size": what})
    if request.page_token:
        backups = [one for one in backups if _place(one) < _after(request.page_token)]
    size = request.page_size or PAGE_BACKUPS
    page = backups[:size]
    return page, _token(page[-1]) if len(backups) > size else ""


def _place(backup: Backup) -> tuple[int, str]:
    return backup.manifest.create_time_us, backup.backup_id


def _token(backup: Backup) -> str:
    time_us, name = _place(backup)
    return f"{time_us:x}.{name}"


def _after(token: str) -> tuple[int, str]:
    time, dot, name = token.partition(".")
    try:
        time_us = int(time, 16)
    except ValueError:
        time_us = -1
    if not dot or time_us < 0:
        what = "must be the next_page_token of an answer"
        raise InvalidRequest(f"page_token {what}", fields={"page_token": what})
    return time_us, name
