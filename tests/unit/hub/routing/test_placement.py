"""Which storage server serves a database, by what each of them says."""

import pytest

from hub.core.routing.placement import Move, Placement
from hub.core.status import DatabaseState, StorageServerState

HEROES, ITEMS = "heroes_db", "items_db"
DATABASES = (HEROES, ITEMS)


class Scene:
    """A placement, and what it showed and told."""

    def __init__(self, **candidates):
        self.servers: dict[str, StorageServerState] = {}
        self.databases: dict[str, DatabaseState] = {}
        self.shown: list[str] = []
        self.moves: list[Move] = []
        self.placement = Placement(
            candidates or dict.fromkeys(DATABASES, ("a", "b")), show=self._show
        )
        self.placement.listen(self.moves.extend)
        self.shown.clear()

    def _show(self, servers, databases):
        self.servers |= {server.address: server for server in servers}
        self.databases |= {state.database: state for state in databases}
        self.shown += [state.database for state in databases]

    def connect(self, address, *available):
        states = [said(name, available=name in available) for name in DATABASES]
        self.placement.connect(address, version="1", engine="e", databases=states)

    def change(self, address, name, *, available):
        self.placement.change(address, [said(name, available=available)])

    def servers_of_databases(self):
        return [self.placement.server_of(name) for name in DATABASES]


def said(name, *, available):
    return DatabaseState(name, available=available, detail="" if available else "not mine")


def test_nothing_is_available_before_a_storage_server_said_so():
    scene = Scene()
    assert scene.placement.addresses == ("a", "b")
    assert scene.servers_of_databases() == ["a", "a"]
    for state in scene.databases.values():
        assert not state.available
        assert "not connected to the storage server at a" in state.detail
        assert state.storage_server == "a"


def test_the_one_that_has_a_database_serves_it():
    scene = Scene()
    scene.connect("b", HEROES)
    scene.connect("a", ITEMS)
    assert scene.servers_of_databases() == ["b", "a"]
    assert [state.available for state in scene.databases.values()] == [True, True]
    assert scene.databases[HEROES].storage_server == "b"
    assert not scene.moves, "a first sight is no failover"


def test_the_preferred_one_serves_where_both_could():
    scene = Scene()
    scene.connect("a", HEROES)
    scene.connect("b", HEROES, ITEMS)
    assert scene.servers_of_databases() == ["a", "b"]


@pytest.mark.parametrize("loss", ["disconnect", "says so"])
def test_a_database_moves_when_its_storage_server_lost_it(loss):
    scene = Scene()
    scene.connect("a", HEROES)
    scene.connect("b")
    if loss == "disconnect":
        scene.placement.disconnect("a")
    else:
        scene.change("a", HEROES, available=False)
    assert not scene.databases[HEROES].available
    assert not scene.moves
    scene.change("b", HEROES, available=True)
    assert scene.databases[HEROES].available
    assert scene.databases[HEROES].storage_server == "b"
    assert scene.moves == [Move(HEROES, "a", "b")]


def test_a_database_does_not_move_back_by_itself():
    scene = Scene()
    scene.connect("a", HEROES)
    scene.placement.disconnect("a")
    scene.connect("b", HEROES)
    scene.connect("a", HEROES)
    assert scene.placement.server_of(HEROES) == "b"
    scene.placement.disconnect("b")
    assert scene.placement.server_of(HEROES) == "a"
    assert scene.moves == [Move(HEROES, "a", "b"), Move(HEROES, "b", "a")]


def test_a_storage_server_that_comes_back_first_is_no_failover():
    scene = Scene()
    scene.connect("a", HEROES)
    scene.connect("b")
    scene.placement.disconnect("a")
    assert scene.placement.server_of(HEROES) == "b", "it can at least say why"
    assert scene.databases[HEROES].detail == "not mine"
    scene.connect("a", HEROES)
    assert scene.placement.server_of(HEROES) == "a"
    assert not scene.moves


def test_only_what_changed_is_shown():
    scene = Scene()
    scene.connect("a", HEROES)
    scene.shown.clear()
    scene.connect("b")
    assert scene.shown == []
    assert scene.servers["b"].connected
    scene.change("a", ITEMS, available=True)
    assert scene.shown == [ITEMS]


def test_each_database_may_have_storage_servers_of_its_own():
    scene = Scene(heroes_db=("a",), items_db=("b", "c"))
    assert scene.placement.databases_of("a") == (HEROES,)
    assert scene.placement.databases_of("c") == (ITEMS,)
    scene.connect("a", HEROES)
    scene.placement.connect("c", version="", engine="", databases=[said(ITEMS, available=True)])
    assert scene.servers_of_databases() == ["a", "c"]
    scene.placement.disconnect("a")
    assert not scene.databases[HEROES].available
    assert scene.databases[ITEMS].available


def test_a_database_that_its_storage_server_does_not_know():
    scene = Scene()
    scene.placement.connect("a", version="", engine="", databases=[])
    assert not scene.databases[HEROES].available
    assert "does not know" in scene.databases[HEROES].detail
