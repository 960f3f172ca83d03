"""The command `messagehub` as a process of its own, against the fake hub."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from messagehub.cli.main import ENTRY_POINTS
from messagehub.errors import ConstraintViolation, DatabaseNotEmpty, StatementForbidden
from messagehub.v1.event_pb2 import OperationFailed
from tests.support.ports import free_address
from tests.unit.client.fake_hub import FakeHub, event, executed, message, page

SECONDS = 30.0


async def start(*arguments: str, **streams: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "messagehub"),
        *arguments,
        stdin=streams.get("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def finish(process: asyncio.subprocess.Process, given: str = "") -> tuple[int, str, str]:
    async with asyncio.timeout(SECONDS):
        output, errors = await process.communicate(given.encode() if given else None)
    return process.returncode or 0, output.decode(), errors.decode()


async def run_command(*arguments: str) -> tuple[int, str, str]:
    return await finish(await start(*arguments))


async def test_the_stubs_do_not_import_the_client() -> None:
    check = (
        "import sys, messagehub.v1.storage_service_pb2_grpc; "
        "sys.exit('messagehub.client' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", check)
    assert await process.wait() == 0


async def test_a_client_command_imports_no_server() -> None:
    check = (
        "import sys; from messagehub.cli.main import main; import messagehub.cli.sql; "
        "main.get_command(None, 'sql'); "
        "sys.exit(any(name.partition('.')[0] in ('hub', 'storage') for name in sys.modules))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", check)
    assert await process.wait() == 0
    assert ENTRY_POINTS == "messagehub.commands"


async def test_every_command_explains_itself() -> None:
    status, output, errors = await run_command("--help")
    assert (status, errors) == (0, "")
    for name in ("adopt", "events", "health", "hub", "sql", "status", "storage", "up"):
        assert f"\n  {name} " in output


async def test_sql_reads_as_the_databases_service(fake: FakeHub) -> None:
    fake.query.append([page((1, "Ada"), (2, None), columns=["id", "name"])])
    arguments = ("sql", "catalog_db", "SELECT ?", "--param", "7", "--target", fake.address)
    assert await run_command(*arguments) == (0, "id\tname\n1\tAda\n2\t\\N\n", "")
    [request] = fake.requests
    assert request.source_service == "catalog"
    assert request.database == "catalog_db"
    assert request.statement.parameters[0].integer == 7


async def test_sql_writes_and_prints_json(fake: FakeHub) -> None:
    answer = executed(database="auth_db", sequence=3)
    answer.result.rows_affected = 1
    fake.execute.append(answer)
    status, output, _ = await run_command(
        *("sql", "auth_db", "DELETE FROM a", "--json", "--service", "auth"),
        *("--target", fake.address),
    )
    assert status == 0
    assert json.loads(output)["rows_affected"] == 1
    assert fake.requests[0].source_service == "auth"


async def test_a_with_that_writes_is_executed(fake: FakeHub) -> None:
    fake.query.append([StatementForbidden("it writes")])
    fake.execute.append(executed((5,), columns=["id"]))
    query = "WITH x AS (SELECT 1) INSERT INTO a SELECT * FROM x RETURNING id"
    status, output, _ = await run_command("sql", "catalog_db", query, "--target", fake.address)
    assert (status, output) == (0, "id\n5\n")


async def test_a_refused_call_is_one_line_and_its_fields(fake: FakeHub) -> None:
    fake.execute.append(ConstraintViolation("name\nis taken", fields={"heroes.name": "is taken"}))
    assert await run_command("sql", "catalog_db", "DELETE", "--target", fake.address) == (
        1,
        "",
        "error: CONSTRAINT_VIOLATION: name is taken\n  heroes.name: is taken\n",
    )


async def test_a_hub_that_is_away_is_told_with_the_remedy() -> None:
    address = free_address()
    for command in (["sql", "catalog_db", "SELECT 1"], ["status"], ["health"], ["events"]):
        status, output, errors = await run_command(*command, "--target", address)
        assert (status, output) == (1, "")
        assert errors.count("\n") == 1
        assert address in errors
        assert "messagehub up" in errors


async def test_an_unknown_database_is_told_with_those_that_exist(fake: FakeHub) -> None:
    status, _, errors = await run_command("sql", "nope", "SELECT 1", "--target", fake.address)
    assert status == 1
    assert errors.startswith("error: INVALID_ROUTE: ")
    assert "catalog_db, character_db" in errors


async def test_statements_from_a_pipe_run_up_to_the_first_that_fails(fake: FakeHub) -> None:
    fake.query.append([page((1,), columns=["a"])])
    fake.execute.extend([executed(database="catalog_db", sequence=8), ConstraintViolation("no")])
    process = await start("sql", "catalog_db", "--target", fake.address, stdin=subprocess.PIPE)
    status, output, errors = await finish(
        process, "SELECT 1; INSERT INTO a VALUES (';');\n\nDELETE FROM a;\nDELETE FROM b;"
    )
    assert status == 1
    assert output == "a\n1\n0 rows affected; catalog_db is at 8\n"
    assert errors.splitlines() == [
        "error: CONSTRAINT_VIOLATION: no",
        "  the statement begins on line 3 of standard input",
    ]
    assert fake.requests[1].statement.query == "INSERT INTO a VALUES (';');"


async def test_a_reader_that_goes_away_is_no_error(fake: FakeHub) -> None:
    fake.query.append([page(*[("x" * 100,) for _ in range(1000)], columns=["a"])] * 100)
    process = await start("sql", "catalog_db", "SELECT 1", "--target", fake.address)
    assert await process.stdout.readline() == b"a\n"
    process.stdout._transport.close()
    async with asyncio.timeout(SECONDS):
        assert await process.stderr.read() == b""
        assert await process.wait() == 1


async def test_ctrl_c_is_quiet(fake: FakeHub) -> None:
    fake.query.append([page((1,), columns=["a"]), asyncio.Event().wait()])
    process = await start("sql", "catalog_db", "SELECT 1", "--target", fake.address)
    async with asyncio.timeout(SECONDS):
        await fake.page_sent.wait()
    process.send_signal(signal.SIGINT)
    status, _, errors = await finish(process)
    assert (status, errors) == (130, "")
    async with asyncio.timeout(SECONDS):
        await fake.cancelled.wait()


async def test_events_are_lines_at_once_and_ctrl_c_ends_them_well(fake: FakeHub) -> None:
    failed = event(2, type="storage.operation_failed")
    failed.operation_failed.CopyFrom(OperationFailed(query="DELETE\nFROM a"))
    answer = message(1)
    answer.events.append(failed)
    fake.subscribe.append([answer, asyncio.Event().wait()])
    process = await start("events", "--type", "storage.*", "--target", fake.address)
    async with asyncio.timeout(SECONDS):
        first = (await process.stdout.readline()).decode()
        second = (await process.stdout.readline()).decode()
    assert "character_db 1  storage.operation_completed  character  INSERT INTO heroes" in first
    assert "(1 row)" in first
    assert "storage.operation_failed  character  DELETE FROM a (INTERNAL" in second
    process.send_signal(signal.SIGINT)
    assert await finish(process) == (0, "", "")
    [request] = fake.requests
    assert list(request.databases) == ["*"]
    assert list(request.event_types) == ["storage.*"]
    assert request.latest


async def test_events_in_json_are_cloud_events_with_a_cursor(fake: FakeHub) -> None:
    fake.subscribe.append([message(1), asyncio.Event().wait()])
    process = await start(
        *("events", "--json", "--from", "earliest", "--database", "character_db"),
        *("--target", fake.address),
    )
    async with asyncio.timeout(SECONDS):
        shown = json.loads(await process.stdout.readline())
    process.send_signal(signal.SIGINT)
    assert (await finish(process))[0] == 0
    assert shown["specversion"] == "1.0"
    assert shown["id"] == "character_db/e1/1"
    assert shown["time"] == "2025-11-24T16:00:00.123Z"
    assert shown["data"]["query"] == "INSERT INTO heroes (name) VALUES (?)"
    assert shown["cursor"] == "cursor-1"
    assert fake.requests[0].earliest
    assert fake.requests[0].source_service == "character"


async def test_the_status_is_one_screen(fake: FakeHub) -> None:
    status, output, _ = await run_command("status", "--target", fake.address)
    assert status == 0
    assert "open to everyone" in output
    assert "UNAVAILABLE" in output
    assert "catalog_db: the disk is on fire" in output
    status, output, _ = await run_command("status", "--json", "--target", fake.address)
    assert json.loads(output)["databases"][0]["database"] == "character_db"


async def test_the_status_can_wait_for_readiness(fake: FakeHub) -> None:
    fake.status.ready = False
    arguments = ("status", "--json", "--target", fake.address, "--wait")
    status, output, _ = await run_command(*arguments, "0.2")
    assert (status, json.loads(output)["ready"]) == (1, False)
    process = await start(*arguments, "30")
    fake.status.ready = True
    status, output, _ = await finish(process)
    assert (status, json.loads(output)["ready"]) == (0, True)


async def test_health_exits_as_the_name_stands(fake: FakeHub) -> None:
    fake.health.set("storage.catalog_db", serving=False)
    target = ("--target", fake.address)
    assert (await run_command("health", "liveness", *target))[0] == 0
    assert (await run_command("health", "storage.catalog_db", *target))[0] == 1
    assert (await run_command("health", "nobody", *target))[0] == 1
    status, output, _ = await run_command("health", "--json", *target)
    assert status == 1
    names = json.loads(output)
    assert names[""] == "NOT_SERVING"
    assert names["storage.catalog_db"] == "NOT_SERVING"
    assert names["messagehub.v1.EventService"] == "SERVICE_UNKNOWN"
    fake.health.set("", serving=True)
    assert (await run_command("health", *target))[0] == 0


async def test_adopt_sends_a_copy_of_a_live_database(fake: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "live #1.sqlite3"
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE heroes (picture BLOB)")
    writer.execute("INSERT INTO heroes SELECT randomblob(3000000)")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO heroes VALUES ('not committed')")
    status, output, errors = await run_command(
        "adopt", "catalog_db", str(file), "--target", fake.address
    )
    writer.close()
    assert (status, errors) == (0, "")
    assert "heroes" in output
    first, *others = fake.requests
    assert first.source_service == "catalog"
    assert first.size_bytes == len(fake.adopted)
    assert max(len(request.chunk) for request in fake.requests) == 1024 * 1024
    assert not any(request.checksum for request in others)
    adopted = sqlite3.connect(":memory:")
    adopted.deserialize(fake.adopted)
    assert adopted.execute("SELECT count(*), max(length(picture)) FROM heroes").fetchone() == (
        1,
        3_000_000,
    )
    adopted.close()


async def test_adopt_tells_why_it_is_refused(fake: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "a.sqlite3"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE heroes AS SELECT randomblob(5000000)")
    database.close()
    fake.adopt_refusal = DatabaseNotEmpty("catalog_db holds 1 tables")
    target = ("--target", fake.address)
    status, _, errors = await run_command("adopt", "catalog_db", str(file), *target)
    assert (status, errors) == (1, "error: DATABASE_NOT_EMPTY: catalog_db holds 1 tables\n")
    file.write_text("this is not a database")
    status, _, errors = await run_command("adopt", "catalog_db", str(file), *target)
    assert status == 1
    assert "is it a SQLite database?" in errors


@pytest.mark.parametrize(
    "arguments", [["sql"], ["sql", "a", "--param", "1"], ["events", "--nope"], ["nope"]]
)
async def test_a_wrong_use_is_told_apart(arguments: list[str]) -> None:
    status, _, errors = await run_command(*arguments)
    assert status == 2
    assert "Usage:" in errors
