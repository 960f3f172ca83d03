"""A cursor continues where it stands: in order, nothing missing, nothing twice."""

import asyncio
from typing import Any

import grpc
import pytest

from messagehub.v1 import event_service_pb2_grpc, storage_service_pb2_grpc
from messagehub.v1.event_pb2 import Event
from tests.support.event_stream import (
    SECONDS_MAX,
    assert_in_order,
    ids,
    live,
    subscribed,
    write,
)
from tests.support.refusals import refused
from tests.support.servers import Servers, running_hub, running_servers


@pytest.fixture(scope="module")
def hub_settings() -> dict[str, Any]:
    return {"heartbeat_seconds": 0.2}


async def test_a_cursor_continues_right_after_its_events(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    await write(storage_stub, f"CREATE TABLE {table} (n)")
    insert = f"INSERT INTO {table} VALUES (?)"
    async with live(event_stub) as reader:
        first = [await write(storage_stub, insert, n) for n in range(5)]
        before = list(await reader.until(*first))
        cursor = reader.cursor
    missed = [await write(storage_stub, insert, n) for n in range(5)]
    for _ in range(2):  # a cursor may be used again
        async with subscribed(event_stub, cursor=cursor) as reader:
            after = list(await reader.until(*missed))
            later = await write(storage_stub, insert, 0)
            assert ids(await reader.until(later))[len(after) :] == [later]
        assert ids(after)[: len(missed)] == missed
        assert_in_order([*before, *after])


async def test_nothing_is_missing_whenever_a_stream_breaks(
    servers: Servers, storage_stub: Any, table: str
) -> None:
    """A reader that reconnects all the time, while writers write, on connections of its own."""
    await write(storage_stub, f"CREATE TABLE {table} (n INTEGER PRIMARY KEY)")
    written: list[str] = []

    async def keep_writing(start: int) -> None:
        insert = f"INSERT INTO {table} VALUES (?)"
        written.extend([await write(storage_stub, insert, n) for n in range(start, start + 150)])

    async def read_messages(cursor: str, count: int) -> tuple[list[Event], str]:
        async with grpc.aio.insecure_channel(servers.hub.address) as channel:
            stub = event_service_pb2_grpc.EventServiceStub(channel)
            start = {"cursor": cursor} if cursor else {}
            async with subscribed(stub, **start) as reader:
                for _ in range(count):
                    await reader.message()
                return reader.events, reader.cursor

    events, cursor = await read_messages("", 1)
    assert events == []

    async def write_all() -> None:
        await asyncio.gather(*(keep_writing(start) for start in (0, 1000, 2000)))
        written.append(await write(storage_stub, f"DROP TABLE {table}"))

    writing = asyncio.create_task(write_all())
    seen: list[Event] = []
    async with asyncio.timeout(SECONDS_MAX):
        while not (writing.done() and written[-1] in ids(seen[-1:])):
            found, cursor = await read_messages(cursor, 1 + len(seen) % 3)
            seen += found
    await writing
    assert sorted(ids(seen)) == sorted(written)
    assert_in_order(seen)


async def test_a_cursor_outlives_the_hub(
    servers: Servers, storage_stub: Any, event_stub: Any, table: str
) -> None:
    """The hub keeps no truth: any hub continues where another one ended."""
    async with live(event_stub) as reader:
        created = await write(storage_stub, f"CREATE TABLE {table} (n)")
        await reader.until(created)
        cursor = reader.cursor
    async with (
        running_hub(servers.storage.address) as hub,
        grpc.aio.insecure_channel(hub.address) as channel,
    ):
        other = storage_service_pb2_grpc.StorageServiceStub(channel)
        events = event_service_pb2_grpc.EventServiceStub(channel)
        inserted = await write(other, f"INSERT INTO {table} VALUES (1)")
        async with subscribed(events, cursor=cursor) as reader:
            assert ids(await reader.until(inserted)) == [inserted]
            # What one hub writes, the subscribers of every hub see.
            through_the_first = await write(storage_stub, f"INSERT INTO {table} VALUES (2)")
            found = await reader.until(through_the_first)
            assert ids(found) == [inserted, through_the_first]


async def test_from_the_earliest_everything_is_there(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    created = await write(storage_stub, f"CREATE TABLE {table} (n)", service="campaign")
    inserted = await write(storage_stub, f"INSERT INTO {table} VALUES (1)", service="campaign")
    async with subscribed(event_stub, source_service="campaign", earliest=True) as reader:
        events = await reader.until(created, inserted)
    assert ids(events)[-2:] == [created, inserted]
    assert_in_order(events)


async def test_a_cursor_moves_on_over_events_that_are_held_back(
    storage_stub: Any, event_stub: Any, table: str
) -> None:
    async with live(event_stub, event_types=["nothing.*"]) as reader:
        before = reader.cursor
        created = await write(storage_stub, f"CREATE TABLE {table} (n)")
        while reader.cursor == before:
            await reader.message()
        assert reader.events == []
        moved = reader.cursor
    later = await write(storage_stub, f"DROP TABLE {table}")
    async with subscribed(event_stub, cursor=moved) as reader:
        assert ids(await reader.until(later)) == [later]
    async with subscribed(event_stub, cursor=before) as reader:
        assert ids(await reader.until(later)) == [created, later]


async def test_a_cursor_of_other_databases_is_refused(event_stub: Any) -> None:
    async with live(event_stub) as reader:
        cursor = reader.cursor
    async with subscribed(event_stub, cursor=cursor, databases=["auth_db"]) as reader:
        with refused("INVALID_ARGUMENT", "INVALID_CURSOR"):
            await reader.message()


async def test_a_cursor_of_other_data_is_refused(event_stub: Any, tmp_path: Any) -> None:
    async with (
        running_servers(tmp_path) as others,
        grpc.aio.insecure_channel(others.hub.address) as channel,
        live(event_service_pb2_grpc.EventServiceStub(channel)) as reader,
    ):
        cursor = reader.cursor
    async with subscribed(event_stub, cursor=cursor) as reader:
        with refused("FAILED_PRECONDITION", "CURSOR_EPOCH_CHANGED") as refusal:
            await reader.message()
    # The refusal brings what to continue with.
    async with subscribed(event_stub, cursor=refusal.metadata["oldest_cursor"]) as reader:
        await reader.message()
