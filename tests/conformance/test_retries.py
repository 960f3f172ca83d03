"""The same operation from several hubs at the same moment, and hubs that do not read."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from messagehub.storage.v1 import storage_service_pb2 as wire
from tests.conformance.operations import CREATE
from tests.conformance.storage_client import StorageClient, asking, reasons, serving
from tests.support.calls import rows

GUARD_SECONDS = 60.0


async def test_copies_from_several_hubs_at_the_same_moment_are_one_operation(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as client:
        await client.run(asking(CREATE), asking("INSERT INTO items VALUES (1, 0)"))
        hubs = [StorageClient(client.address) for _ in range(3)]
        ids = [str(uuid.uuid4()) for _ in range(40)]
        query = "UPDATE items SET n = n + 1 RETURNING n"
        answers = [
            [answer for hub in hubs for answer in hub.send(*(copy(query, name) for _ in range(2)))]
            for name in ids
        ]
        async with asyncio.timeout(GUARD_SECONDS):
            told = [list(await asyncio.gather(*copies)) for copies in answers]
        for copies in told:
            assert reasons(copies) == [""] * 6
            assert [outcome.replayed for outcome in copies].count(False) == 1
            assert len({outcome.sequence for outcome in copies}) == 1
            assert len({str(rows(outcome.result)) for outcome in copies}) == 1
        counted = sorted(int(str(rows(copies[0].result)[0][0])) for copies in told)
        assert counted == list(range(1, 41))
        (kept,) = await client.run(asking("SELECT n FROM items"))
        assert rows(kept.result) == [(40,)]
        for hub in hubs:
            await hub.close()


def copy(query: str, request_id: str) -> wire.Operation:
    return asking(query, request_id=request_id)


async def test_a_hub_that_does_not_read_for_a_while_gets_an_answer_to_everything(
    tmp_path: Path,
) -> None:
    """What it asked fills the way back; when it reads again, everything flows again."""
    async with serving(tmp_path, outgoing_bytes_max=100_000, frame_bytes_max=50_000) as client:
        await client.run(asking(CREATE))
        sent = 300

        async def frames() -> AsyncIterator[wire.ExchangeRequest]:
            for number in range(1, sent + 1):
                query = "SELECT printf('%.20000c', 'x')"
                if number % 3 == 0:
                    query = f"INSERT INTO items VALUES ({number}, 0)"
                operation = asking(query, number=number)
                yield wire.ExchangeRequest(operations=[operation])

        call = client.stub.Exchange(frames())
        await client.run(*(asking("SELECT 1") for _ in range(50)))  # others are not held up
        outcomes: dict[int, wire.Outcome] = {}
        async with asyncio.timeout(GUARD_SECONDS):
            async for response in call:
                for outcome in response.outcomes:
                    assert outcome.number not in outcomes
                    outcomes[outcome.number] = outcome
        assert sorted(outcomes) == list(range(1, sent + 1))
        writes = [outcomes[number] for number in range(3, sent + 1, 3)]
        assert reasons(writes) == [""] * len(writes), "what a write did is always told"
        assert set(reasons(list(outcomes.values()))) <= {"", "QUEUE_FULL"}
