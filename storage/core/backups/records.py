"""The files of a backup that tell about it, and how they are read.

`manifest.json` is written last and has its sha256 beside it, in the format of `sha256sum`;
`verification.json` is written by each verification. Both are JSON, for people and for programs.
"""

import hashlib
from typing import Final

from google.protobuf import json_format
from google.protobuf.message import Message

from messagehub.errors import BackupCorrupt, BackupNotFound
from messagehub.storage.v1.backup_service_pb2 import (
    BackedUpDatabase,
    BackupManifest,
    BackupVerification,
    StoredBackup,
)
from storage.core.backups.packing import Packed
from storage.core.backups.shelf import Draft, Shelf

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
CHECKSUM: Final = "manifest.json.sha256"
VERIFICATION: Final = "verification.json"
BYTES_MAX: Final = 64 * 1024 * 1024


def write_manifest(draft: Draft, manifest: BackupManifest) -> None:
    """Writes the manifest and its checksum."""
    content = _encoded(manifest)
    with draft.create(MANIFEST) as file:
        file.write(content)
    with draft.create(CHECKSUM) as file:
        file.write(f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n".encode())


def write_verification(shelf: Shelf, backup_id: str, verification: BackupVerification) -> None:
    """Writes the result of a verification."""
    shelf.put(backup_id, VERIFICATION, _encoded(verification))


def read(shelf: Shelf, backup_id: str) -> StoredBackup:
    """Gives a whole backup; `damage` says so if its manifest is not what was written."""
    stored = StoredBackup(whole=True)
    try:
        stored.manifest.CopyFrom(_manifest(shelf, backup_id))
    except (OSError, ValueError, json_format.ParseError) as failure:
        stored.manifest.Clear()
        stored.manifest.backup_id = backup_id
        what = failure.strerror if isinstance(failure, OSError) else failure
        stored.damage = f"{MANIFEST}: {what}"
        return stored
    try:
        with shelf.open(backup_id, VERIFICATION) as file:
            found = json_format.Parse(file.read(BYTES_MAX), BackupVerification())
        stored.verification.CopyFrom(found)
    except FileNotFoundError:
        pass  # it was never verified
    except (OSError, ValueError, json_format.ParseError) as failure:
        stored.verification.problems.append(f"{VERIFICATION}: {failure}")
    return stored


def intact(stored: StoredBackup | None, backup_id: str) -> BackupManifest:
    """Gives the manifest; raises `BackupNotFound` or `BackupCorrupt`."""
    if stored is None or not stored.whole:
        raise BackupNotFound(f"there is no backup {backup_id}: list them to see what there is")
    if stored.damage:
        raise BackupCorrupt(f"the backup {backup_id} is damaged: {stored.damage}")
    return stored.manifest


def packed(database: BackedUpDatabase) -> Packed:
    """What the manifest says about a file."""
    return Packed(
        database.size_bytes,
        database.checksum,
        database.compressed_bytes,
        database.compressed_checksum,
    )


def _manifest(shelf: Shelf, backup_id: str) -> BackupManifest:
    with shelf.open(backup_id, MANIFEST) as file:
        content = file.read(BYTES_MAX)
    with shelf.open(backup_id, CHECKSUM) as file:
        expected = file.read(BYTES_MAX).decode("ascii", "replace")
    if expected.partition(" ")[0] != hashlib.sha256(content).hexdigest():
        raise ValueError(f"it does not match its checksum in {CHECKSUM}")
    manifest = json_format.Parse(content, BackupManifest())
    if manifest.format != FORMAT:
        raise ValueError(f"its format is {manifest.format}, this version reads {FORMAT}")
    if manifest.backup_id != backup_id:
        raise ValueError(f"it belongs to the backup {manifest.backup_id}")
    return manifest


def _encoded(message: Message) -> bytes:
    text = json_format.MessageToJson(message, preserving_proto_field_name=True, indent=2)
    return f"{text}\n".encode()
