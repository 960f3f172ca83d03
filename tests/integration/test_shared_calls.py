"""Operations that share a call: each is its own `Execute`, and none waits for a slow one."""

import asyncio
import uuid
from typing import Any

import pytest

from messagehub import Hub
from messagehub.errors import ConstraintViolation
from messagehub.v1.storage_service_pb2 import ExecuteStreamRequest, StreamedOperation
from tests.support.calls import CALL_SECONDS, run_async, statement
from tests.support.refusals import refusal_of, refused

COUNTING = "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"


def asked(query: str, **fields: Any) -> StreamedOperation:
    return StreamedOperation(statement=statement(query), **fields)


async def told(stub: Any, *operations: StreamedOperation, **fields: Any) -> dict[int, Any]:
    """The outcomes by their place, once all are there."""
    request = ExecuteStreamRequest(
        **{"source_service": "character", **fields}, operations=operations
    )
    outcomes: dict[int, Any] = {}
    async for response in stub.ExecuteStream(request, timeout=CALL_SECONDS):
        for outcome in response.outcomes:
            assert outcome.index not in outcomes
            outcomes[outcome.index] = outcome
    assert sorted(outcomes) == list(range(len(operations)))
    return outcomes


async def test_each_is_an_execute_of_its_own(storage_stub: Any, table: str) -> None:
    await run_async(storage_stub, f"CREATE TABLE {table} (n INTEGER PRIMARY KEY)")
    request_id = str(uuid.uuid4())
    insert = asked(f"INSERT INTO {table} VALUES (1)", request_id=request_id, correlation_id="mine")
    outcomes = await told(
        storage_stub,
        insert,
        asked(f"INSERT INTO {table} VALUES (1)"),
        asked(f"INSERT INTO {table} VALUES (2)"),
        asked("SELECT 1", database="nowhere_db"),
        asked("SELECT 1", correlation_id="x" * 200),
        asked("SELECT 7", database="campaign_db"),
    )
    done = outcomes[0].response
    assert (done.correlation_id, done.database, done.replayed) == ("mine", "character_db", False)
    assert refusal_of(outcomes[1].error).reason == "CONSTRAINT_VIOLATION"
    assert outcomes[2].response.sequence > done.sequence
    assert refusal_of(outcomes[3].error).reason == "INVALID_ROUTE"
    assert refusal_of(outcomes[4].error).reason == "INVALID_REQUEST"
    assert outcomes[5].response.database == "campaign_db"
    # Nobody shares a generated correlation id.
    generated = {outcomes[place].response.correlation_id for place in (2, 5)}
    assert len(generated) == 2
    assert "" not in generated
    again = (await told(storage_stub, insert))[0].response
    assert (again.replayed, again.sequence) == (True, done.sequence)


async def test_a_slow_one_is_told_last_and_ends_in_its_own_time(storage_stub: Any) -> None:
    slow = asked(COUNTING)
    slow.timeout.FromMilliseconds(700)
    request = ExecuteStreamRequest(
        source_service="character", operations=[slow, asked("SELECT 1"), asked("SELECT 2")]
    )
    order = []
    async for response in storage_stub.ExecuteStream(request, timeout=CALL_SECONDS):
        order += [outcome.index for outcome in response.outcomes]
        last = response
    assert (set(order[:2]), order[2:]) == ({1, 2}, [0])
    assert refusal_of(last.outcomes[0].error).reason == "DEADLINE_EXCEEDED"


async def test_a_call_of_slow_ones_says_that_they_are_taken_in(storage_stub: Any) -> None:
    request = ExecuteStreamRequest(source_service="character", operations=[asked(COUNTING)])
    call = storage_stub.ExecuteStream(request, timeout=CALL_SECONDS)
    first = await call.read()
    assert not first.outcomes
    call.cancel()


async def test_what_is_wrong_with_the_call_refuses_all_of_it(storage_stub: Any) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
        await told(storage_stub)
    outcomes = await told(storage_stub, asked("SELECT 1"), source_service="nobody")
    assert refusal_of(outcomes[0].error).reason == "INVALID_ROUTE"


async def test_many_callers_of_one_client_get_their_own(servers: Any, table: str) -> None:
    async with Hub(servers.hub.address, service="character") as hub:
        await hub.execute(f"CREATE TABLE {table} (n INTEGER PRIMARY KEY, caller TEXT)")

        async def call(number: int) -> None:
            name = f"caller {number}"
            result = await hub.execute(f"INSERT INTO {table} VALUES (?, ?)", [number, name])
            assert result.last_insert_id == number
            with pytest.raises(ConstraintViolation):
                await hub.execute(f"INSERT INTO {table} VALUES (?, ?)", [number, "nobody"])
            read = await hub.execute(f"SELECT caller FROM {table} WHERE n = ?", [number])
            assert read.rows == [(name,)]

        await asyncio.gather(*(call(number) for number in range(1, 151)))
        count = await hub.execute(f"SELECT count(*) FROM {table}")
        assert count.rows == [(150,)]
