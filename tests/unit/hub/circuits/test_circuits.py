"""What drives circuits beside the calls: how databases stand, operators, the hub's own trials."""

import asyncio
from dataclasses import replace

import pytest

from hub.adapters.circuit_events import CircuitEvents
from hub.core.circuits.breaker import CircuitState
from hub.core.circuits.circuits import Circuits
from hub.core.status import DatabaseState, StatusBoard, StorageServerState
from messagehub.errors import (
    CircuitOpen,
    DatabaseCorrupt,
    DeadlineExceeded,
    OperationNotFound,
    StorageUnavailable,
)
from tests.unit.hub.circuits.circuit_parts import FAILURES_MAX, LIMITS, SERVER, Clock, machine

OWN, OTHER = "character_db", "auth_db"
AWAY = "the hub is not connected"
TRIAL_SECONDS = 10.0
STANDBY = "127.0.0.1:50062"
CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


class Timer:
    def __init__(self, timers, seconds, callback, breaker):
        self.seconds = seconds
        self.database = breaker.database
        self._timers = timers
        self._run = lambda: callback(breaker)
        timers.append(self)

    def cancel(self):
        if self in self._timers:
            self._timers.remove(self)

    def ring(self):
        self.cancel()
        self._run()


class Scene:
    """Circuits with a status board, timers that ring by hand, and trials whose end is given."""

    def __init__(self, limits=LIMITS, trials_to_close=1):
        self.clock = Clock()
        self.timers = []
        self.looked = []
        self.ends = {}
        self.hang = asyncio.Event()
        self.hang.set()
        self.told = []
        self.circuits = Circuits(
            (OWN, OTHER),
            limits,
            make_machine=lambda: machine(trials_to_close),
            storage=self,
            trial_seconds=TRIAL_SECONDS,
            clock=self.clock,
            random=lambda: 1.0,
            call_later=lambda seconds, callback, breaker: Timer(
                self.timers, seconds, callback, breaker
            ),
        )
        self.board = StatusBoard(databases=(OWN, OTHER), changes_max=64, watchers_max=4)
        self.board.listen(self.circuits.follow)
        self.circuits.listen(self.told.append)
        self.circuits.listen(
            lambda some: self.board.circuits((one.database, one.state, one.cause) for one in some)
        )

    async def look_up(self, database, request_id, *, correlation_id, seconds):
        assert request_id
        assert correlation_id
        self.looked.append((database, seconds))
        await self.hang.wait()
        if (end := self.ends.get(database)) is not None:
            raise end

    def connect(self, server=SERVER, **available):
        self.board.show(
            [StorageServerState(server, connected=True)],
            [self.state(name, available.get(name, True), server) for name in (OWN, OTHER)],
        )

    def disconnect(self):
        self.board.show(
            [StorageServerState(SERVER)],
            [DatabaseState(name, detail=AWAY, storage_server=SERVER) for name in (OWN, OTHER)],
        )

    def change(self, name, *, available):
        self.board.show([], [self.state(name, available)])

    def state(self, name, available, server=SERVER):
        detail = "" if available else "cannot be opened"
        return DatabaseState(name, available=available, detail=detail, storage_server=server)

    def breaker(self, name=OWN):
        return self.circuits.by_database[name]

    def fail(self, name=OWN, times=FAILURES_MAX):
        for _ in range(times):
            self.breaker(name).admit().failed(StorageUnavailable("gone"))

    def states(self, name=OWN):
        return [one.state for some in self.told for one in some if one.database == name]

    async def ring(self):
        """Lets the time pass until the next timer rings, and its trial end."""
        timer = min(self.timers, key=lambda one: one.seconds)
        self.clock.now += timer.seconds
        timer.ring()
        await self.settle()
        return timer

    async def settle(self):
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def scene():
    some = Scene()
    yield some
    await some.circuits.stop()


@pytest.fixture
async def connected(scene):
    scene.connect()
    return scene


# The storage server's health stream.


async def test_before_the_first_connection_nothing_opens(scene):
    scene.board.start()
    scene.disconnect()
    scene.change(OWN, available=False)
    assert (scene.breaker().state, scene.told) == (CLOSED, [])
    scene.connect()
    assert (scene.breaker().state, scene.told) == (CLOSED, [])


async def test_a_standby_that_is_quicker_opens_nothing(scene):
    scene.board.show([StorageServerState(SERVER), StorageServerState(STANDBY)], [])
    scene.connect(STANDBY, **{OWN: False, OTHER: False})
    assert (scene.breaker().state, scene.told) == (CLOSED, [])
    scene.connect(SERVER)
    assert (scene.breaker().state, scene.told) == (CLOSED, [])
    scene.connect(STANDBY, **{OWN: False, OTHER: False})
    assert scene.states() == [OPEN]


async def test_what_nobody_has_opens_once_all_were_heard(scene):
    scene.board.show([StorageServerState(SERVER), StorageServerState(STANDBY)], [])
    scene.connect(STANDBY, **{OWN: False})
    scene.connect(SERVER, **{OWN: False})
    assert (scene.states(), scene.states(OTHER)) == ([OPEN], [])


async def test_a_lost_connection_opens_every_circuit_at_once_and_tells_of_all_together(connected):
    connected.disconnect()
    (transitions,) = connected.told
    assert {one.database for one in transitions} == {OWN, OTHER}
    for one in transitions:
        assert one.state is OPEN
        assert AWAY in one.cause
        with pytest.raises(CircuitOpen):
            connected.breaker(one.database).admit()
    assert not connected.timers


async def test_a_return_is_tried_at_once_by_the_hub_itself(connected):
    connected.disconnect()
    connected.clock.now += 0.4
    connected.connect()
    assert {timer.seconds for timer in connected.timers} == {0.0}
    for _ in range(2):
        await connected.ring()
    assert sorted(connected.looked) == [(OTHER, TRIAL_SECONDS), (OWN, TRIAL_SECONDS)]
    for name in (OWN, OTHER):
        assert connected.states(name) == [OPEN, HALF_OPEN, CLOSED]
        assert connected.board.database(name).usable
    assert not connected.timers


async def test_a_database_that_cannot_be_opened_is_open_from_the_first_connection_on(scene):
    scene.connect(**{OWN: False})
    assert scene.states() == [OPEN]
    assert scene.states(OTHER) == []
    assert "cannot be opened" in scene.told[0][0].cause


async def test_one_database_opens_and_closes_alone(connected):
    connected.change(OWN, available=False)
    assert connected.states() == [OPEN]
    assert not connected.timers
    connected.change(OTHER, available=True)
    connected.change(OWN, available=True)
    await connected.ring()
    assert connected.states() == [OPEN, HALF_OPEN, CLOSED]
    assert connected.states(OTHER) == []


async def test_a_change_that_says_the_same_does_nothing(connected):
    connected.change(OWN, available=False)
    connected.change(OWN, available=False)
    assert connected.states() == [OPEN]


async def test_a_move_to_another_storage_server_is_tried_at_once(connected):
    connected.ends[OWN] = StorageUnavailable("x")
    connected.fail()
    await connected.ring()
    assert connected.breaker().seconds_to_trial == 2
    connected.ends.clear()
    connected.connect(STANDBY)
    assert (await connected.ring()).seconds == 0
    assert connected.breaker().state is CLOSED


# Failures of calls.


async def test_failures_open_and_the_hub_itself_tries_when_it_is_due(connected):
    connected.fail()
    (timer,) = connected.timers
    assert (timer.seconds, timer.database) == (1.0, OWN)
    assert connected.states() == [OPEN]
    await connected.ring()
    assert connected.states() == [OPEN, HALF_OPEN, CLOSED]
    assert not connected.timers


@pytest.mark.parametrize(
    "end",
    [StorageUnavailable("x"), DatabaseCorrupt("x"), DeadlineExceeded("said nothing")],
    ids=lambda end: end.reason,
)
async def test_as_long_as_trials_fail_they_get_rarer(connected, end):
    connected.ends[OWN] = end
    connected.fail()
    waits = [(await connected.ring()).seconds for _ in range(6)]
    assert waits == [1, 2, 4, 8, 8, 8]
    assert connected.states()[-2:] == [HALF_OPEN, OPEN]
    connected.ends.clear()
    await connected.ring()
    assert connected.breaker().state is CLOSED


async def test_whatever_the_database_answers_is_an_answer(connected):
    connected.ends[OWN] = OperationNotFound("x")
    connected.fail()
    await connected.ring()
    assert connected.breaker().state is CLOSED


async def test_a_caller_whose_trial_comes_first_spares_the_hubs(connected):
    connected.fail()
    connected.clock.now += 1
    passage = connected.breaker().admit()
    passage.succeeded()
    assert connected.breaker().state is CLOSED
    assert not connected.timers
    assert not connected.looked


async def test_trials_of_callers_that_end_without_a_word_leave_nothing_half_open(connected):
    connected.fail()
    connected.clock.now += 1
    passages = [connected.breaker().admit() for _ in range(LIMITS.trials_max)]
    timer = await connected.ring()
    assert timer.seconds == LIMITS.retry_seconds
    assert not connected.looked
    for passage in passages:
        passage.withdraw()
    await connected.ring()
    assert connected.breaker().state is CLOSED


async def test_one_trial_of_the_hubs_own_at_a_time(connected):
    connected.hang.clear()
    connected.fail()
    await connected.ring()
    assert connected.breaker().state is HALF_OPEN
    assert len(connected.looked) == 1
    assert not connected.timers
    connected.hang.set()
    await connected.settle()
    assert connected.breaker().state is CLOSED


async def test_as_many_trials_as_it_takes():
    scene = Scene(trials_to_close=3)
    scene.connect()
    scene.fail()
    waits = [(await scene.ring()).seconds for _ in range(3)]
    assert waits == [1.0, LIMITS.retry_seconds, LIMITS.retry_seconds]
    assert scene.states() == [OPEN, HALF_OPEN, CLOSED]
    await scene.circuits.stop()


async def test_while_the_database_is_away_nothing_is_tried(connected):
    connected.fail()
    connected.change(OWN, available=False)
    await connected.ring()
    assert not connected.looked
    assert not connected.timers
    connected.change(OWN, available=True)
    await connected.ring()
    assert connected.breaker().state is CLOSED


async def test_a_trial_that_is_overtaken_by_events_changes_nothing(connected):
    connected.hang.clear()
    connected.fail()
    await connected.ring()
    connected.change(OWN, available=False)
    connected.hang.set()
    await connected.settle()
    assert connected.breaker().state is OPEN
    assert not connected.timers
    connected.change(OWN, available=True)
    await connected.ring()
    assert connected.breaker().state is CLOSED


# By hand.


async def test_what_is_opened_by_hand_is_not_tried(connected):
    connected.circuits.open(OWN, by="admin", seconds=None)
    assert connected.states() == [OPEN]
    assert "by admin" in connected.told[0][0].cause
    assert not connected.timers
    connected.disconnect()
    connected.connect()
    assert all(timer.database != OWN for timer in connected.timers)
    connected.circuits.close(OWN, by="admin")
    assert connected.states() == [OPEN, CLOSED]


async def test_what_is_opened_for_a_while_is_tried_after_it(connected):
    connected.circuits.open(OWN, by="admin", seconds=60)
    assert (await connected.ring()).seconds == 60
    assert connected.states() == [OPEN, HALF_OPEN, CLOSED]


async def test_an_open_circuit_can_be_held_by_hand_and_says_so(connected):
    connected.fail()
    connected.circuits.open(OWN, by="admin", seconds=None)
    assert not connected.timers
    assert connected.states() == [OPEN, OPEN]
    assert "by admin" in connected.board.database(OWN).obstacle


async def test_closing_by_hand_stops_the_trials(connected):
    connected.fail()
    connected.circuits.close(OWN, by="admin")
    assert not connected.timers
    assert connected.breaker().state is CLOSED


# Who learns of it.


async def test_the_board_shows_the_circuit_and_why(connected):
    connected.fail()
    state = connected.board.database(OWN)
    assert (state.available, state.usable, state.circuit) == (True, False, OPEN)
    assert "its circuit is open" in state.obstacle
    assert "gone" in state.obstacle
    # What the storage server says meanwhile leaves it alone.
    connected.change(OWN, available=True)
    assert connected.board.database(OWN).circuit is OPEN
    connected.connect()
    assert connected.board.database(OWN).circuit is OPEN
    await connected.ring()
    assert connected.board.database(OWN).usable
    assert connected.board.database(OWN).obstacle == ""


async def test_a_watch_of_the_status_sees_every_change(connected):
    connected.board.saw(OWN, 7)
    watch = connected.board.watch()
    await anext(watch)
    connected.fail()
    await connected.ring()
    seen = [await anext(watch) for _ in range(3)]
    assert [one.circuit for one in seen] == [OPEN, HALF_OPEN, CLOSED]
    assert [one.usable for one in seen] == [False, False, True]
    assert {one.sequence for one in seen} == {7}
    await watch.aclose()


async def test_a_listener_after_the_circuits_hears_what_they_made_of_it(connected):
    heard = []
    connected.board.listen(lambda state: heard.append(state.databases[0].circuit))
    connected.disconnect()
    assert heard[0] is CLOSED
    assert set(heard[1:]) == {OPEN}


async def test_every_change_is_a_log_line(connected, caplog):
    with caplog.at_level("INFO", logger="hub.core.circuits.circuits"):
        connected.fail()
        await connected.ring()
    lines = [(one.levelname, one.getMessage(), one.database) for one in caplog.records]
    assert lines == [
        ("WARNING", "circuit open", OWN),
        ("INFO", "circuit half-open", OWN),
        ("INFO", "circuit closed", OWN),
    ]
    assert "gone" in caplog.records[0].cause
    assert caplog.records[0].failures == FAILURES_MAX


async def test_every_change_is_an_event_of_its_database(connected):
    announced = []

    class Recorder:
        def announce(self, database, event):
            announced.append((database, event))

    events = CircuitEvents(Recorder(), storage_server=lambda database: f"server of {database}")
    connected.circuits.listen(events.tell)
    connected.fail()
    await connected.ring()
    assert [(database, event.type) for database, event in announced] == [
        (OWN, "storage.circuit_opened"),
        (OWN, "storage.circuit_half_opened"),
        (OWN, "storage.circuit_closed"),
    ]
    event = announced[0][1]
    assert event.data_content_type == "application/protobuf"
    assert event.circuit_changed.storage_server == f"server of {OWN}"
    assert event.circuit_changed.failures == FAILURES_MAX
    assert "gone" in event.circuit_changed.cause


# The end.


async def test_when_the_hub_stops_circuits_do_not_open(connected):
    await connected.circuits.stop()
    connected.disconnect()
    assert not connected.told


async def test_stopping_ends_timers_and_trials():
    scene = Scene()
    scene.connect()
    scene.hang.clear()
    scene.fail()
    await scene.ring()
    scene.fail(OTHER)
    await scene.circuits.stop()
    assert not scene.timers
    assert scene.breaker().state is HALF_OPEN
    scene.fail(OTHER, 0)
    assert asyncio.all_tasks() - {asyncio.current_task()} == set() or not [
        task for task in asyncio.all_tasks() if task.get_name().startswith("circuit-trial")
    ]


async def test_the_bound_on_trials_holds_for_the_hubs_own_too():
    scene = Scene(limits=replace(LIMITS, trials_max=1))
    scene.connect()
    scene.hang.clear()
    scene.fail()
    await scene.ring()
    with pytest.raises(CircuitOpen):
        scene.breaker().admit()
    scene.hang.set()
    await scene.settle()
    scene.breaker().admit().succeeded()
    await scene.circuits.stop()
