"""A caller's SQL stays inside its database and out of the hub's own tables.

What is refused is decided by what a statement does, so every text here is also tried in other
words. After each refusal the hub's tables and settings are as they were.
"""

from pathlib import Path
from typing import Any

import grpc
import pytest

from messagehub.v1.storage_service_pb2 import ExecuteBatchRequest
from tests.support.calls import CALL_SECONDS, batch_operation, query_request, rows, run
from tests.support.refusals import Refusal, refused

JOURNAL = "_messagehub_journal"

TRANSACTION_CONTROL = (
    "BEGIN",
    "BEGIN IMMEDIATE",
    "BEGIN EXCLUSIVE TRANSACTION",
    "COMMIT",
    "COMMIT\n",
    "commit;",
    "  /* now */ COMMIT TRANSACTION",
    "END",
    "ROLLBACK",
    "ROLLBACK TO operation",
    "SAVEPOINT mine",
    "SAVEPOINT operation",
    "RELEASE operation",
)
BEYOND_THE_DATABASE = (
    "ATTACH ':memory:' AS other",
    "ATTACH 'campaign_db.db' AS other",
    "attach database '' as other",
    "DETACH main",
    "VACUUM",
    "VACUUM main",
    "VACUUM INTO 'copied.db'",
    "SELECT load_extension('x')",
    "SELECT load_extension('x', 'y') FROM (SELECT 1)",
    "SELECT fts3_tokenizer('simple')",
    "CREATE VIRTUAL TABLE pages USING dbstat",
)
SETTINGS = (
    "PRAGMA journal_mode = DELETE",
    "PRAGMA journal_mode",
    "PRAGMA main.journal_mode(off)",
    "PRAGMA synchronous = OFF",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA trusted_schema = ON",
    "PRAGMA writable_schema = ON",
    "PRAGMA user_version = 7",
    "PRAGMA schema_version = 7",
    "PRAGMA application_id = 7",
    "PRAGMA encoding = 'UTF-16'",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA max_page_count = 1",
    "PRAGMA temp_store_directory = 'x'",
    "PRAGMA query_only = ON",
    "PRAGMA ignore_check_constraints = ON",
    "PRAGMA defer_foreign_keys = ON",
    "PRAGMA case_sensitive_like = ON",
    "PRAGMA cache_size = 1",
    "PRAGMA busy_timeout = 0",
    "PRAGMA mmap_size = 1000000",
    "PRAGMA secure_delete = ON",
    "PRAGMA auto_vacuum = FULL",
    "PRAGMA incremental_vacuum",
    "PRAGMA optimize",
    "PRAGMA shrink_memory",
    "PRAGMA hard_heap_limit = 1",
    "PRAGMA database_list",
)
TEMPORARY = (
    "CREATE TEMP TABLE {0} (a)",
    "CREATE TEMPORARY VIEW {0} AS SELECT 1",
    "CREATE TEMP TABLE {0} AS SELECT 1",
    "CREATE TEMP TRIGGER {0} AFTER INSERT ON {0}_own BEGIN SELECT 1; END",
    "CREATE TABLE temp.{0} (a)",
    "CREATE TABLE TEMP.{0} AS SELECT 1",
    "CREATE VIEW temp.{0} AS SELECT 1",
    "CREATE VIRTUAL TABLE temp.{0} USING fts5(a)",
    # A temporary table of this name would take the place of the caller's own.
    "CREATE TABLE temp.{0}_own (a)",
    "CREATE TRIGGER temp.{0} AFTER INSERT ON main.{0}_own BEGIN SELECT 1; END",
)
READS = (
    f"SELECT * FROM {JOURNAL}",
    f"SELECT count(*) FROM {JOURNAL}",
    f"SELECT record FROM main.{JOURNAL}",
    'SELECT * FROM "_MessageHub_Journal"',
    "SELECT * FROM [_MESSAGEHUB_META]",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM _messagehub_meta)",
    "WITH j AS (SELECT * FROM _messagehub_journal) SELECT * FROM j",
    f"EXPLAIN SELECT * FROM {JOURNAL}",
)
WRITES = (
    f"DELETE FROM {JOURNAL}",
    f"DELETE FROM {JOURNAL} WHERE sequence = (SELECT 1)",
    f"UPDATE {JOURNAL} SET record = x''",
    f"INSERT INTO {JOURNAL} VALUES (999999, NULL, x'', 0, x'')",
    "REPLACE INTO _messagehub_meta VALUES ('epoch', 'mine')",
    "UPDATE _messagehub_meta SET value = 'mine' WHERE key = 'epoch'",
    f"INSERT INTO {{0}} SELECT record FROM {JOURNAL}",
    f"UPDATE {{0}} SET a = (SELECT record FROM {JOURNAL} LIMIT 1)",
    f"CREATE TABLE {{0}}_copy AS SELECT * FROM {JOURNAL}",
)
SHAPES = (
    f"DROP TABLE {JOURNAL}",
    f"DROP TABLE IF EXISTS {JOURNAL.upper()}",
    f"ALTER TABLE {JOURNAL} RENAME TO {{0}}_mine",
    f"ALTER TABLE {JOURNAL} RENAME COLUMN record TO mine",
    f"ALTER TABLE {JOURNAL} ADD COLUMN mine",
    f"ALTER TABLE {JOURNAL} DROP COLUMN record",
    f"CREATE INDEX {{0}}_i ON {JOURNAL} (time_us)",
    "CREATE TABLE _messagehub_x (a)",
    'CREATE TABLE "_MESSAGEHUB_x" (a)',
    "CREATE VIEW _messagehub_x AS SELECT 1",
    "CREATE INDEX _messagehub_x ON {0} (a)",
    "CREATE TRIGGER _messagehub_x AFTER INSERT ON {0} BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE _messagehub_x USING fts5(a)",
    f"CREATE TRIGGER {{0}}_t AFTER INSERT ON {JOURNAL} BEGIN DELETE FROM {{0}}; END",
    f"CREATE TRIGGER {{0}}_t BEFORE DELETE ON {JOURNAL} BEGIN SELECT raise(FAIL, 'kept'); END",
    "ALTER TABLE {0} RENAME TO _messagehub_x",
    'ALTER TABLE {0} RENAME TO "_MessageHub_x"',
)


@pytest.fixture(scope="module")
def own(grpc_stub: Any) -> str:
    """A table of the caller's own, with one row."""
    run(grpc_stub, "CREATE TABLE own (a)")
    run(grpc_stub, "INSERT INTO own VALUES ('kept')")
    return "own"


def state(stub: Any) -> tuple[list[Any], ...]:
    """What a caller can see of the schema and the settings, and that writing still works."""
    run(stub, "UPDATE own SET a = 'kept'")
    return (
        rows(run(stub, "SELECT type, name, sql FROM sqlite_master ORDER BY name")),
        rows(run(stub, "SELECT a FROM own")),
        *(rows(run(stub, f"PRAGMA {name}")) for name in ("user_version", "foreign_keys")),
    )


def forbidden(stub: Any, query: str) -> Refusal:
    """Both RPCs refuse it, and nothing changes."""
    before = state(stub)
    with refused("PERMISSION_DENIED", "STATEMENT_FORBIDDEN") as refusal:
        run(stub, query)
    assert list(refusal.fields) == ["statement.query"]
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Query(query_request(query), timeout=CALL_SECONDS))
    streamed = Refusal()
    streamed.read_call(caught.value)
    assert (streamed.code, streamed.reason) in {
        ("PERMISSION_DENIED", "STATEMENT_FORBIDDEN"),
        # `Query` refuses everything that does not begin as a reading statement does.
        ("INVALID_ARGUMENT", "INVALID_STATEMENT"),
    }
    assert state(stub) == before
    return refusal


@pytest.mark.parametrize("query", TRANSACTION_CONTROL)
def test_transaction_control(grpc_stub: Any, own: str, query: str) -> None:
    forbidden(grpc_stub, query)


@pytest.mark.parametrize("query", BEYOND_THE_DATABASE)
def test_reaching_beyond_the_database(grpc_stub: Any, own: str, query: str) -> None:
    forbidden(grpc_stub, query)


def test_vacuum_into_leaves_no_file(grpc_stub: Any, own: str, tmp_path: Path) -> None:
    forbidden(grpc_stub, f"VACUUM INTO '{tmp_path / 'copied.db'}'")
    forbidden(grpc_stub, f"ATTACH '{tmp_path / 'attached.db'}' AS other")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("query", SETTINGS)
def test_settings(grpc_stub: Any, own: str, query: str) -> None:
    forbidden(grpc_stub, query)


@pytest.mark.parametrize(
    "query",
    ["PRAGMA user_version", "PRAGMA table_list", "PRAGMA integrity_check", "PRAGMA page_count"],
)
def test_pragmas_that_only_read_are_allowed(grpc_stub: Any, own: str, query: str) -> None:
    assert rows(run(grpc_stub, query))


@pytest.mark.parametrize("query", TEMPORARY)
def test_temporary_objects(grpc_stub: Any, own: str, table: str, query: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table}_own (a)")
    forbidden(grpc_stub, query.format(table))


@pytest.mark.parametrize("query", READS)
def test_reading_the_hubs_tables(grpc_stub: Any, own: str, query: str) -> None:
    forbidden(grpc_stub, query)
    with refused("PERMISSION_DENIED", "STATEMENT_FORBIDDEN"):
        list(grpc_stub.Query(query_request(query), timeout=CALL_SECONDS))


@pytest.mark.parametrize("query", WRITES)
def test_writing_the_hubs_tables(grpc_stub: Any, own: str, query: str) -> None:
    forbidden(grpc_stub, query.format(own))


@pytest.mark.parametrize("query", SHAPES)
def test_shaping_the_hubs_tables(grpc_stub: Any, own: str, query: str) -> None:
    forbidden(grpc_stub, query.format(own))


def test_what_a_caller_names_the_hub_does_not_trip_over(grpc_stub: Any, own: str) -> None:
    """The names of savepoints and temporary objects of the storage server are not reserved."""
    for name in ("operation", "messagehub_journal", "_messagehu", "zero"):
        run(grpc_stub, f"CREATE TABLE {name} (a)")
        run(grpc_stub, f"INSERT INTO {name} VALUES (1)")
        assert rows(run(grpc_stub, f"SELECT a FROM {name}")) == [(1,)]
        run(grpc_stub, f"DROP TABLE {name}")


def test_a_view_opens_no_door(grpc_stub: Any, own: str, table: str) -> None:
    try:
        run(grpc_stub, f"CREATE VIEW {table} AS SELECT * FROM {JOURNAL}")
    except grpc.RpcError:
        return
    forbidden(grpc_stub, f"SELECT * FROM {table}")
    forbidden(grpc_stub, f"INSERT INTO {own} SELECT record FROM {table}")
    run(grpc_stub, f"DROP VIEW {table}")


def test_a_trigger_opens_no_door(grpc_stub: Any, own: str, table: str) -> None:
    run(grpc_stub, f"CREATE TABLE {table} (a)")
    for body in (
        f"DELETE FROM {JOURNAL}",
        "UPDATE _messagehub_meta SET value = 'mine'",
        f"INSERT INTO {own} SELECT record FROM {JOURNAL}",
    ):
        create = f"CREATE TRIGGER {table}_t AFTER INSERT ON {table} BEGIN {body}; END"
        try:
            run(grpc_stub, create)
        except grpc.RpcError:
            continue
        forbidden(grpc_stub, f"INSERT INTO {table} VALUES (1)")
        run(grpc_stub, f"DROP TRIGGER {table}_t")
    run(grpc_stub, f"INSERT INTO {table} VALUES (1)")
    assert rows(run(grpc_stub, f"SELECT a FROM {table}")) == [(1,)]


def test_a_foreign_key_opens_no_door(grpc_stub: Any, own: str, table: str) -> None:
    """A row that refers to the journal would hold the storage server up when it trims."""
    try:
        run(grpc_stub, f"CREATE TABLE {table} (a REFERENCES {JOURNAL} (sequence))")
    except grpc.RpcError:
        return
    forbidden(grpc_stub, f"INSERT INTO {table} VALUES (1)")


def test_an_external_index_opens_no_door(grpc_stub: Any, own: str, table: str) -> None:
    try:
        run(
            grpc_stub,
            f"CREATE VIRTUAL TABLE {table} USING fts5(record, content='{JOURNAL}', "
            "content_rowid='sequence')",
        )
    except grpc.RpcError:
        return
    for query in (
        f"SELECT * FROM {table}",
        f"INSERT INTO {table} ({table}) VALUES ('rebuild')",
    ):
        with pytest.raises(grpc.RpcError):
            run(grpc_stub, query)
    run(grpc_stub, f"DROP TABLE {table}")


@pytest.mark.parametrize("name", ["sqlite_dbpage", "sqlite_stmt", "dbstat"])
def test_tables_that_look_into_the_file(grpc_stub: Any, own: str, name: str) -> None:
    """SQLite may be built without some of them."""
    with pytest.raises(grpc.RpcError) as caught:
        run(grpc_stub, f"SELECT * FROM {name}")
    refusal = Refusal()
    refusal.read_call(caught.value)
    assert refusal.reason in {"STATEMENT_FORBIDDEN", "INVALID_STATEMENT"}


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 0, 'CREATE TABLE x (a)')",
        "UPDATE sqlite_master SET sql = 'CREATE TABLE own (b)' WHERE name = 'own'",
        "DELETE FROM sqlite_schema WHERE name = 'own'",
        "DROP TABLE sqlite_master",
        "CREATE TABLE sqlite_x (a)",
        "CREATE INDEX i ON sqlite_master (name)",
    ],
)
def test_the_schema_is_changed_by_its_own_statements_only(
    grpc_stub: Any, own: str, query: str
) -> None:
    before = state(grpc_stub)
    with pytest.raises(grpc.RpcError) as caught:
        run(grpc_stub, query)
    refusal = Refusal()
    refusal.read_call(caught.value)
    # SQLite itself refuses some of these before anybody is asked.
    assert refusal.reason in {"STATEMENT_FORBIDDEN", "INVALID_STATEMENT"}
    assert refusal.code in {"PERMISSION_DENIED", "INVALID_ARGUMENT"}
    assert state(grpc_stub) == before


def test_a_callers_transaction_control_never_meets_a_compiled_one(
    grpc_stub: Any, own: str, table: str
) -> None:
    """The storage server commits all the time; its compiled COMMIT is not the caller's."""
    run(grpc_stub, f"CREATE TABLE {table} (n INTEGER PRIMARY KEY)")
    operations = []
    for n, control in enumerate(TRANSACTION_CONTROL * 5):
        operations.append(batch_operation(f"INSERT INTO {table} VALUES (?)", n))
        operations.append(batch_operation(control))
    request = ExecuteBatchRequest(source_service="character", operations=operations)
    answer = grpc_stub.ExecuteBatch(request, timeout=CALL_SECONDS)
    done, controls = answer.results[::2], answer.results[1::2]
    assert {result.WhichOneof("outcome") for result in done} == {"result"}
    assert {result.WhichOneof("outcome") for result in controls} == {"error"}
    for control in TRANSACTION_CONTROL:
        run(grpc_stub, f"INSERT INTO {table} VALUES (?)", 1000 + len(control))
        with refused("PERMISSION_DENIED", "STATEMENT_FORBIDDEN"):
            run(grpc_stub, control)
        run(grpc_stub, f"DELETE FROM {table} WHERE n >= 1000")
    assert rows(run(grpc_stub, f"SELECT count(*) FROM {table}")) == [(len(done),)]


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO own VALUES ('stacked'); COMMIT",
        "INSERT INTO own VALUES ('one'); INSERT INTO own VALUES ('two')",
        "SELECT 1; ATTACH ':memory:' AS other",
        "SELECT 1; DROP TABLE own",
        "SELECT 1;\0DROP TABLE own",
    ],
)
def test_stacked_statements_do_nothing(grpc_stub: Any, own: str, query: str) -> None:
    before = state(grpc_stub)
    with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
        run(grpc_stub, query)
    assert state(grpc_stub) == before


@pytest.mark.parametrize("query", ["COMMIT; DROP TABLE own", "BEGIN; COMMIT", "ROLLBACK; SELECT 1"])
def test_stacked_statements_that_begin_with_a_forbidden_one_do_nothing(
    grpc_stub: Any, own: str, query: str
) -> None:
    before = state(grpc_stub)
    with pytest.raises(grpc.RpcError) as caught:
        run(grpc_stub, query)
    refusal = Refusal()
    refusal.read_call(caught.value)
    assert refusal.reason in {"STATEMENT_FORBIDDEN", "INVALID_STATEMENT"}
    assert state(grpc_stub) == before


def test_the_other_databases_cannot_be_named(grpc_stub: Any, own: str) -> None:
    run(grpc_stub, "CREATE TABLE IF NOT EXISTS secrets (a)", service="auth")
    for name in ("auth_db.secrets", "secrets", "main.secrets"):
        with refused("INVALID_ARGUMENT", "INVALID_STATEMENT"):
            run(grpc_stub, f"SELECT * FROM {name}")
