"""Schedules of backups with two hubs: each backup is made once, and what is outlived goes."""

from pathlib import Path

from messagehub.backup_records import BackupState
from messagehub.client import Hub
from tests.support.eventually import eventually
from tests.support.servers import running_hub, running_servers

SECONDS_MAX = 90.0


async def test_two_hubs_make_one_backup(tmp_path: Path) -> None:
    backups = {
        "often": {"schedule": "* * * * *", "databases": ["auth_db", "character_db"]},
        "yearly": {"schedule": "0 0 1 1 *", "keep_last": 1},
    }
    settings = {"backups": {name: _config(**one) for name, one in backups.items()}}
    settings["backup_look_seconds"] = 0.05
    async with (
        running_servers(tmp_path, hub=settings) as servers,
        running_hub(servers.storage.address, **settings),
        Hub(servers.hub.address, service="character") as hub,
    ):

        async def made() -> bool:
            found = [one async for one in hub.backups()]
            verified = [one for one in found if one.state is BackupState.VERIFIED]
            return {one.schedule for one in verified} == set(backups)

        await eventually(made)
        found = [one async for one in hub.backups()]
        yearly = [one for one in found if one.schedule == "yearly"]
        assert len(yearly) == 1, "one time that was due, one backup"
        assert len(yearly[0].databases) == 5
        assert all(one.state is not BackupState.FAILED for one in found)


def _config(**fields: object) -> object:
    from hub.config import BackupConfig

    return BackupConfig(**fields)  # type: ignore[arg-type]
