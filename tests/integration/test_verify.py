"""`VerifyDeployment`: what must always hold is said, and what does not is named."""

import sqlite3
from contextlib import closing
from pathlib import Path

from messagehub.client import Hub
from tests.support.processes import run_command
from tests.support.servers import running_servers


async def test_what_holds_and_what_does_not(tmp_path: Path) -> None:
    async with (
        running_servers(tmp_path) as servers,
        Hub(servers.hub.address, service="character") as hub,
    ):
        await hub.execute("CREATE TABLE heroes (name)")
        for number in range(5):
            await hub.execute("INSERT INTO heroes VALUES (?)", [number])
        findings = (await hub.verify_deployment()).findings
        assert {one.database for one in findings} >= {"", "character_db", "campaign_db"}
        assert [one for one in findings if one.problem] == []
        status, output, _ = await run_command("verify", "--target", servers.hub.address)
        assert (status, "the journal is contiguous" in output) == (0, True)
        with closing(sqlite3.connect(servers.data_dir / "character_db.db")) as raw, raw:
            raw.execute("DELETE FROM _messagehub_journal WHERE sequence = 3")
        problems = [one for one in (await hub.verify_deployment()).findings if one.problem]
        assert [(one.database, one.invariant) for one in problems] == [
            ("character_db", "the journal is contiguous")
        ]
        status, _, errors = await run_command("verify", "--target", servers.hub.address)
        assert (status, "1 of" in errors) == (1, True)
