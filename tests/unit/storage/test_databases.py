"""All databases of a server: names, how many are open, idle ones, trimming, watching."""

import asyncio
from contextlib import aclosing

import pytest

from messagehub.errors import DatabaseUnavailable, InvalidRequest, ShuttingDown
from storage.core.database import Database, State
from storage.core.databases import Upkeep
from storage.core.engine import EngineLost
from tests.unit.storage.scripted_databases import NEVER, Server
from tests.unit.storage.scripted_engine import Gate, settle


@pytest.mark.parametrize("name", ["a", "a_b_1", "z" * 63])
async def test_names_of_databases(server: Server, name: str) -> None:
    assert server.databases.get(name) is server.databases.get(name)


@pytest.mark.parametrize(
    "name", ["", "A", "1a", "_a", "a-b", "a.b", "a/b", "../a", "a b", "a\n", "é", "z" * 64]
)
async def test_what_is_no_name_of_a_database(server: Server, name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        server.databases.get(name)
    assert caught.value.fields


async def test_databases_are_open_only_when_used(server: Server) -> None:
    for number in range(1000):
        server.databases.get(f"db{number}")
    assert server.disks == {}
    server.write("db7")
    await settle()
    assert list(server.disks) == ["db7"]


@pytest.mark.parametrize("at_once", [True, False], ids=["at the same moment", "one by one"])
async def test_how_many_are_open_is_bounded(at_once: bool) -> None:
    server = Server(open_max=3)
    names = [f"db{number}" for number in range(5)]
    for name in names:
        server.write(name)
        if not at_once:
            await settle()
    await settle()
    opened = [name for name, state in server.states().items() if state is State.OPEN]
    assert len(opened) == 3
    refused = [server.caller.outcomes[name] for name in names if name not in opened]
    for outcome in refused:
        assert outcome.error is not None
        assert outcome.error.reason == "QUEUE_FULL"
        assert outcome.error.retry_after
    await server.databases.get(opened[0]).close()
    server.databases.get("db9")
    server.write("db9")
    await settle()
    assert server.caller.outcomes["db9"].error is None
    await server.databases.end()


async def test_a_flooded_database_does_not_hold_up_another(server: Server) -> None:
    server.disk("slow").applying.shut()
    for number in range(50):
        server.databases.get("slow").submit(server.caller.operation(f"s{number}"))
    await server.disk("slow").applying.reached.wait()
    server.write("quick")
    await settle()
    assert [name for name, _ in server.caller.answers] == ["quick"]
    server.disk("slow").applying.open()
    await settle()
    assert len(server.caller.answers) == 51


async def test_a_failing_database_does_not_hurt_another(server: Server) -> None:
    server.disk("bad").open_failures.append(DatabaseUnavailable("no"))
    server.write("bad", "good")
    await settle()
    server.disk("worse").apply_failures.append(EngineLost(DatabaseUnavailable("fsync failed")))
    server.write("worse")
    await settle()
    assert {name: bool(reason) for name, reason in server.caller.answers} == {
        "bad": True,
        "good": False,
        "worse": True,
    }
    assert ("bad", "no") in server.told
    assert ("worse", "fsync failed") in server.told
    assert ("good", "") in server.told


# Upkeep.


async def test_idle_databases_are_closed_oldest_first_when_many_are_open() -> None:
    server = Server(open_max=8)
    for number in range(6):
        server.write(f"db{number}")
        await settle()
    server.disk("db0").applying.shut()
    server.databases.get("db0").submit(server.caller.operation("busy"))
    await server.disk("db0").applying.reached.wait()
    await server.databases._close_idle()
    states = server.states()
    assert states["db0"] is State.OPEN, "it is at work"
    assert [name for name, state in states.items() if state is State.CLOSED] == ["db1", "db2"]
    server.disk("db0").applying.open()
    await server.databases.end()


async def test_a_database_that_is_needed_while_others_are_closed_stays_usable() -> None:
    server = Server(open_max=1)
    await server.databases.get("a").open()
    slow = Gate()
    server.disk("a").closing = slow
    server.databases._upkeep = Upkeep(100, NEVER, NEVER, 10.0, 1000, 2)
    await server.databases.get("b").open()
    server.databases._upkeep = Upkeep(1, NEVER, NEVER, 10.0, 1000, 2)
    slow.shut()
    closing = asyncio.ensure_future(server.databases._close_idle())
    await slow.reached.wait()
    server.disk("b").applying.shut()
    server.write("b")
    await server.disk("b").applying.reached.wait()
    slow.open()
    await settle()
    server.disk("b").applying.open()
    await closing
    await settle()
    assert server.caller.answers == [("b", "")]
    await server.databases.end()


async def test_journals_are_trimmed_in_bounded_pieces(server: Server) -> None:
    for number in range(7):
        server.databases.get("a").submit(server.caller.operation(str(number)))
    await settle()
    await server.databases._trim(server.databases.get("a"))
    assert server.disk("a").calls.count("trim") == 4
    assert [event.sequence for event in server.disk("a").events] == [7]


async def test_writes_get_their_turn_between_the_pieces_of_a_trim(server: Server) -> None:
    database = server.databases.get("a")
    for number in range(9):
        database.submit(server.caller.operation(str(number)))
    await settle()
    seen: list[int] = []
    original = database.trim

    async def trim(**bounds: int) -> bool:
        database.submit(server.caller.operation(f"between {len(seen)}"))
        await settle()
        seen.append(len(server.caller.answers))
        return await original(**bounds)

    database.trim = trim  # type: ignore[method-assign]
    await server.databases._trim(database)
    assert len(seen) > 3
    assert seen == list(range(10, 10 + len(seen))), "each was done before the next piece"


async def test_a_trim_that_fails_leaves_the_keeper_at_work(server: Server) -> None:
    await server.databases.get("a").open()
    server.disk("a").trim_failures.append(DatabaseUnavailable("no"))
    await server.databases._trim(server.databases.get("a"))
    await server.databases._trim(server.databases.get("a"))
    assert server.disk("a").calls.count("trim") == 2


# Watching.


def seen_in(databases: list[Database]) -> dict[str, str]:
    return {database.name: database.detail for database in databases}


async def test_a_watcher_sees_all_databases_then_changes() -> None:
    server = Server(reopen_seconds=0.0)
    server.disk("bad").open_failures.append(DatabaseUnavailable("no"))
    async with aclosing(server.databases.watch(["good", "bad"])) as changes:
        assert seen_in(await anext(changes)) == {"good": "", "bad": "no"}
        assert seen_in(await anext(changes)) == {"bad": ""}, "it was tried again by itself"
        server.disk("good").apply_failures.append(EngineLost(DatabaseUnavailable("fsync failed")))
        server.write("good")
        assert seen_in(await anext(changes)) == {"good": "fsync failed"}
    await server.databases.end()


async def test_a_watcher_ends_with_the_server(server: Server) -> None:
    changes = server.databases.watch(["a"])
    await anext(changes)
    waiting = asyncio.ensure_future(anext(changes, None))
    await settle()
    await server.databases.end()
    await waiting
    with pytest.raises(ShuttingDown):
        server.databases.get("b")


async def test_the_end_closes_everything(server: Server) -> None:
    server.disk("bad").open_failures.append(DatabaseUnavailable("no"))
    server.disk("worse").apply_failures.append(EngineLost(DatabaseUnavailable("fsync failed")))
    server.write("bad", "good", "worse")
    await settle()
    await server.databases.end()
    for disk in server.disks.values():
        assert disk.calls == ["open", "close"]
