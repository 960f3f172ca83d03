"""What went wrong in comparable systems, asked of a storage server's part in transactions.

Vitess answered a commit with success when a failover had emptied its pool of prepared
transactions; others accepted a prepare that came after its rollback, or let housekeeping pass a
prepared transaction by.
"""

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from messagehub.storage.v1 import participant_service_pb2 as wire
from messagehub.storage.v1 import storage_service_pb2 as storage_wire
from storage.config import StorageConfig
from tests.conformance.participants import (
    CALL_SECONDS,
    COMMIT,
    COMMITTED,
    OPEN,
    PREPARE,
    PREPARED,
    ROLLED_BACK,
    Attempt,
)
from tests.conformance.storage_client import StorageClient, asking, reasons, serving
from tests.support.calls import rows
from tests.support.eventually import eventually
from tests.support.refusals import refused

A, B, HOME = "a_db", "b_db", "home_db"
RACES = 30
INSERT = "INSERT INTO items VALUES (1)"
COUNT = "SELECT count(*) FROM items"
SLOW = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000) "
    "SELECT sum(i) FROM n"
)
VANISHING = 150
# What a storage server lets one service have open at once: half of all.
SNAPSHOTS = StorageConfig().snapshots_max // 2


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest_asyncio.fixture(loop_scope="session")
async def client(directory: Path) -> AsyncIterator[StorageClient]:
    async with serving(directory) as made:
        await create(made)
        yield made


async def create(client: StorageClient) -> None:
    for database in (A, B, HOME):
        outcomes = await client.run(asking("CREATE TABLE items (n)", database=database))
        assert reasons(outcomes) == [""]


async def count(client: StorageClient, database: str) -> int:
    [outcome] = await client.run(asking(COUNT, database=database))
    return int(str(rows(outcome.result)[0][0]))


async def prepared(client: StorageClient, *others: str, **header: Any) -> Attempt:
    """A transaction whose participants but the home are prepared."""
    attempt = Attempt(client.channel, [*others, HOME], **header)
    for database in others:
        await attempt.advance(database, PREPARE, INSERT)
    return attempt


async def decided(client: StorageClient, *others: str) -> Attempt:
    """One that the home has committed."""
    attempt = await prepared(client, *others)
    await attempt.advance(HOME, COMMIT, INSERT)
    return attempt


async def test_all_of_it_is_committed(client: StorageClient) -> None:
    attempt = await decided(client, A, B)
    for database in (A, B):
        record = (await attempt.resolve(database, commit=True)).record
        assert (record.state, record.header.transaction_id) == (COMMITTED, attempt.id)
    assert [await count(client, database) for database in (A, B, HOME)] == [1, 1, 1]


@pytest.mark.parametrize("database", [A, HOME])
async def test_a_late_prepare_after_the_rollback_is_refused(
    client: StorageClient, database: str
) -> None:
    """Also if the rollback came before anything else did."""
    attempt = Attempt(client.channel, [A, HOME])
    assert (await attempt.resolve(database, commit=False)).record.state == ROLLED_BACK
    step = COMMIT if database == HOME else PREPARE
    for late in (step, OPEN):
        with refused("ABORTED", "TRANSACTION_EXPIRED"):
            await attempt.advance(database, late, INSERT)
    assert await count(client, database) == 0
    assert (await attempt.look_up(database)).record.state == ROLLED_BACK


async def test_a_late_prepare_is_refused_after_a_restart_too(directory: Path) -> None:
    async with serving(directory) as client:
        await create(client)
        attempt = Attempt(client.channel, [A, HOME])
        await attempt.resolve(A, commit=False)
    async with serving(directory) as client:
        late = Attempt(client.channel, [A, HOME], transaction_id=attempt.id)
        with refused("ABORTED", "TRANSACTION_EXPIRED"):
            await late.advance(A, PREPARE, INSERT)
        assert await count(client, A) == 0


async def test_nothing_found_is_never_success(directory: Path) -> None:
    """A participant that was restarted and has neither record nor marker says so."""
    async with serving(directory) as client:
        await create(client)
    async with serving(directory) as client:
        unheard = Attempt(client.channel, [A, HOME])
        with refused("NOT_FOUND", "TRANSACTION_NOT_FOUND"):
            await unheard.resolve(A, commit=True)
        with refused("NOT_FOUND", "TRANSACTION_NOT_FOUND"):
            await unheard.advance(A, PREPARE, begin=False)
        assert not (await unheard.look_up(A)).found
        assert await count(client, A) == 0


async def test_an_open_part_does_not_outlive_its_server(directory: Path) -> None:
    async with serving(directory) as client:
        await create(client)
        attempt = Attempt(client.channel, [A, HOME])
        await attempt.advance(A, OPEN, INSERT)
    async with serving(directory) as client:
        again = Attempt(client.channel, [A, HOME], transaction_id=attempt.id)
        for commit in (again.resolve(A, commit=True), again.advance(A, PREPARE, begin=False)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await commit
            assert caught.value.code() in (grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND)
        assert await count(client, A) == 0


async def test_a_commit_without_a_prepare_is_refused(client: StorageClient) -> None:
    attempt = Attempt(client.channel, [A, HOME])
    await attempt.advance(A, OPEN, INSERT)
    with refused("NOT_FOUND", "TRANSACTION_NOT_FOUND"):
        await attempt.resolve(A, commit=True)
    assert (await attempt.resolve(A, commit=False)).record.state == ROLLED_BACK
    assert await count(client, A) == 0


async def test_what_is_committed_stays_so_whoever_asks_for_what(client: StorageClient) -> None:
    attempt = await decided(client, A)
    for commit in (True, True, False, True):
        assert (await attempt.resolve(A, commit=commit)).record.state == COMMITTED
    assert (await attempt.resolve(HOME, commit=False)).record.state == COMMITTED
    assert [await count(client, database) for database in (A, HOME)] == [1, 1]


async def test_a_prepared_part_survives_and_is_ended_by_another_hub(directory: Path) -> None:
    async with serving(directory) as client:
        await create(client)
        attempt = await decided(client, A)
    async with serving(directory) as client:
        other = Attempt(client.channel, [A, HOME], transaction_id=attempt.id)
        assert (await other.look_up(A)).record.state == PREPARED
        truth = (await other.resolve(HOME, commit=False)).record
        assert truth.state == COMMITTED
        assert [p.database for p in truth.participants] == [A]
        assert (await other.resolve(A, commit=True)).record.state == COMMITTED
        assert [await count(client, database) for database in (A, HOME)] == [1, 1]


async def test_nobody_writes_past_a_prepared_part(client: StorageClient) -> None:
    attempt = await prepared(client, A)
    sneaking = client.send(asking(INSERT, database=A, request_id="", timeout_ms=15_000))
    other = Attempt(client.channel, [A, HOME])
    with refused("ABORTED", "TRANSACTION_CONFLICT"):
        await other.advance(A, PREPARE, INSERT, wait_ms=50)
    assert not sneaking[0].done()
    assert await count(client, A) == 0
    await attempt.resolve(A, commit=False)
    assert reasons(await asyncio.gather(*sneaking)) == [""]
    assert await count(client, A) == 1


async def decision_of(commit: Awaitable[wire.AdvanceTransactionResponse]) -> int:
    """What the home told the one that wanted to commit."""
    try:
        return (await commit).record.state
    except grpc.aio.AioRpcError as failure:
        if failure.code() is not grpc.StatusCode.ABORTED:
            raise
        return ROLLED_BACK


async def test_coordinator_and_resolvers_race_for_one_decision(client: StorageClient) -> None:
    """The home decides once; everybody hears the same."""
    seen: Counter[int] = Counter()
    for _ in range(RACES):
        before = [await count(client, database) for database in (A, HOME)]
        attempt = await prepared(client, A)
        coordinator = asyncio.ensure_future(attempt.advance(HOME, COMMIT, INSERT))
        resolvers = [asyncio.ensure_future(attempt.resolve(HOME, commit=False)) for _ in range(2)]
        told = {answer.record.state for answer in await asyncio.gather(*resolvers)}
        told.add(await decision_of(coordinator))
        [decision] = told
        seen[decision] += 1
        both = [attempt.resolve(A, commit=decision == COMMITTED) for _ in range(2)]
        assert {answer.record.state for answer in await asyncio.gather(*both)} == {decision}
        after = [await count(client, database) for database in (A, HOME)]
        assert after == [number + (decision == COMMITTED) for number in before]
    assert set(seen) <= {COMMITTED, ROLLED_BACK}


async def test_idle_close_waits_for_a_prepared_part(directory: Path) -> None:
    quick = {"idle_close_seconds": 0.1, "trim_every_seconds": 0.05}
    async with serving(directory, **quick) as client:
        await create(client)
        attempt = await prepared(client, A)
        home = await attempt.advance(HOME, COMMIT, INSERT)
        # Long enough for an idle database to be closed several times.
        await asyncio.sleep(1.0)
        assert (await attempt.look_up(A)).record.state == PREPARED
        assert home.record.state == COMMITTED
        assert (await attempt.resolve(A, commit=True)).record.state == COMMITTED
        assert [await count(client, database) for database in (A, HOME)] == [1, 1]


async def test_trimming_waits_for_what_is_not_resolved(directory: Path) -> None:
    """However short the journal is kept, the decision is there for who is still prepared."""
    quick = {"journal_rows_max": 1, "trim_every_seconds": 0.05, "trim_rows_max": 1000}
    async with serving(directory, **quick) as client:
        await create(client)
        attempt = await decided(client, A)
        for _ in range(20):
            await client.run(asking("UPDATE items SET n = n", database=HOME))
            await asyncio.sleep(0.02)
        truth = (await attempt.resolve(HOME, commit=False)).record
        assert truth.state == COMMITTED
        assert (await attempt.resolve(A, commit=True)).record.state == COMMITTED


async def test_adoption_meets_a_prepared_part(client: StorageClient, tmp_path: Path) -> None:
    """A database that is held is not replaced; the part can be ended all the same."""
    empty = "empty_db"
    attempt = Attempt(client.channel, [empty, HOME])
    await attempt.advance(empty, PREPARE)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.AdoptDatabase(chunks(empty, file_of(tmp_path)), timeout=2)
    assert caught.value.code() in (
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ), caught.value.details()
    assert (await attempt.look_up(empty)).record.state == PREPARED
    await attempt.advance(HOME, COMMIT, INSERT)
    assert (await attempt.resolve(empty, commit=True)).record.state == COMMITTED


def file_of(directory: Path) -> bytes:
    file = directory / "adoptable.db"
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("CREATE TABLE adopted (n)")
        raw.commit()
    return file.read_bytes()


def chunks(database: str, content: bytes) -> Iterator[storage_wire.AdoptDatabaseRequest]:
    yield storage_wire.AdoptDatabaseRequest(
        database=database,
        size_bytes=len(content),
        checksum=sha256(content).hexdigest(),
        chunk=content,
    )


async def test_an_open_part_that_nobody_uses_is_rolled_back(client: StorageClient) -> None:
    """A client that vanished holds nothing for longer than its idle limit."""
    attempt = Attempt(client.channel, [A, HOME], idle_timeout_ms=100)
    await attempt.advance(A, OPEN, INSERT)
    other = Attempt(client.channel, [A, HOME])
    await other.advance(A, PREPARE, INSERT, wait_ms=15_000)
    await other.resolve(A, commit=False)
    with refused("ABORTED", "TRANSACTION_EXPIRED"):
        await attempt.advance(A, PREPARE, begin=False)
    assert await count(client, A) == 0


async def test_a_held_commit_waits_and_a_lease_ends(client: StorageClient) -> None:
    attempt = Attempt(client.channel, [A, HOME])
    hold = wire.HoldCommitsRequest(database=A, holder="h", wait_timeout_ms=5_000, lease_ms=300)
    await attempt.stub.HoldCommits(hold, timeout=CALL_SECONDS)
    # Nobody releases it: the lease does.
    await attempt.advance(A, PREPARE, INSERT, wait_ms=15_000)
    hold.wait_timeout_ms = 50
    with refused("ABORTED", "TRANSACTION_CONFLICT"):
        await attempt.stub.HoldCommits(hold, timeout=CALL_SECONDS)
    await attempt.resolve(A, commit=False)
    await attempt.stub.HoldCommits(hold, timeout=CALL_SECONDS)
    released = wire.ReleaseCommitsRequest(database=A, holder="h")
    assert (await attempt.stub.ReleaseCommits(released, timeout=CALL_SECONDS)).held


async def test_readers_that_vanish_leave_nothing(client: StorageClient) -> None:
    """Their snapshots end, and the connections that they had are as good as new."""
    dice = random.Random(7)
    for _ in range(VANISHING):
        attempt = Attempt(client.channel, [A], read_only=True, idle_timeout_ms=100)
        reading = asyncio.ensure_future(attempt.advance(A, OPEN, SLOW))
        await asyncio.sleep(dice.random() * 0.004)
        reading.cancel()
    stub = attempt.stub

    async def nobody_reads() -> bool:
        asked = wire.ListTransactionsRequest(database=A)
        return not (await stub.ListTransactions(asked, timeout=CALL_SECONDS)).records

    await eventually(nobody_reads)
    readers = [Attempt(client.channel, [A], read_only=True) for _ in range(SNAPSHOTS)]
    for reader in readers:
        assert rows((await reader.advance(A, OPEN, COUNT)).results[0].result) == [(0,)]
    for reader in readers:
        await reader.resolve(A, commit=False)
