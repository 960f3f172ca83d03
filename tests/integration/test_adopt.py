"""A database that exists is taken over whole: the same rows through the hub as from the file."""

import math
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from messagehub.v1 import hub_service_pb2, storage_service_pb2_grpc
from tests.support.calls import CALL_SECONDS, execute_request, query_request, rows, run_async
from tests.support.processes import REPOSITORY, run_command
from tests.support.refusals import refused
from tests.support.servers import Servers, running_servers

DATA_SET = REPOSITORY.parent / "shared" / "data" / "srd-2014.sqlite3"
needs_data_set = pytest.mark.skipif(
    not DATA_SET.exists(), reason=f"the data set is not there: {DATA_SET.name}"
)
STRONGEST = (
    "SELECT name, json_extract(data,'$.challenge_rating') AS cr FROM monsters "
    "WHERE cr >= 20 ORDER BY cr DESC"
)


def tables_of(file: Path) -> list[str]:
    if not file.exists():
        return []
    query = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    return [row[0] for row in from_file(file, query)]


def from_file(file: Path, query: str) -> list[tuple[Any, ...]]:
    """What the sqlite3 module reads from the file itself."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as connection:
        return connection.execute(query).fetchall()


async def through_hub(address: str, query: str, service: str = "catalog") -> list[tuple[Any, ...]]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = storage_service_pb2_grpc.StorageServiceStub(channel)
        call = stub.Query(query_request(query, service=service), timeout=60)
        return [row async for page in call for row in rows(page.result)]


async def adopt(address: str, database: str, file: Path) -> tuple[int, str, str]:
    return await run_command("adopt", database, str(file), "--target", address)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def adopted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a hub whose catalog is the data set."""
    async with running_servers(tmp_path_factory.mktemp("adopted")) as servers:
        status, output, errors = await adopt(servers.hub.address, "catalog_db", DATA_SET)
        assert status == 0, errors
        assert "monsters" in output
        yield servers.hub.address


@needs_data_set
@pytest.mark.parametrize("table", tables_of(DATA_SET))
async def test_a_table_of_the_data_set_has_the_rows_of_the_file(adopted: str, table: str) -> None:
    query = f'SELECT * FROM "{table}" ORDER BY rowid'
    expected = from_file(DATA_SET, query)
    assert expected
    assert await through_hub(adopted, query) == expected


@needs_data_set
async def test_the_data_set_answers_questions_as_the_file_does(adopted: str) -> None:
    expected = from_file(DATA_SET, STRONGEST)
    assert len(expected) > 5
    assert await through_hub(adopted, STRONGEST) == expected
    schema = "SELECT type, name, sql FROM sqlite_master ORDER BY name, type"
    found = await through_hub(adopted, schema)
    assert [row for row in found if "_messagehub_" not in row[1]] == from_file(DATA_SET, schema)


@needs_data_set
async def test_the_command_prints_the_rows_of_the_file(adopted: str) -> None:
    status, output, errors = await run_command("sql", "catalog_db", STRONGEST, "--target", adopted)
    assert status == 0, errors
    printed = [tuple(line.split("\t")) for line in output.splitlines()]
    expected = [(name, str(rating)) for name, rating in from_file(DATA_SET, STRONGEST)]
    assert printed[-len(expected) :] == expected


@needs_data_set
async def test_a_database_that_holds_tables_is_not_overwritten(adopted: str) -> None:
    before = await through_hub(adopted, "SELECT count(*) FROM monsters")
    status, _, errors = await adopt(adopted, "catalog_db", DATA_SET)
    assert status != 0
    assert "DATABASE_NOT_EMPTY" in errors
    assert await through_hub(adopted, "SELECT count(*) FROM monsters") == before


def make_odd_database(file: Path) -> None:
    """Everything that a file may hold and that a copy row by row would lose."""
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(
            """
            PRAGMA journal_mode = WAL;
            PRAGMA user_version = 42;
            CREATE TABLE "two words" ("index" TEXT PRIMARY KEY, n, "naïve ✓" BLOB) WITHOUT ROWID;
            CREATE TABLE parents (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT COLLATE NOCASE);
            CREATE TABLE children (parent REFERENCES parents (id) ON DELETE CASCADE,
                doubled INTEGER GENERATED ALWAYS AS (parent * 2) STORED);
            CREATE TABLE empty (void);
            CREATE UNIQUE INDEX by_name ON parents (name) WHERE name <> '';
            CREATE VIEW families AS SELECT name, doubled FROM parents JOIN children ON id = parent;
            CREATE TRIGGER grow AFTER INSERT ON parents BEGIN
                INSERT INTO children (parent) VALUES (new.id); END;
            INSERT INTO parents (id, name) VALUES (41, 'Ada'), (2, '');
            DELETE FROM parents WHERE id = 41;
            """
        )
        values = ("", None, 2**63 - 1, -(2**63), 0.1, -0.0, math.inf, "\x00", b"", b"\xff", "✓")
        connection.executemany(
            'INSERT INTO "two words" VALUES (?, ?, ?)',
            [(f"{place:02}", value, value) for place, value in enumerate(values)],
        )
        connection.commit()


async def test_an_odd_database_is_adopted_whole_while_it_is_open(
    servers: Servers, tmp_path: Path
) -> None:
    file = tmp_path / "odd one.sqlite3"
    make_odd_database(file)
    with closing(sqlite3.connect(file)) as writing:
        # Somebody else is writing to it; what is not committed is not there.
        writing.execute("BEGIN IMMEDIATE")
        writing.execute("INSERT INTO parents (name) VALUES ('uncommitted')")
        status, _, errors = await adopt(servers.hub.address, "metrics_db", file)
        assert status == 0, errors
        writing.rollback()
        for query in (
            'SELECT * FROM "two words" ORDER BY "index"',
            'SELECT typeof(n), typeof("naïve ✓") FROM "two words" ORDER BY "index"',
            "SELECT * FROM parents",
            "SELECT * FROM children",
            "SELECT * FROM families",
            "SELECT * FROM empty",
            "SELECT name, seq FROM sqlite_sequence",
            "PRAGMA user_version",
        ):
            found = await through_hub(servers.hub.address, query, "metrics")
            assert found == writing.execute(query).fetchall(), query


async def test_an_adopted_database_can_be_written(
    servers: Servers, storage_stub: Any, tmp_path: Path
) -> None:
    file = tmp_path / "small.sqlite3"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("CREATE TABLE heroes (name UNIQUE); INSERT INTO heroes VALUES (1)")
    status, _, errors = await adopt(servers.hub.address, "auth_db", file)
    assert status == 0, errors
    await run_async(storage_stub, "INSERT INTO heroes VALUES (2)", service="auth")
    with refused("FAILED_PRECONDITION", "CONSTRAINT_VIOLATION"):
        await run_async(storage_stub, "INSERT INTO heroes VALUES (1)", service="auth")
    found = await run_async(storage_stub, "SELECT name FROM heroes", service="auth")
    assert rows(found) == [(1,), (2,)]
    # The file itself is left alone.
    assert from_file(file, "SELECT name FROM heroes") == [(1,)]
    assert tables_of(file) == ["heroes"]


async def test_what_is_no_database_is_not_adopted(servers: Servers, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("this is no database, whatever it is called\n" * 100, "utf-8")
    status, _, errors = await adopt(servers.hub.address, "campaign_db", file)
    assert status != 0
    assert "notes.txt" in errors
    assert await through_hub(servers.hub.address, "SELECT 1", "campaign") == [(1,)]


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev"])
async def test_a_device_or_a_directory_is_not_adopted(servers: Servers, path: str) -> None:
    status, output, errors = await adopt(servers.hub.address, "campaign_db", Path(path))
    assert (status, output) == (1 if path != "/dev" else 2, "")
    assert path in errors
    assert await through_hub(servers.hub.address, "SELECT 1", "campaign") == [(1,)]


async def test_outcomes_and_events_from_before_stay(
    storage_stub: Any, servers: Servers, tmp_path: Path
) -> None:
    async def execute(query: str, **envelope: str) -> Any:
        request = execute_request(query, service="campaign", **envelope)
        return await storage_stub.Execute(request, timeout=CALL_SECONDS)

    request_id = "0190a000-0000-7000-8000-00000000ad01"
    first = await execute("CREATE TABLE once (n)", request_id=request_id)
    last = await execute("DROP TABLE once")
    file = tmp_path / "heroes.sqlite3"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE heroes (name)")
    status, _, errors = await adopt(servers.hub.address, "campaign_db", file)
    assert status == 0, errors
    again = await execute("CREATE TABLE once (n)", request_id=request_id)
    assert (again.replayed, again.sequence) == (True, first.sequence)
    written = await execute("INSERT INTO heroes VALUES ('Ada')")
    assert written.sequence == last.sequence + 1
    await execute("DROP TABLE heroes")


def pieces(content: bytes, **first: Any) -> list[hub_service_pb2.AdoptDatabaseRequest]:
    header: dict[str, Any] = {"source_service": "campaign", "size_bytes": len(content)}
    return [hub_service_pb2.AdoptDatabaseRequest(chunk=content, **(header | first))]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"checksum": "0" * 64}, "checksum"),
        ({"checksum": "nonsense"}, "checksum"),
        ({"size_bytes": 0, "checksum": "0" * 64}, "size_bytes"),
    ],
)
async def test_a_file_that_arrived_damaged_is_refused(
    hub_stub: Any, storage_stub: Any, fields: dict[str, Any], field: str
) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as refusal:
        await hub_stub.AdoptDatabase(iter(pieces(b"x" * 100, **fields)), timeout=CALL_SECONDS)
    assert list(refusal.fields) == [field]
    assert rows(await run_async(storage_stub, "SELECT 1", service="campaign")) == [(1,)]


async def test_a_file_that_brings_tables_of_the_hub_is_refused(
    servers: Servers, tmp_path: Path
) -> None:
    file = tmp_path / "sly.sqlite3"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(
            "CREATE TABLE heroes (name); CREATE TABLE _messagehub_journal (sequence);"
        )
    status, _, _ = await adopt(servers.hub.address, "character_db", file)
    assert status != 0
    query = "SELECT count(*) FROM sqlite_master WHERE name = 'heroes'"
    assert await through_hub(servers.hub.address, query, "character") == [(0,)]
