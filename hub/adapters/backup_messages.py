"""Backups in the words of the private contract, and back."""

from collections.abc import Sequence

from hub.core.backups.backup import Activity, BackedUp, Manifest, Stored
from hub.core.backups.ports import Restored
from messagehub.storage.v1 import backup_service_pb2 as storage

FORMAT = 1


def to_manifest(manifest: Manifest) -> storage.BackupManifest:
    """Gives a manifest as the storage servers keep it."""
    return storage.BackupManifest(
        format=FORMAT,
        backup_id=manifest.backup_id,
        source_service=manifest.source_service,
        correlation_id=manifest.correlation_id,
        create_time_us=manifest.create_time_us,
        duration_us=manifest.duration_us,
        tool_version=manifest.tool_version,
        schedule=manifest.schedule,
        databases=[
            one.record or storage.BackedUpDatabase(database=one.database)
            for one in manifest.databases
        ],
    )


def from_backed_up(database: storage.BackedUpDatabase) -> BackedUp:
    """Gives what is in a backup of one database."""
    return BackedUp(
        database=database.database,
        sequence=database.sequence,
        epoch=database.epoch,
        schema_version=database.schema_version,
        checksum=database.checksum,
        size_bytes=database.size_bytes,
        compressed_bytes=database.compressed_bytes,
        rows=sum(table.rows for table in database.tables),
        record=database,
    )


def from_stored(stored: storage.StoredBackup) -> Stored:
    """Gives what a storage server has of a backup."""
    manifest, proof = stored.manifest, stored.verification
    return Stored(
        Manifest(
            backup_id=manifest.backup_id,
            source_service=manifest.source_service,
            correlation_id=manifest.correlation_id,
            create_time_us=manifest.create_time_us,
            databases=tuple(map(from_backed_up, manifest.databases)),
            duration_us=manifest.duration_us,
            tool_version=manifest.tool_version,
            schedule=manifest.schedule,
        ),
        here=tuple(manifest.here),
        whole=stored.whole,
        damage=stored.damage,
        verified_us=proof.time_us,
        problems=tuple(proof.problems),
        activity=from_activity(stored.activity) if stored.HasField("activity") else None,
    )


def from_activity(activity: storage.BackupActivity) -> Activity:
    """Gives how far a piece of work is."""
    return Activity(activity.kind, activity.done_bytes, activity.total_bytes)


def from_restored(databases: Sequence[storage.RestoredDatabase]) -> list[Restored]:
    """Gives the databases that were replaced."""
    return [
        Restored(one.database, one.epoch, one.sequence, one.dropped_transaction_id)
        for one in databases
    ]
