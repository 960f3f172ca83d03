"""Following a journal from outside: no gap, no event twice, from any position, under writers."""

import asyncio
import random
from pathlib import Path

import grpc
import pytest

from messagehub.errors import HubError
from messagehub.status import from_rpc_error
from messagehub.storage.v1 import storage_service_pb2 as wire
from tests.conformance.operations import CREATE
from tests.conformance.storage_client import StorageClient, asking, reasons, serving

GUARD_SECONDS = 60.0
DATABASE = "items_db"


async def write(client: StorageClient, first: int, count: int) -> None:
    """Inserts, each in its own time; some fail, which is an event too."""
    for number in range(first, first + count):
        repeated = number - 1 if number % 7 == 3 else number
        await client.run(asking(f"INSERT INTO items VALUES ({repeated}, 0)"))


async def follow(client: StorageClient, after: int, until: int, epoch: str = "") -> list[int]:
    """The sequences after a position, until one has come."""
    request = wire.TailRequest(database=DATABASE, after_sequence=after, epoch=epoch)
    found: list[int] = []
    call = client.stub.Tail(request)
    async with asyncio.timeout(GUARD_SECONDS):
        async for part in call:
            assert part.sequence >= after
            found += [event.sequence for event in part.events]
            if part.events:
                assert part.sequence == found[-1]
            if part.sequence >= until:
                break
    call.cancel()
    return found


async def refused(client: StorageClient, **position: object) -> HubError:
    call = client.stub.Tail(wire.TailRequest(database=DATABASE, **position))  # type: ignore[arg-type]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    return from_rpc_error(caught.value)


@pytest.mark.parametrize("window_bytes", [100, 1_000_000], ids=["journal", "memory"])
async def test_followers_see_everything_in_order_while_writers_write(
    tmp_path: Path, window_bytes: int
) -> None:
    dice = random.Random(1)
    settings = {"tail_bytes_max": window_bytes, "tail_message_events_max": 5}
    async with serving(tmp_path, **settings) as client:
        await client.run(asking(CREATE))
        await write(client, 9000, 40)
        writing = [asyncio.ensure_future(write(client, n * 1000, 50)) for n in range(4)]
        starts = [dice.randrange(42) for _ in range(20)]
        results = await asyncio.gather(*(follow(client, after, 241) for after in starts))
        await asyncio.gather(*writing)
        for after, found in zip(starts, results, strict=True):
            assert found == list(range(after + 1, 242))
        for after in (0, 1, 100, 240, 241):
            assert await follow(client, after, 241) == list(range(after + 1, 242))


async def test_the_first_message_comes_at_once_and_says_where_the_journal_stands(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, tail_heartbeat_seconds=1e6) as client:
        await client.run(asking(CREATE), asking("INSERT INTO items VALUES (1, 0)"))
        for request, sequence in (
            (wire.TailRequest(database=DATABASE), 0),
            (wire.TailRequest(database=DATABASE, after_sequence=1), 1),
            (wire.TailRequest(database=DATABASE, from_end=True), 2),
            (wire.TailRequest(database="new_db"), 0),
            (wire.TailRequest(database="new_db", from_end=True), 0),
        ):
            call = client.stub.Tail(request)
            first = await asyncio.wait_for(call.read(), GUARD_SECONDS)
            assert (first.sequence, list(first.events)) == (sequence, [])
            assert first.epoch
            assert first.oldest_sequence == 0
            call.cancel()


async def test_silence_is_filled_with_heartbeats(tmp_path: Path) -> None:
    async with serving(tmp_path, tail_heartbeat_seconds=0.01) as client:
        call = client.stub.Tail(wire.TailRequest(database=DATABASE))
        for _ in range(4):
            part = await asyncio.wait_for(call.read(), GUARD_SECONDS)
            assert (part.sequence, list(part.events)) == (0, [])
        call.cancel()


async def test_a_position_of_another_journal_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        await client.run(asking(CREATE))
        for position in (
            {"epoch": "another", "after_sequence": 1},
            {"epoch": "another", "after_sequence": 0},
            {"after_sequence": 2},
        ):
            error = await refused(client, **position)
            assert error.reason == "CURSOR_EPOCH_CHANGED"
            assert error.metadata["oldest_sequence"] == "0"
            assert error.metadata["epoch"]


async def test_a_forgotten_position_is_refused_and_the_oldest_one_is_told(tmp_path: Path) -> None:
    settings = {"journal_rows_max": 10, "trim_every_seconds": 0.02, "trim_rows_max": 3}
    async with serving(tmp_path, **settings) as client:
        await client.run(asking(CREATE))
        await client.run(*(asking(f"INSERT INTO items VALUES ({n}, 0)") for n in range(40)))
        async with asyncio.timeout(GUARD_SECONDS):
            while True:
                error = await refused(client, after_sequence=0) if await trimmed(client) else None
                if error is not None and error.metadata["oldest_sequence"] == "31":
                    break
                await asyncio.sleep(0.01)
        assert error.reason == "CURSOR_EXPIRED"
        assert await follow(client, 31, 41) == list(range(32, 42))


async def trimmed(client: StorageClient) -> bool:
    call = client.stub.Tail(wire.TailRequest(database=DATABASE, from_end=True))
    first = await call.read()
    call.cancel()
    return bool(first.oldest_sequence)


async def test_a_follower_that_is_overtaken_by_the_trimming_is_told_not_skipped(
    tmp_path: Path,
) -> None:
    """What it gets has no gap, however far the trimming is; else it is refused."""
    settings = {
        "journal_rows_max": 5,
        "trim_every_seconds": 0.001,
        "trim_rows_max": 2,
        "tail_bytes_max": 1,
        "tail_message_events_max": 2,
    }
    async with serving(tmp_path, **settings) as client:
        await client.run(asking(CREATE))
        stop = asyncio.Event()
        endings: set[str] = set()
        seen = 0

        async def run() -> None:
            nonlocal seen
            while not stop.is_set():
                first = await at_the_oldest(client)
                request = wire.TailRequest(database=DATABASE, after_sequence=first)
                newest = first
                try:
                    async for part in client.stub.Tail(request):
                        for event in part.events:
                            assert event.sequence == newest + 1
                            newest = event.sequence
                            seen += 1
                        if stop.is_set():
                            break
                except grpc.aio.AioRpcError as failure:
                    endings.add(from_rpc_error(failure).reason)

        followers = [asyncio.ensure_future(run()) for _ in range(4)]
        for first in range(0, 600, 20):
            outcomes = await client.run(
                *(asking(f"INSERT INTO items VALUES ({first + n}, 0)") for n in range(20))
            )
            assert reasons(outcomes) == [""] * 20
        stop.set()
        await client.run(asking("INSERT INTO items VALUES (9999, 0)"))
        async with asyncio.timeout(GUARD_SECONDS):
            await asyncio.gather(*followers)
        assert seen
        assert endings <= {"CURSOR_EXPIRED"}


async def at_the_oldest(client: StorageClient) -> int:
    call = client.stub.Tail(wire.TailRequest(database=DATABASE, from_end=True))
    first = await call.read()
    call.cancel()
    return int(first.oldest_sequence)
