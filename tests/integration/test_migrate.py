"""`messagehub migrate` on the example's directories, as the README has it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from messagehub.client import Hub
from tests.support.processes import run_command
from tests.support.servers import running_servers

EXAMPLES = Path(__file__).parents[2] / "examples" / "migrations"
NEWEST = {
    "auth_db": "20240215093000.0.0",
    "campaign_db": "2.0.0",
    "catalog_db": "1.1.0",
    "character_db": "1.1.0",
    "metrics_db": "2.0.0",
}


async def versions(address: str) -> dict[str, str]:
    async with Hub(address, service="auth") as hub:
        return {one.database: one.version for one in (await hub.schemas()).schemas}


async def test_all_databases_are_led_to_their_newest_version_and_back(tmp_path: Path) -> None:
    async with running_servers(tmp_path) as servers:
        address = servers.hub.address

        async def migrate(*arguments: Any, status: int = 0) -> str:
            found, output, errors = await run_command(
                "migrate", *map(str, arguments), "--target", address
            )
            assert found == status, errors
            return output + errors

        rehearsed = await migrate("--all", EXAMPLES, "--dry-run")
        assert "nothing was changed: this was a dry run" in rehearsed
        assert set((await versions(address)).values()) == {""}
        told = await migrate("--all", EXAMPLES)
        assert "character_db: none -> 1.0.0" in told
        assert await versions(address) == NEWEST
        assert "nothing to do" in await migrate("--all", EXAMPLES)

        await migrate("character_db", EXAMPLES / "character", "--to", "1.0.0", status=1)
        assert await versions(address) == NEWEST, "nobody said yes"
        back = await migrate("character_db", EXAMPLES / "character", "--to", "1.0.0", "--yes")
        assert "- 1.1.0" in back
        assert (await versions(address))["character_db"] == "1.0.0"
        answer = json.loads(await migrate("character_db", EXAMPLES / "character", "--json"))
        assert [one["to_version"] for one in answer["results"]] == ["1.1.0"]

        copied = tmp_path / "character"
        shutil.copytree(EXAMPLES / "character", copied)
        (copied / "1.1.0__experience.sql").write_text("SELECT 1")
        assert "SCHEMA_HISTORY_CONFLICT" in await migrate("character_db", copied, status=1)
        (copied / "1.1.0__experience.sql").unlink()
        (copied / "1.1.0__experience.undo.sql").unlink()
        (copied / "1.2.0__broken.sql").write_text("SELECT 1; nonsense")
        refused = await migrate("character_db", copied, status=1)
        assert "INVALID_STATEMENT: statement 2 of the script to 1.2.0" in refused
        assert "FAILED" in await migrate("character_db", copied, "--dry-run", status=1)
        assert await versions(address) == NEWEST


async def test_a_database_with_tables_gets_a_baseline(tmp_path: Path) -> None:
    async with running_servers(tmp_path) as servers:
        async with Hub(servers.hub.address, service="metrics") as hub:
            await hub.execute(
                "CREATE TABLE measurements (id INTEGER PRIMARY KEY, name TEXT NOT NULL,"
                " at TEXT NOT NULL, value REAL NOT NULL)"
            )
        status, output, errors = await run_command(
            "migrate", "metrics", str(EXAMPLES / "metrics"), "--baseline", "1",
            "--target", servers.hub.address,
        )  # fmt: skip
        assert status == 0, errors
        assert "= 1.0.0  measurements (recorded only)" in output
        assert (await versions(servers.hub.address))["metrics_db"] == "2.0.0"


@pytest.mark.parametrize(
    "arguments", [["character_db"], ["--all", "a", "b"], ["--all", "a", "--to", "1.0.0"]]
)
async def test_what_is_typed_wrong_is_refused(arguments: list[str]) -> None:
    status, _, errors = await run_command("migrate", *arguments)
    assert status == 2
    assert "Usage" in errors
