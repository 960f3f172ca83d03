"""Schema updates through a hub: one database and five, rehearsed, raced, observed."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from messagehub.client import Hub
from messagehub.errors import (
    ConstraintViolation,
    HubError,
    InvalidRequest,
    InvalidStatement,
    InvalidVersion,
    RequestIdReused,
    SchemaMismatch,
)
from messagehub.events import Event
from messagehub.schema.scripts import checksum
from messagehub.schemas import SchemaUpdate
from messagehub.v1.event_pb2 import EventDraft, SchemaRequest
from messagehub.v1.event_service_pb2 import PublishEventRequest
from messagehub.v1.event_service_pb2_grpc import EventServiceStub
from tests.support.eventually import eventually
from tests.support.servers import Servers, running_hub, running_servers

SERVICES = ("auth", "campaign", "catalog", "character", "metrics")
DATABASES = tuple(f"{service}_db" for service in SERVICES)
HEROES = "CREATE TABLE heroes (id INTEGER PRIMARY KEY, name TEXT NOT NULL);"
TIMEOUT = 30.0


@pytest_asyncio.fixture(loop_scope="session")
async def fresh(tmp_path: Any) -> AsyncIterator[Servers]:
    async with running_servers(
        tmp_path, hub={"required_versions": {"character_db": ">=1.0 <2"}}
    ) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def hub(fresh: Servers) -> AsyncIterator[Hub]:
    async with Hub(fresh.hub.address, service="character", timeout=TIMEOUT) as opened:
        yield opened


def everywhere(version: str, script: str = HEROES, rollback: str = "") -> list[SchemaUpdate]:
    return [SchemaUpdate(version, script, rollback, database=name) for name in DATABASES]


async def versions(hub: Hub) -> dict[str, str]:
    return {one.database: one.version for one in (await hub.schemas()).schemas}


@asynccontextmanager
async def schema_events(hub: Hub, **filters: Any) -> AsyncIterator[list[Event]]:
    """Collects events while the block runs; ready when it begins."""
    found: list[Event] = []
    wanted = {"types": ["schema.*", "storage.schema_*"], "databases": "*"} | filters
    async with hub.subscribe(**wanted, start="earliest") as stream:

        async def read() -> None:
            async for event in stream:
                found.append(event)  # noqa: PERF401 - as they come

        reading = asyncio.create_task(read())
        try:
            yield found
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def test_one_database_is_updated_and_tells_of_it(hub: Hub) -> None:
    correlation_id = uuid.uuid4().hex
    async with schema_events(hub, correlation_id=correlation_id) as found:
        answer = await hub.update_schema(
            [SchemaUpdate("1.0.0", HEROES, description="heroes")], correlation_id=correlation_id
        )
        await eventually(lambda: len(found) >= 4)
    (result,) = answer.results
    assert (result.database, result.from_version, result.to_version) == (
        "character_db",
        "",
        "1.0.0",
    )
    assert [statement.statement for statement in result.statements] == [HEROES[:-1]]
    assert [event.type for event in found] == [
        "schema.update_requested",
        "schema.update_started",
        "schema.update_completed",
        "storage.schema_updated",
    ]
    assert {event.data.checksum for event in found} == {checksum(HEROES)}
    assert {event.source for event in found} == {"character"}
    schema = await hub.schema()
    assert (schema.version, schema.drifted) == ("1.0.0", False)
    assert [table.name for table in schema.tables] == ["heroes"]
    result = await hub.execute("SELECT 1")
    assert result.schema_version == "1.0.0"
    status = await hub.status()
    shown = {one.database: one.schema_version for one in status.databases}
    assert shown["character_db"] == "1.0.0"


async def test_five_databases_change_together_or_not_at_all(hub: Hub) -> None:
    await hub.update_schema(everywhere("1.0.0"))
    assert set((await versions(hub)).values()) == {"1.0.0"}
    updates = everywhere("1.1.0", "ALTER TABLE heroes ADD COLUMN level INTEGER;")
    updates[3] = SchemaUpdate("1.1.0", "CREATE TABLE x (a); nonsense", database=DATABASES[3])
    correlation_id = uuid.uuid4().hex
    async with schema_events(hub, correlation_id=correlation_id) as found:
        with pytest.raises(InvalidStatement) as refusal:
            await hub.update_schema(updates, correlation_id=correlation_id)
        await eventually(lambda: sum(e.type == "schema.update_failed" for e in found) == 5)
    assert refusal.value.metadata["statement_number"] == "2"
    assert refusal.value.metadata["database"] == DATABASES[3]
    assert not any(event.type == "schema.update_completed" for event in found)
    for database in DATABASES:
        schema = await hub.schema(database)
        assert (schema.version, len(schema.history)) == ("1.0.0", 1)
        assert [table.name for table in schema.tables] == ["heroes"]
        assert [column.name for column in schema.tables[0].columns] == ["id", "name"]


async def test_the_same_call_is_done_once(hub: Hub) -> None:
    request_id = str(uuid.uuid4())
    first = await hub.update_schema(everywhere("1.0.0"), request_id=request_id)
    again = await hub.update_schema(everywhere("1.0.0"), request_id=request_id)
    assert (first.replayed, again.replayed) == (False, True)
    assert [one.to_version for one in again.results] == ["1.0.0"] * 5
    with pytest.raises(RequestIdReused):
        await hub.update_schema(everywhere("1.1.0"), request_id=request_id)
    with pytest.raises(InvalidVersion):
        await hub.update_schema(everywhere("1.0.0"))


async def test_a_dry_run_runs_everything_and_leaves_nothing(hub: Hub) -> None:
    async with schema_events(hub) as found:
        updates = [
            *everywhere("1.0.0"),
            SchemaUpdate("1.1.0", "DROP TABLE heroes; nonsense; SELECT 1", database="auth_db"),
            SchemaUpdate("1.2.0", "", database="auth_db"),
        ]
        answer = await hub.update_schema(updates, dry_run=True)
        await hub.execute("SELECT 1")
    assert [(one.database, one.to_version) for one in answer.results] == [
        *((name, "1.0.0") for name in DATABASES),
        ("auth_db", "1.1.0"),
    ]
    dropped, failed = answer.results[-1].statements
    assert list(dropped.warnings) == ["drops the table heroes with all its rows"]
    assert failed.error.message
    assert not found
    assert set((await versions(hub)).values()) == {""}


async def test_a_rollback_leads_back_and_may_be_rehearsed(hub: Hub) -> None:
    await hub.update_schema(
        [
            SchemaUpdate("1.0.0", HEROES, "DROP TABLE heroes"),
            SchemaUpdate("1.1.0", "CREATE TABLE x (a)", "DROP TABLE x"),
            SchemaUpdate("1.2.0", "CREATE TABLE y (a)", "DROP TABLE y"),
        ]
    )
    tried = await hub.rollback_schema("1.0.0", dry_run=True)
    assert (await hub.schema()).version == "1.2.0"
    done = await hub.rollback_schema("1.0.0")
    assert [(r.from_version, r.to_version) for r in done.results] == [
        (r.from_version, r.to_version) for r in tried.results
    ]
    schema = await hub.schema()
    assert (schema.version, [t.name for t in schema.tables]) == ("1.0.0", ["heroes"])
    with pytest.raises(InvalidVersion):
        await hub.rollback_schema("1.0.0")


async def test_operations_are_checked_against_the_version(hub: Hub) -> None:
    with pytest.raises(SchemaMismatch):
        await hub.execute("SELECT 1", schema_version="*")
    await hub.update_schema([SchemaUpdate("1.2.0", HEROES)])
    await hub.execute("INSERT INTO heroes (name) VALUES ('Ada')", schema_version=">=1.2 <2")
    assert [row async for row in hub.query("SELECT name FROM heroes", schema_version="1.2")]
    for call in (
        hub.execute("DELETE FROM heroes", schema_version=">=2"),
        anext(aiter(hub.query("SELECT name FROM heroes", schema_version=">=2"))),
        hub.execute_transaction([_operation("DELETE FROM heroes", schema_version=">=2")]),
    ):
        with pytest.raises(SchemaMismatch) as refusal:
            await call
        assert refusal.value.metadata["wanted"] == ">=2"
        assert refusal.value.metadata["actual"] == "1.2.0"
    async with hub.transaction("character_db") as transaction:
        with pytest.raises(SchemaMismatch):
            await transaction.execute("DELETE FROM heroes", schema_version=">=2")
    with pytest.raises(InvalidRequest):
        await hub.execute("SELECT 1", schema_version="nonsense")
    submitted = await hub.submit("DELETE FROM heroes", schema_version=">=2")

    async def has_ended() -> bool:
        return (await hub.operation(submitted.request_id)).state.final

    await eventually(has_ended)
    assert isinstance((await hub.operation(submitted.request_id)).error, SchemaMismatch)
    assert (await hub.execute("SELECT count(*) FROM heroes")).rows == [(1,)]


def _operation(query: str, **more: Any) -> Any:
    from messagehub.results import Operation

    return Operation(query, **more)


async def test_cached_statements_see_the_new_shape(hub: Hub) -> None:
    await hub.update_schema([SchemaUpdate("1.0.0", HEROES)])
    await hub.execute("INSERT INTO heroes (name) VALUES ('Ada')")
    for _ in range(20):  # on every reader
        assert (await hub.execute("SELECT * FROM heroes")).columns == ("id", "name")
    await hub.update_schema(
        [SchemaUpdate("1.1.0", "ALTER TABLE heroes ADD COLUMN level INTEGER DEFAULT 7")]
    )
    for _ in range(20):
        result = await hub.execute("SELECT * FROM heroes")
        assert result.columns == ("id", "name", "level")
        assert result.rows == [(1, "Ada", 7)]


async def test_schemas_are_compared_with_what_is_required(hub: Hub) -> None:
    await hub.update_schema([SchemaUpdate("1.0.0", HEROES)])
    await hub.execute("CREATE TABLE by_hand (a)")
    shown = {one.database: one for one in (await hub.schemas({"auth_db": ">=1"})).schemas}
    character, auth, metrics = (shown[name] for name in ("character_db", "auth_db", "metrics_db"))
    assert (character.required_version, character.compatible, character.drifted) == (
        ">=1.0 <2",
        True,
        True,
    )
    assert (auth.required_version, auth.compatible, auth.drifted) == (">=1", False, False)
    assert (metrics.required_version, metrics.compatible) == ("", True)


async def test_an_update_may_be_asked_for_by_an_event(hub: Hub) -> None:
    stub = EventServiceStub(hub.channel)

    def request(version: str, script: str, correlation_id: str) -> PublishEventRequest:
        update = SchemaUpdate(version, script).message()
        draft = EventDraft(
            type="storage.schema_request", schema_request=SchemaRequest(updates=[update])
        )
        return PublishEventRequest(
            source_service="character", correlation_id=correlation_id, event=draft
        )

    async with schema_events(
        hub, types=["storage.schema_updated", "schema.update_failed"]
    ) as found:
        await stub.PublishEvent(request("1.0.0", HEROES, "good"), timeout=TIMEOUT)
        await stub.PublishEvent(request("1.1.0", "nonsense", "bad"), timeout=TIMEOUT)
        await eventually(lambda: len(found) == 2)
    assert [(event.type, event.correlation_id) for event in found] == [
        ("storage.schema_updated", "good"),
        ("schema.update_failed", "bad"),
    ]


async def test_of_two_hubs_one_wins_and_the_other_is_told(fresh: Servers, hub: Hub) -> None:
    async with (
        running_hub(fresh.storage.address) as second,
        Hub(second.address, service="auth", timeout=TIMEOUT) as other,
    ):
        for number in range(1, 6):
            version = f"{number}.0.0"
            outcomes = await asyncio.gather(
                hub.update_schema(everywhere(version, f"CREATE TABLE a{number} (x)")),
                other.update_schema(everywhere(version, f"CREATE TABLE b{number} (x)")),
                return_exceptions=True,
            )
            failures = [one for one in outcomes if isinstance(one, BaseException)]
            assert len(failures) == 1
            assert isinstance(failures[0], HubError)
            assert failures[0].reason in ("INVALID_VERSION", "SCHEMA_HISTORY_CONFLICT")
            assert set((await versions(hub)).values()) == {version}
            shapes = [[t.name for t in (await hub.schema(n)).tables] for n in DATABASES]
            assert all(shape == shapes[0] for shape in shapes)


async def test_readers_and_writers_meet_no_error_while_an_update_runs(hub: Hub) -> None:
    await hub.update_schema(
        [SchemaUpdate("1.0.0", HEROES), SchemaUpdate("1.0.0", HEROES, database="auth_db")]
    )
    done, counts = asyncio.Event(), {"read": 0, "written": 0}

    async def write(database: str) -> None:
        while not done.is_set():
            await hub.execute("INSERT INTO heroes (name) VALUES ('x')", database=database)
            counts["written"] += 1

    async def read(database: str) -> None:
        while not done.is_set():
            await hub.execute("SELECT count(*), max(name) FROM heroes", database=database)
            counts["read"] += 1

    async with asyncio.TaskGroup() as tasks:
        for database in ("character_db", "auth_db"):
            for _ in range(4):
                tasks.create_task(write(database))
                tasks.create_task(read(database))
        for number in range(1, 6):
            script = f"""CREATE TABLE new (id INTEGER PRIMARY KEY, name TEXT NOT NULL, c{number});
            INSERT INTO new (id, name) SELECT id, name FROM heroes;
            DROP TABLE heroes; ALTER TABLE new RENAME TO heroes;
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
            SELECT count(*) FROM n;"""
            await hub.update_schema(
                [
                    SchemaUpdate(f"1.{number}.0", script, database=database)
                    for database in ("character_db", "auth_db")
                ]
            )
        done.set()
    assert counts["read"] > 0
    total = 0
    for database in ("character_db", "auth_db"):
        total += (await hub.execute("SELECT count(*) FROM heroes", database=database)).rows[0][0]
    assert total == counts["written"]


async def test_what_a_caller_may_not_change_is_refused(hub: Hub) -> None:
    for updates in (
        [],
        [SchemaUpdate("1.0", HEROES)],
        [SchemaUpdate("0.0.0", HEROES)],
        [SchemaUpdate("1.0.0", HEROES + "\0")],
        [SchemaUpdate("1.0.0", HEROES, description="x" * 2000)],
    ):
        with pytest.raises(InvalidRequest):
            await hub.update_schema(updates)
    with pytest.raises(InvalidVersion):
        await hub.update_schema([SchemaUpdate("1.1.0"), SchemaUpdate("1.0.0")])
    with pytest.raises(ConstraintViolation):
        await hub.update_schema(
            [
                SchemaUpdate(
                    "1.0.0",
                    "CREATE TABLE p (a PRIMARY KEY); CREATE TABLE c (a REFERENCES p);"
                    "INSERT INTO c VALUES (1)",
                )
            ]
        )
    assert (await hub.schema()).version == ""
