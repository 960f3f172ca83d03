"""A full disk during a backup, its proof and a restore: told, nothing left, nothing changed."""

import os
from pathlib import Path

import pytest

from messagehub.backup_records import BackupState
from messagehub.client import Hub
from messagehub.errors import StorageFull
from tests.fault.test_disk_trouble import small_disk
from tests.support.servers import running_servers

MEBIBYTE = 1024 * 1024
DATABASES = ("character_db",)


async def filled(hub: Hub) -> None:
    await hub.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, content BLOB)")
    for _ in range(8):
        await hub.execute("INSERT INTO notes (content) VALUES (?)", [os.urandom(MEBIBYTE // 4)])


def fill(disk: Path) -> Path:
    """Leaves less room than a copy needs."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    ballast.write_bytes(b"x" * max(0, free - MEBIBYTE))
    return ballast


async def tried(hub: Hub, step: str, backup_id: str) -> None:
    if step == "create":
        await hub.create_backup(DATABASES)
    elif step == "verify":
        await hub.verify_backup(backup_id)
    else:
        await hub.restore_backup(backup_id)


@pytest.mark.parametrize("step", ["create", "verify", "restore"])
async def test_a_full_disk(tmp_path: Path, step: str) -> None:
    with small_disk(tmp_path / "disk", "24m") as disk:
        async with (
            running_servers(disk, hub={"data_dir": str(tmp_path / "hub")}) as servers,
            Hub(servers.hub.address, service="character", timeout=20) as hub,
        ):
            await filled(hub)
            backup = None if step == "create" else await hub.create_backup(DATABASES, verify=False)
            ballast = fill(disk)
            with pytest.raises(StorageFull):
                await tried(hub, step, backup.id if backup else "")
            left = [p for p in disk.rglob(".*") if p.is_dir()]
            assert left == []
            assert (await hub.execute("SELECT count(*) FROM notes")).rows == [(8,)]
            ballast.unlink()
            backup = backup or await hub.create_backup(DATABASES)
            assert (await hub.verify_backup(backup.id)).state is BackupState.VERIFIED
            await hub.restore_backup(backup.id)
            assert (await hub.execute("SELECT count(*) FROM notes")).rows == [(8,)]
