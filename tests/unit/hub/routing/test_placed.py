"""The ports of several storage servers as those of one."""

from types import SimpleNamespace

import pytest

from hub.core.events.journal import JournalPage
from hub.core.ports import Adoption, Reading
from hub.core.routing.placed import (
    Placed,
    PlacedCalls,
    PlacedJournal,
    PlacedSubscriptions,
    StorageServer,
)


class Server:
    """Every port of one storage server; answers with its own name."""

    def __init__(self, name):
        self.name = name
        self.calls = []
        self.open_streams = 0

    async def query(self, reading, seconds):
        self.open_streams += 1
        try:
            for number in range(3):
                yield f"{self.name}:{number}"
        finally:
            self.open_streams -= 1

    async def look_up(self, database, request_id, *, correlation_id, seconds):
        return f"{self.name}:{request_id}"

    async def adopt(self, adoption, seconds):
        return (self.name,)

    async def tail(self, database, after):
        self.open_streams += 1
        try:
            while True:
                yield JournalPage(self.name, [], 0)
        finally:
            self.open_streams -= 1

    async def read(self, database, after, *, until, bytes_max):
        return [JournalPage(self.name, [], until)]

    async def ends(self, database):
        return self.name

    async def find(self, database, service, name, *, seconds):
        return [f"{self.name}:{name}"]

    async def delete(self, database, name, *, seconds):
        self.calls.append(name)


@pytest.fixture
def scene():
    one, other = Server("one"), Server("other")
    places = {"auth_db": "1", "metrics_db": "2"}
    servers = {
        address: StorageServer(server, server, server, server, server)
        for address, server in {"1": one, "2": other}.items()
    }
    placement = SimpleNamespace(server_of=places.__getitem__)
    placed = Placed(placement, servers)
    return SimpleNamespace(
        one=one,
        other=other,
        places=places,
        placed=placed,
        calls=PlacedCalls(placed),
        journal=PlacedJournal(placed),
        subscriptions=PlacedSubscriptions(placed),
    )


async def test_a_call_goes_where_its_database_is_now(scene):
    for server, name in (("1", "one"), ("2", "other")):
        scene.places["auth_db"] = server
        assert scene.placed.operations("auth_db").name == name
        known = await scene.calls.look_up("auth_db", "id", correlation_id="", seconds=1)
        assert known == f"{name}:id"
        assert await scene.calls.adopt(Adoption("auth_db", "", 0, "", None), 1) == (name,)
        assert await scene.journal.ends("auth_db") == name
        (page,) = await scene.journal.read("auth_db", None, until=7, bytes_max=1)
        assert (page.epoch, page.boundary) == (name, 7)
        found = await scene.subscriptions.find("auth_db", "auth", "n", seconds=1)
        assert found == [f"{name}:n"]


async def test_streams_that_are_left_are_ended(scene):
    pages = scene.calls.query(Reading("metrics_db", "metrics", "", None, 0), 1)
    assert await anext(pages) == "other:0"
    tail = scene.journal.tail("metrics_db", None)
    assert (await anext(tail)).epoch == "other"
    assert scene.other.open_streams == 2
    await pages.aclose()
    await tail.aclose()
    assert scene.other.open_streams == 0
