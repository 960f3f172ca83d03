"""Backups over real gRPC: made at one cut, proven, listed, restored, exported, deleted."""

import hashlib
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest

from messagehub.v1 import (
    backup_service_pb2 as messages,
)
from messagehub.v1 import (
    backup_service_pb2_grpc,
    event_service_pb2,
    statement_pb2,
    storage_service_pb2,
    transaction_service_pb2,
    transaction_service_pb2_grpc,
)
from tests.support.backups import FAILED, SERVICE, VERIFIED, ended, made, restored
from tests.support.refusals import refused
from tests.support.servers import Servers

BOTH = ("campaign_db", "character_db")


@pytest.fixture(scope="module")
def backup_stub(hub_channel: grpc.aio.Channel) -> Any:
    return backup_service_pb2_grpc.BackupServiceStub(hub_channel)


@pytest.fixture(scope="module")
def transaction_stub(hub_channel: grpc.aio.Channel) -> Any:
    return transaction_service_pb2_grpc.TransactionServiceStub(hub_channel)


async def run(storage_stub: Any, query: str, database: str = "character_db") -> Any:
    return await storage_stub.Execute(
        storage_service_pb2.ExecuteRequest(
            source_service=SERVICE,
            database=database,
            request_id=str(uuid.uuid4()),
            statement=statement_pb2.Statement(query=query),
        ),
        timeout=10,
    )


async def rows(storage_stub: Any, table: str, database: str = "character_db") -> int:
    answer = await run(storage_stub, f"SELECT count(*) FROM {table}", database)
    return answer.result.rows[0].values[0].integer


@pytest.fixture
async def filled(storage_stub: Any, table: str) -> str:
    for database in BOTH:
        await run(storage_stub, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, v)", database)
        values = "(1), ('x'), (x'00ff'), (1.5), (NULL)"
        await run(storage_stub, f"INSERT INTO {table} (v) VALUES {values}", database)
    return table


async def transfer(transaction_stub: Any, table: str) -> str:
    operations = [
        transaction_service_pb2.TransactionOperation(
            database=database,
            statement=statement_pb2.Statement(query=f"INSERT INTO {table} (v) VALUES ('both')"),
        )
        for database in BOTH
    ]
    answer = await transaction_stub.ExecuteTransaction(
        transaction_service_pb2.ExecuteTransactionRequest(
            source_service=SERVICE, request_id=str(uuid.uuid4()), operations=operations
        ),
        timeout=10,
    )
    return answer.transaction_id


async def test_a_backup_of_several_databases_is_verified_and_listed(
    backup_stub: Any, filled: str
) -> None:
    backup = await made(backup_stub, BOTH)
    assert backup.state == VERIFIED, backup
    assert [one.database for one in backup.databases] == ["campaign_db", "character_db"]
    assert all(one.size_bytes > one.compressed_bytes > 0 for one in backup.databases)
    assert all(one.rows >= 5 and one.epoch and one.sequence for one in backup.databases)
    assert backup.verify_time.seconds
    listed = await backup_stub.ListBackups(
        messages.ListBackupsRequest(source_service=SERVICE), timeout=10
    )
    assert backup in listed.backups


async def test_the_same_request_id_makes_one_backup(backup_stub: Any) -> None:
    request_id = str(uuid.uuid4())
    first = await made(backup_stub, ["auth_db"], request_id=request_id)
    assert await made(backup_stub, ["auth_db"], request_id=request_id) == first
    assert first.backup_id == request_id


async def test_a_restored_database_is_as_it_was_and_begins_a_new_life(
    backup_stub: Any, storage_stub: Any, event_stub: Any, filled: str
) -> None:
    backup = await made(backup_stub, ["character_db"])
    before = {one.database: one for one in backup.databases}["character_db"]
    await run(storage_stub, f"DELETE FROM {filled}")
    answer = await restored(backup_stub, backup.backup_id, "character_db")
    (done,) = answer.databases
    assert (done.database, done.sequence) == ("character_db", before.sequence)
    assert done.epoch not in ("", before.epoch)
    assert await rows(storage_stub, filled) == 5
    written = await run(storage_stub, f"INSERT INTO {filled} (v) VALUES (6)")
    assert written.sequence == before.sequence + 1


async def test_a_cursor_from_before_a_restore_is_refused(
    backup_stub: Any, event_stub: Any, filled: str
) -> None:
    request = event_service_pb2.SubscribeRequest(
        source_service=SERVICE, databases=["character_db"], latest=True
    )
    call = event_stub.Subscribe(request, timeout=20)
    cursor = (await call.read()).cursor
    call.cancel()
    backup = await made(backup_stub, ["character_db"], skip_verification=True)
    await restored(backup_stub, backup.backup_id)
    request = event_service_pb2.SubscribeRequest(
        source_service=SERVICE, databases=["character_db"], cursor=cursor
    )
    with refused("FAILED_PRECONDITION", "CURSOR_EPOCH_CHANGED"):
        async for message in event_stub.Subscribe(request, timeout=20):
            lives = {event.id.split("/")[1] for event in message.events}
            assert lives <= {backup.databases[0].epoch}, "what came before is all that comes"


async def test_a_restore_that_is_asked_for_twice_is_done_once(
    backup_stub: Any, storage_stub: Any, filled: str
) -> None:
    backup = await made(backup_stub, ["character_db"])
    request_id = str(uuid.uuid4())
    first = await restored(backup_stub, backup.backup_id, request_id=request_id)
    await run(storage_stub, f"DELETE FROM {filled}")
    again = await restored(backup_stub, backup.backup_id, request_id=request_id)
    assert again.databases[0].epoch == first.databases[0].epoch
    assert await rows(storage_stub, filled) == 0, "what came after the restore stays"


async def test_what_would_tear_a_transaction_is_refused_with_its_name(
    backup_stub: Any, storage_stub: Any, transaction_stub: Any, filled: str
) -> None:
    await transfer(transaction_stub, filled)
    backup = await made(backup_stub, BOTH)
    torn = await transfer(transaction_stub, filled)
    with refused("FAILED_PRECONDITION", "TRANSACTIONS_TORN") as refusal:
        await restored(backup_stub, backup.backup_id, "character_db")
    assert refusal.metadata["transactions"] == torn
    assert await rows(storage_stub, filled) == 7, "nothing was replaced"
    answer = await restored(
        backup_stub, backup.backup_id, "character_db", allow_torn_transactions=True
    )
    assert list(answer.torn_transactions) == [torn]
    assert [await rows(storage_stub, filled, one) for one in BOTH] == [7, 6]
    await restored(backup_stub, backup.backup_id)
    assert [await rows(storage_stub, filled, one) for one in BOTH] == [6, 6]


async def test_an_exported_database_is_the_one_of_the_manifest(
    backup_stub: Any, filled: str, tmp_path: Path
) -> None:
    backup = await made(backup_stub, ["character_db"])
    request = messages.ExportBackupRequest(
        source_service=SERVICE, backup_id=backup.backup_id, database="character_db"
    )
    content = b""
    async for piece in backup_stub.ExportBackup(request, timeout=20):
        content += piece.chunk
    assert hashlib.sha256(content).hexdigest() == backup.databases[0].checksum
    file = tmp_path / "character_db.db"
    file.write_bytes(content)
    with sqlite3.connect(file) as raw:
        assert raw.execute(f"SELECT count(*) FROM {filled}").fetchone() == (5,)
    raw.close()


def place_of(servers: Servers, backup: messages.Backup) -> Path:
    return servers.data_dir.with_name("data-backups") / backup.backup_id


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
@pytest.mark.parametrize("name", ["character_db.db.zst", "manifest.json"])
async def test_damage_is_found_and_named(
    servers: Servers, backup_stub: Any, storage_stub: Any, filled: str, damage: str, name: str
) -> None:
    backup = await made(backup_stub, BOTH)
    file = place_of(servers, backup) / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    verified = await backup_stub.VerifyBackup(
        messages.VerifyBackupRequest(source_service=SERVICE, backup_id=backup.backup_id),
        timeout=20,
    )
    assert verified.backup.state == FAILED
    assert any(name in problem for problem in verified.backup.problems), verified.backup.problems
    with refused("DATA_LOSS", "BACKUP_CORRUPT"):
        await restored(backup_stub, backup.backup_id, "character_db")
    assert await rows(storage_stub, filled) == 5


async def test_the_last_verified_backup_of_a_database_is_not_deleted(backup_stub: Any) -> None:
    first = await made(backup_stub, ["metrics_db"])
    delete = messages.DeleteBackupRequest(source_service=SERVICE, backup_id=first.backup_id)
    with refused("FAILED_PRECONDITION", "BACKUP_NEEDED"):
        await backup_stub.DeleteBackup(delete, timeout=10)
    await made(backup_stub, ["metrics_db"])
    await backup_stub.DeleteBackup(delete, timeout=10)
    with refused("NOT_FOUND", "BACKUP_NOT_FOUND"):
        await ended(backup_stub, first.backup_id)


async def test_the_end_of_a_backup_is_an_event_of_each_of_its_databases(
    backup_stub: Any, event_stub: Any
) -> None:
    call = event_stub.Subscribe(
        event_service_pb2.SubscribeRequest(
            source_service=SERVICE,
            databases=list(BOTH),
            event_types=["storage.backup_*"],
            correlation_id="nightly-7",
            latest=True,
        ),
        timeout=20,
    )
    await call.read()
    backup = await made(backup_stub, BOTH, correlation_id="nightly-7")
    told = []
    while len(told) < 2:
        told += [
            (e.type, e.subject, e.backup_finished.backup_id) for e in (await call.read()).events
        ]
    call.cancel()
    kind = "storage.backup_completed"
    assert sorted(told) == [(kind, database, backup.backup_id) for database in BOTH]


async def test_a_backup_is_asked_for_by_an_event_and_answered_by_one(event_stub: Any) -> None:
    call = event_stub.Subscribe(
        event_service_pb2.SubscribeRequest(
            source_service=SERVICE, correlation_id="by-event", latest=True
        ),
        timeout=20,
    )
    await call.read()
    request = event_service_pb2.PublishEventRequest(
        source_service=SERVICE, correlation_id="by-event", request_id=str(uuid.uuid4())
    )
    request.event.type = "storage.backup_request"
    request.event.backup_request.databases.append("character_db")
    await event_stub.PublishEvent(request, timeout=10)
    while not (events := (await call.read()).events):
        pass
    call.cancel()
    (event,) = events
    assert event.type == "storage.backup_completed"
    assert event.backup_finished.backup_id == request.request_id
