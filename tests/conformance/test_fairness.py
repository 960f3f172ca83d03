"""Nobody's statements hold up others more than their turn, seen from outside."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from messagehub.storage.v1 import storage_service_pb2 as wire
from tests.conformance.limit_checks import refused as limit_refused
from tests.conformance.operations import CREATE, ENDLESS_READ, ENDLESS_ROWS, ENDLESS_WRITE
from tests.conformance.storage_client import StorageClient, asking, failure_of, reasons, serving
from tests.support.calls import rows, statement

GUARD_SECONDS = 30.0
ENDLESS = 1_000_000


async def occupy_writer(client: StorageClient, database: str = "items_db") -> None:
    """The writer of a database runs a statement that ends only when it is cancelled."""
    await client.run(asking(CREATE, database=database))
    client.send(asking(ENDLESS_WRITE, number=ENDLESS, database=database, service="busy"))
    await client.taken()


async def release_writer(client: StorageClient) -> None:
    client.send(cancelled=(ENDLESS,))


async def items(client: StorageClient) -> list[int]:
    (outcome,) = await client.run(asking("SELECT id FROM items ORDER BY id"))
    return [int(str(row[0])) for row in rows(outcome.result)]


async def test_quick_reads_overtake_the_slow_one_that_they_arrived_with(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        asked = [asking(ENDLESS_READ, number=ENDLESS), *(asking("SELECT 1") for _ in range(50))]
        slow, *quick = client.send(*asked)
        async with asyncio.timeout(GUARD_SECONDS):
            outcomes = await asyncio.gather(*quick)
        assert reasons(outcomes) == [""] * 50
        assert not slow.done()
        client.send(cancelled=(ENDLESS,))
        assert failure_of(await slow).reason == "CANCELLED"


async def test_quick_reads_overtake_slow_ones_among_them(tmp_path: Path) -> None:
    async with serving(tmp_path, readers_max=5) as client:
        asked: list[wire.Operation] = []
        for number in range(3):
            asked.append(asking(ENDLESS_READ, number=ENDLESS + number))
            asked += [asking("SELECT 1") for _ in range(10)]
        answers = client.send(*asked)
        slow = answers[::11]
        quick = [answer for answer in answers if answer not in slow]
        async with asyncio.timeout(GUARD_SECONDS):
            await asyncio.gather(*quick)
        assert not any(answer.done() for answer in slow)
        client.send(cancelled=tuple(range(ENDLESS, ENDLESS + 3)))
        await asyncio.gather(*slow)


async def test_reads_go_on_while_the_writer_is_busy(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        await occupy_writer(client)
        async with asyncio.timeout(GUARD_SECONDS):
            assert await items(client) == []
        await release_writer(client)


async def test_other_databases_go_on_while_one_is_busy(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        await occupy_writer(client)
        waiting = client.send(*(asking(f"INSERT INTO items VALUES ({n}, 0)") for n in range(500)))
        async with asyncio.timeout(GUARD_SECONDS):
            outcomes = await client.run(
                asking(CREATE, database="other_db"),
                asking("INSERT INTO items VALUES (1, 0)", database="other_db"),
            )
        assert reasons(outcomes) == ["", ""]
        assert not any(answer.done() for answer in waiting)
        await release_writer(client)
        assert reasons(list(await asyncio.gather(*waiting))) == [""] * 500


async def test_a_caller_that_floods_a_database_is_served_in_turn_with_others(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, group_operations_max=16) as client:
        await occupy_writer(client)
        flood = client.send(
            *(asking(f"INSERT INTO items VALUES ({n}, 0)", service="flood") for n in range(1000))
        )
        await client.taken()
        quiet = client.send(
            *(asking(f"INSERT INTO items VALUES ({n}, 0)", service="q") for n in (5001, 5002))
        )
        await client.taken()
        await release_writer(client)
        async with asyncio.timeout(GUARD_SECONDS):
            mine = [outcome.sequence for outcome in await asyncio.gather(*quiet)]
            theirs = [outcome.sequence for outcome in await asyncio.gather(*flood)]
        first = min(theirs)
        assert [sequence - first for sequence in mine] == [1, 3], "every second turn is theirs"
        assert theirs == sorted(theirs), "writes of one caller keep their order"


async def test_a_write_that_was_cancelled_while_it_waited_is_not_done(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        await occupy_writer(client)
        waiting = client.send(
            *(asking(f"INSERT INTO items VALUES ({n}, 0)", number=100 + n) for n in range(4))
        )
        client.send(cancelled=(101, 103))
        await client.taken()
        await release_writer(client)
        outcomes = list(await asyncio.gather(*waiting))
        assert reasons(outcomes) == ["", "CANCELLED", "", "CANCELLED"]
        assert await items(client) == [0, 2]


@pytest.mark.parametrize("how", ["cancelled", "closed"])
async def test_when_the_stream_breaks_what_has_not_begun_is_dropped(
    tmp_path: Path, how: str
) -> None:
    async with serving(tmp_path) as client:
        address = client.address
        other = StorageClient(address)
        await occupy_writer(other)
        other.send(*(asking(f"INSERT INTO items VALUES ({n}, 0)") for n in range(10)))
        await other.taken()
        if how == "closed":
            await other.close()
        else:
            assert other._reading is not None
            other._reading.cancel()
            await other.close()
        async with asyncio.timeout(GUARD_SECONDS):
            await client.run(asking("INSERT INTO items VALUES (77, 0)"))
            assert await items(client) == [77]


async def test_a_deadline_ends_a_write_that_waits(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        await occupy_writer(client)
        (late,) = client.send(asking("INSERT INTO items VALUES (1, 0)", timeout_ms=1))
        (patient,) = client.send(asking("INSERT INTO items VALUES (2, 0)"))
        await client.taken()
        await release_writer(client)
        assert failure_of(await late).reason == "DEADLINE_EXCEEDED"
        assert reasons([await patient]) == [""]
        assert await items(client) == [2]


async def test_slow_reads_of_one_caller_leave_a_lane_to_the_others(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        slow = [asking(ENDLESS_READ, number=ENDLESS + n, service="flood") for n in range(20)]
        answers = client.send(*slow)
        await client.taken()
        async with asyncio.timeout(GUARD_SECONDS):
            for service in ("q", "r", "q"):
                outcomes = await client.run(asking("SELECT 1", service=service))
                assert reasons(outcomes) == [""]
        assert not any(answer.done() for answer in answers)
        client.send(cancelled=tuple(range(ENDLESS, ENDLESS + 20)))
        await asyncio.gather(*answers)


async def test_streams_of_one_caller_leave_one_to_the_others(tmp_path: Path) -> None:
    async with serving(tmp_path, queries_max=3) as client:

        def query(service: str) -> Any:
            return client.stub.Query(
                wire.QueryRequest(
                    database="items_db",
                    source_service=service,
                    statement=statement(ENDLESS_ROWS),
                    page_size=1,
                )
            )

        held = [query("flood") for _ in range(2)]
        for call in held:
            await call.read()
        assert (await limit_refused(query("flood"))).reason == "QUEUE_FULL"
        held.append(query("quiet"))
        assert len((await held[-1].read()).result.rows) == 1
        for call in held:
            call.cancel()
