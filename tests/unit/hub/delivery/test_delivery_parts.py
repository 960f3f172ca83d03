"""What the delivery is made of: verdicts, gates, how far journals reach, messages and pages."""

import asyncio

import pytest

from hub.adapters.journal_reach import JournalReach
from hub.api.operation_messages import STATES, page_size, page_token, selection
from hub.core.circuits.gate import Gate
from hub.core.delivery.entries import State
from hub.core.delivery.verdict import Verdict, judge
from hub.core.events.journal import JournalEnds, JournalEvent, JournalPage, Position
from messagehub.errors import (
    TABLE,
    CircuitOpen,
    DatabaseCorrupt,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    PredecessorMissing,
    QueueFull,
    Retry,
    StorageFull,
)
from messagehub.v1.event_pb2 import Event
from messagehub.v1.storage_service_pb2 import ListOperationsRequest, OperationState
from tests.unit.hub.fake_storage import soon

# Verdicts.


@pytest.mark.parametrize("kind", sorted(TABLE, key=lambda kind: kind.__name__))
def test_every_error_has_a_verdict(kind):
    verdict = judge(kind("x"), answered=True)
    if kind in (CircuitOpen, PredecessorMissing, QueueFull):
        assert verdict is Verdict.REFUSED
    elif kind in (StorageFull, DatabaseCorrupt):
        assert verdict is Verdict.LATER
    elif kind in (DeadlineExceeded, InternalError):
        assert verdict is Verdict.SETBACK
    elif TABLE[kind].retry in (Retry.SAME_CALL, Retry.WHOLE_TRANSACTION):
        assert verdict is Verdict.LATER
    else:
        assert verdict is Verdict.FINAL


@pytest.mark.parametrize("kind", [DeadlineExceeded, InternalError])
def test_without_an_answer_nothing_is_held_against_the_operation(kind):
    assert judge(kind("x"), answered=False) is Verdict.LATER


# Gates.


async def forever(_seconds):
    await asyncio.Event().wait()


async def at_once(_seconds):
    return


async def test_a_gate_is_open_until_it_is_closed():
    gate = Gate(forever)
    await soon(gate.wait())
    gate.set(is_open=False)
    assert not gate.is_open
    waiting = asyncio.ensure_future(gate.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.set(is_open=True)
    await soon(waiting)


async def test_a_rest_ends_by_itself_or_when_the_gate_opens_again():
    await soon(Gate(at_once).rest(60.0, 0))
    gate = Gate(forever)
    resting = asyncio.ensure_future(gate.rest(60.0, gate.openings))
    await asyncio.sleep(0)
    gate.set(is_open=True)  # it was open all the time: no news
    await asyncio.sleep(0)
    assert not resting.done()
    gate.set(is_open=False)
    gate.set(is_open=True)
    await soon(resting)


async def test_a_rest_from_something_before_it_opened_is_over_already():
    gate = Gate(forever)
    seen = gate.openings
    gate.set(is_open=False)
    gate.set(is_open=True)
    await soon(gate.rest(60.0, seen))


# How far journals reach.


class Journal:
    def __init__(self, oldest, *times_us):
        self.oldest = Position("e", oldest)
        events = []
        for number, time_us in enumerate(times_us, start=oldest + 1):
            event = Event(sequence=number)
            event.time.FromMicroseconds(time_us)
            events.append(JournalEvent(number, "a.b", "x", "", "", 1, event.SerializeToString()))
        self.pages = [JournalPage("e", events, oldest + len(events))]
        self.asked = []

    async def ends(self, database):
        return JournalEnds(Position("e", 1000), self.oldest)

    async def read(self, database, after, *, until, bytes_max):
        self.asked.append((database, after, until, bytes_max))
        return self.pages


async def test_a_journal_that_was_never_trimmed_reaches_back_to_anything():
    journal = Journal(0)
    assert await JournalReach(journal).reaches("a_db", 5)
    assert journal.asked == []


@pytest.mark.parametrize(("since", "reaches"), [(99, False), (100, False), (101, True)])
async def test_a_trimmed_journal_reaches_back_to_its_oldest_event(since, reaches):
    journal = Journal(40, 100, 200)
    assert await JournalReach(journal).reaches("a_db", since) is reaches
    assert journal.asked == [("a_db", Position("e", 40), 41, 1)]


async def test_a_trimmed_journal_without_events_reaches_back_to_nothing():
    assert not await JournalReach(Journal(40)).reaches("a_db", 10**18)


# Messages and pages.


def test_the_states_are_those_of_the_wire_and_of_the_disk():
    for state in State:
        assert STATES[state] == OperationState.Value(f"OPERATION_STATE_{state.name}")
        assert STATES[state] == state.value
    assert len(STATES) == len(OperationState.keys()) - 1


@pytest.mark.parametrize("before", [1, 15, 1 << 40, (1 << 63) - 1])
def test_a_page_token_leads_back_to_its_place(before):
    request = ListOperationsRequest(source_service="a", page_token=page_token(before))
    assert selection(request).before == before


def test_without_a_token_a_list_begins_at_the_newest():
    assert selection(ListOperationsRequest()).before is None
    assert page_token(None) == ""


@pytest.mark.parametrize(
    "token", ["0", "-1", "x", "1F", " 1", "0x1", "1_0", f"{1 << 63:x}", "\u0661"]
)
def test_another_token_is_refused(token):
    with pytest.raises(InvalidRequest) as refusal:
        selection(ListOperationsRequest(page_token=token))
    assert list(refusal.value.fields) == ["page_token"]


def test_a_list_is_filtered_by_states():
    request = ListOperationsRequest(states=[1, 4], database="a_db", source_service="x")
    assert selection(request) == ("x", "a_db", [State.QUEUED, State.FAILED], None)
    for states in ([0], [1, 6]):
        with pytest.raises(InvalidRequest) as refusal:
            selection(ListOperationsRequest(states=states))
        assert list(refusal.value.fields) == [f"states[{len(states) - 1}]"]


def test_a_page_has_a_size():
    assert page_size(ListOperationsRequest()) == 100
    assert page_size(ListOperationsRequest(page_size=1000)) == 1000
    for size in (-1, 1001):
        with pytest.raises(InvalidRequest) as refusal:
            page_size(ListOperationsRequest(page_size=size))
        assert list(refusal.value.fields) == ["page_size"]
