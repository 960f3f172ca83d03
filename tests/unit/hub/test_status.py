"""The status board: a snapshot, then changes from exactly there, whatever the watcher's pace."""

import asyncio

import pytest

from hub.core.status import DatabaseState, HubState, StatusBoard, StorageServerState
from messagehub.errors import QueueFull

ADDRESS = "127.0.0.1:50052"


def board(*, changes_max=8, watchers_max=4):
    return StatusBoard(
        databases=("auth_db", "character_db"),
        changes_max=changes_max,
        watchers_max=watchers_max,
    )


def connect(status, *, sequence=5):
    status.show(
        [StorageServerState(ADDRESS, connected=True, version="1", engine="sqlite")],
        [
            DatabaseState(name, available=True, storage_server=ADDRESS, sequence=sequence)
            for name in ("auth_db", "character_db")
        ],
    )


def disconnect(status):
    status.show(
        [StorageServerState(ADDRESS, version="1", engine="sqlite")],
        [
            DatabaseState(name, detail="gone", storage_server=ADDRESS)
            for name in ("auth_db", "character_db")
        ],
    )


def change(status, *databases):
    status.show([], databases)


def database(state: HubState, name: str) -> DatabaseState:
    return next(one for one in state.databases if one.database == name)


def test_nothing_is_usable_before_it_was_seen_to_be():
    state = board().snapshot()
    assert not state.ready
    assert not state.connected
    assert [one.available for one in state.databases] == [False, False]
    assert all(one.detail for one in state.databases)


@pytest.mark.parametrize("order", ["start first", "connect first"])
def test_ready_is_started_and_connected(order):
    status = board()
    steps = [status.start, lambda: connect(status)]
    for step in steps if order == "start first" else reversed(steps):
        assert not status.snapshot().ready
        step()
    assert status.snapshot().ready
    status.close()
    assert not status.snapshot().ready


def test_a_database_that_is_lost_keeps_its_position():
    status = board()
    connect(status)
    status.saw("auth_db", 9)
    disconnect(status)
    state = status.snapshot()
    assert not state.connected
    assert state.storage_servers[0].version == "1"
    assert [one.available for one in state.databases] == [False, False]
    assert database(state, "auth_db").sequence == 9


def test_one_of_several_storage_servers_is_enough():
    status = board()
    connect(status)
    status.start()
    status.show([StorageServerState("other")], [])
    assert status.snapshot().ready
    assert [one.address for one in status.snapshot().storage_servers] == [ADDRESS, "other"]
    disconnect(status)
    assert not status.snapshot().ready


def test_a_database_that_is_not_configured_is_ignored():
    status = board()
    connect(status)
    change(status, DatabaseState("other_db", available=True))
    assert {one.database for one in status.snapshot().databases} == {"auth_db", "character_db"}


def test_positions_only_grow_until_the_storage_server_says_otherwise():
    status = board()
    connect(status)
    status.saw("auth_db", 8)
    status.saw("auth_db", 6)
    assert database(status.snapshot(), "auth_db").sequence == 8
    change(status, DatabaseState("auth_db", available=True, sequence=2))
    assert database(status.snapshot(), "auth_db").sequence == 2


def test_a_listener_hears_the_present_and_every_change():
    status = board()
    heard: list[HubState] = []
    status.listen(heard.append)
    status.start()
    connect(status)
    disconnect(status)
    assert [state.ready for state in heard] == [False, False, True, False]


async def test_a_watch_gives_a_snapshot_and_then_each_change():
    status = board()
    connect(status)
    status.start()
    watch = status.watch()
    first = await anext(watch)
    assert isinstance(first, HubState)
    assert first.ready
    down = DatabaseState("auth_db", detail="disk gone", sequence=5)
    change(status, down)
    assert await anext(watch) == down
    disconnect(status)
    assert isinstance(await anext(watch), StorageServerState)
    assert [(await anext(watch)).database for _ in range(2)] == ["auth_db", "character_db"]
    await watch.aclose()


async def test_changes_during_a_slow_read_are_not_lost():
    status = board()
    watch = status.watch()
    await anext(watch)
    change(status, DatabaseState("auth_db", detail="1"))
    change(status, DatabaseState("auth_db", detail="2"))
    assert [(await anext(watch)).detail for _ in range(2)] == ["1", "2"]
    await watch.aclose()


async def test_a_watcher_that_falls_behind_gets_the_whole_status_again():
    status = board(changes_max=3)
    watch = status.watch()
    await anext(watch)
    for number in range(50):
        change(status, DatabaseState("auth_db", detail=str(number)))
    state = await anext(watch)
    assert isinstance(state, HubState)
    assert database(state, "auth_db").detail == "49"
    change(status, DatabaseState("auth_db", detail="50"))
    assert (await anext(watch)).detail == "50"
    await watch.aclose()


async def test_closing_gives_the_status_once_more_and_ends_every_watch():
    status = board()
    connect(status)
    status.start()

    async def collect():
        return [change async for change in status.watch()]

    watches = [asyncio.create_task(collect()) for _ in range(2)]
    await asyncio.sleep(0)
    status.close()
    for changes in await asyncio.gather(*watches):
        assert [change.ready for change in changes] == [True, False]


async def test_a_watch_after_the_end_gives_the_status_and_ends():
    status = board()
    status.close()
    assert [change.ready async for change in status.watch()] == [False]


async def test_watchers_are_bounded_and_leave_their_place():
    status = board(watchers_max=1)
    watch = status.watch()
    await anext(watch)
    with pytest.raises(QueueFull):
        await anext(status.watch())
    await watch.aclose()
    again = status.watch()
    assert isinstance(await anext(again), HubState)
    await again.aclose()
