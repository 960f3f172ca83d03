"""Getting databases out of a backup, into a place where they can be looked at."""

from collections.abc import Iterator
from pathlib import Path

from messagehub.storage.v1.backup_service_pb2 import BackedUpDatabase, BackupManifest
from storage.core.backups import packing, records
from storage.core.backups.database_files import DatabaseFiles
from storage.core.backups.packing import Damaged
from storage.core.backups.progress import Progress
from storage.core.backups.shelf import Shelf


def problems(
    shelf: Shelf,
    files: DatabaseFiles,
    backup_id: str,
    database: BackedUpDatabase,
    target: Path,
    progress: Progress,
) -> list[str]:
    """Unpacks one database and tells what is wrong with it; empty = nothing.

    Each names the file. Raises `OSError` where `target` cannot be written.
    """
    expected = records.packed(database)
    try:
        source = shelf.open(backup_id, database.file)
    except OSError as failure:
        return [f"{database.file} {failure.strerror or failure}".lower()]
    with source:
        try:
            packing.check(source, expected, progress)
            source.seek(0)
            with target.open("wb") as file:
                for chunk in packing.unpack(source, expected):
                    file.write(chunk)
                    progress.add(len(chunk))
        except Damaged as damage:
            return [f"{database.file} {damage}"]
    found = files.problems(target, database, progress)
    progress.add(database.size_bytes)
    return [f"{database.file}: {problem}" for problem in found]


def here(manifest: BackupManifest) -> Iterator[BackedUpDatabase]:
    """The databases whose files are beside the manifest."""
    return (one for one in manifest.databases if one.database in manifest.here)
