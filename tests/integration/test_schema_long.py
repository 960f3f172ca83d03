"""Scripts that take longer than a hub waits before it takes another one for gone."""

from pathlib import Path

import pytest

from messagehub.client import Hub
from messagehub.errors import DeadlineExceeded
from messagehub.schemas import SchemaUpdate
from tests.support.servers import running_hub, running_servers

DATABASES = ("auth_db", "campaign_db", "character_db")
SLOW = """WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000000)
SELECT count(*) FROM n;"""
ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
IMPATIENT = {"transaction_abandoned_seconds": 0.1}


@pytest.mark.parametrize("slow", DATABASES[1:])
async def test_another_hub_does_not_end_what_still_runs(tmp_path: Path, slow: str) -> None:
    async with (
        running_servers(tmp_path, hub=IMPATIENT, storage={"in_doubt_seconds": 0.05}) as servers,
        running_hub(servers.storage.address, **IMPATIENT),
        Hub(servers.hub.address, service="auth", timeout=100.0) as hub,
    ):
        updates = [
            SchemaUpdate("1.0.0", SLOW if name == slow else "SELECT 1", database=name)
            for name in DATABASES
        ]
        answer = await hub.update_schema(updates)
        assert [one.to_version for one in answer.results] == ["1.0.0"] * 3
        for name in DATABASES:  # nothing was begun twice
            page = await hub.schema(name)
            assert len(page.history) == 1


async def test_a_script_that_takes_too_long_leaves_nothing(tmp_path: Path) -> None:
    async with (
        running_servers(tmp_path, hub={"schema_seconds_max": 1.0}) as servers,
        Hub(servers.hub.address, service="auth", timeout=60.0) as hub,
    ):
        updates = [
            SchemaUpdate("1.0.0", "CREATE TABLE t (a);" + (ENDLESS if name == "auth_db" else ""),
                         database=name)
            for name in DATABASES
        ]  # fmt: skip
        with pytest.raises(DeadlineExceeded):
            await hub.update_schema(updates, timeout=30.0)
        for name in DATABASES:
            await hub.execute("CREATE TABLE t (a)", database=name)
            assert (await hub.schema(name)).version == ""
