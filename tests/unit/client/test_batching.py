"""Shared calls: whatever the order of things, every caller gets exactly its own outcome."""

import asyncio

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messagehub.batching import Batching, BatchingLimits
from messagehub.errors import (
    ConstraintViolation,
    DeadlineExceeded,
    HubError,
    InternalError,
    QueueFull,
    StorageUnavailable,
)
from messagehub.status import to_status
from messagehub.v1.statement_pb2 import Statement
from messagehub.v1.storage_service_pb2 import (
    ExecuteRequest,
    ExecuteResponse,
    ExecuteStreamResponse,
    StreamedOutcome,
)

SECONDS = 60.0
ENDLESS = 3600.0
# Nothing counts as taken in by the clock.
LIMITS = {"alone_taken_seconds": ENDLESS, "stream_taken_seconds": ENDLESS}


def request_of(name):
    return ExecuteRequest(
        source_service="character", request_id=str(name), statement=Statement(query=f"q{name}")
    )


def answer_to(name):
    return ExecuteResponse(database="character_db", correlation_id=str(name))


class Failure(grpc.aio.AioRpcError):
    def __init__(self, code=grpc.StatusCode.UNAVAILABLE):
        super().__init__(code, grpc.aio.Metadata(), grpc.aio.Metadata())


class Stream:
    """A streaming call, whose messages come when the test says so."""

    def __init__(self, request, seconds):
        self.names = [operation.request_id for operation in request.operations]
        self.operations = request.operations
        self.seconds = seconds
        self.messages = asyncio.Queue()
        self.over = False

    async def __aiter__(self):
        try:
            while (message := await self.messages.get()) is not None:
                if isinstance(message, Exception):
                    raise message
                yield message
        finally:
            self.over = True

    def tell(self, *outcomes):
        """Tells outcomes, each a name or a name with its error; nothing = it is taken in."""
        told = []
        for outcome in outcomes:
            name, error = outcome if isinstance(outcome, tuple) else (outcome, None)
            index = self.names.index(str(name))
            if error is None:
                told.append(StreamedOutcome(index=index, response=answer_to(name)))
            else:
                told.append(StreamedOutcome(index=index, error=to_status(error)))
        self.messages.put_nowait(ExecuteStreamResponse(outcomes=told))

    def end(self, failure=None):
        self.messages.put_nowait(failure)


class Calls:
    def __init__(self):
        self.alone = {}
        self.streams = []

    async def execute(self, request, seconds):
        waiting = self.alone[request.request_id] = asyncio.get_running_loop().create_future()
        return await waiting

    def stream(self, request, seconds):
        stream = Stream(request, seconds)
        self.streams.append(stream)
        return stream


class Scene:
    """Callers named by numbers, and the calls that they share."""

    def __init__(self, **limits):
        self.calls = Calls()
        self.batching = Batching(
            self.calls,
            lambda failure: StorageUnavailable(failure.code().name),
            BatchingLimits(**{**LIMITS, "calls_in_flight_max": 1, **limits}),
        )
        self.callers = {}

    async def call(self, *names, seconds=SECONDS):
        for name in names:
            work = self.batching.execute(request_of(name), seconds)
            self.callers[name] = asyncio.ensure_future(work)
        await settle()

    def finish_alone(self, name):
        self.calls.alone[str(name)].set_result(answer_to(name))

    def outcome(self, name):
        """What a caller got: its own name, a class of errors, or None while it waits."""
        caller = self.callers[name]
        if not caller.done():
            return None
        if caller.cancelled():
            return asyncio.CancelledError
        if caller.exception() is not None:
            return type(caller.exception())
        return caller.result().correlation_id


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def scene():
    """Makes scenes, and ends them."""
    made = []

    def make(**limits):
        made.append(Scene(**limits))
        return made[-1]

    yield make
    for one in made:
        for caller in one.callers.values():
            caller.cancel()
        await asyncio.wait(one.callers.values())
        await one.batching.close()


async def test_one_alone_leaves_at_once_as_a_call_of_its_own(scene):
    s = scene()
    await s.call(1)
    assert list(s.calls.alone) == ["1"]
    s.finish_alone(1)
    await settle()
    assert s.outcome(1) == "1"
    await s.call(2)
    assert list(s.calls.alone) == ["1", "2"]
    assert s.calls.streams == []


async def test_what_comes_meanwhile_gathers_in_its_order(scene):
    s = scene()
    await s.call(1, 2, 3)
    assert s.calls.streams == []
    s.finish_alone(1)
    await settle()
    (stream,) = s.calls.streams
    assert stream.names == ["2", "3"]
    assert stream.operations[0].timeout.ToTimedelta().total_seconds() <= SECONDS
    await s.call(4)
    # The first message says that it is taken in; the next ones may leave.
    stream.tell()
    await settle()
    assert [one.names for one in s.calls.streams] == [["2", "3"], ["4"]]
    assert s.outcome(2) is None
    stream.tell(3)
    await settle()
    assert (s.outcome(2), s.outcome(3)) == (None, "3")


async def test_a_slow_one_holds_up_neither_its_companions_nor_those_behind_it(scene):
    s = scene(alone_taken_seconds=0.0)
    await s.call("slow")
    await s.call(1, 2)
    assert [s.outcome(name) for name in ("slow", 1)] == [None, None]
    for stream in s.calls.streams:
        stream.tell(*stream.names)
    for name in set(s.calls.alone) - {"slow"}:
        s.finish_alone(name)
    await settle()
    assert [s.outcome(name) for name in ("slow", 1, 2)] == [None, "1", "2"]


async def test_an_error_is_that_of_its_operation(scene):
    s = scene()
    await s.call(1, 2, 3)
    s.finish_alone(1)
    await settle()
    s.calls.streams[0].tell((2, ConstraintViolation("no")), 3)
    await settle()
    assert (s.outcome(2), s.outcome(3)) == (ConstraintViolation, "3")


async def test_a_call_that_breaks_is_told_to_those_without_an_outcome(scene):
    s = scene()
    await s.call(1, 2, 3)
    s.finish_alone(1)
    await settle()
    s.calls.streams[0].tell(2)
    s.calls.streams[0].end(Failure())
    await settle()
    assert (s.outcome(2), s.outcome(3)) == ("2", StorageUnavailable)
    assert isinstance(s.callers[3].exception().__cause__, grpc.aio.AioRpcError)
    await s.call(4)
    assert "4" in s.calls.alone


async def test_a_call_that_ends_without_an_outcome_leaves_nobody_waiting(scene):
    s = scene()
    await s.call(1, 2)
    s.finish_alone(1)
    await settle()
    s.calls.streams[0].end()
    await settle()
    assert s.outcome(2) is InternalError


async def test_a_hub_that_does_not_know_the_call_gets_each_alone(scene):
    s = scene()
    await s.call(1, 2, 3)
    s.finish_alone(1)
    await settle()
    s.calls.streams[0].end(Failure(grpc.StatusCode.UNIMPLEMENTED))
    await settle()
    await s.call(4, 5)
    assert list(s.calls.alone) == ["1", "2", "3", "4", "5"]
    for name in (2, 3, 4, 5):
        s.finish_alone(name)
    await settle()
    assert [s.outcome(name) for name in (2, 3, 4, 5)] == ["2", "3", "4", "5"]


async def test_whoever_goes_away_is_not_sent_and_not_waited_for(scene):
    s = scene()
    await s.call(1, 2, 3, 4)
    s.callers[2].cancel()
    await settle()
    s.finish_alone(1)
    await settle()
    (stream,) = s.calls.streams
    assert stream.names == ["3", "4"]
    s.callers[3].cancel()
    await settle()
    assert not stream.over
    s.callers[4].cancel()
    await settle()
    assert stream.over
    await s.call(5)
    assert "5" in s.calls.alone


async def test_each_waits_only_for_its_own_time(scene):
    s = scene()
    await s.call(1)
    await s.call(2, seconds=0.01)
    await s.call(3)
    await asyncio.wait([s.callers[2]])
    assert s.outcome(2) is DeadlineExceeded
    s.finish_alone(1)
    await settle()
    assert s.calls.streams[0].names == ["3"]
    assert s.calls.streams[0].seconds >= SECONDS - 1.0


async def test_a_call_is_bounded_in_operations_and_bytes(scene):
    s = scene(operations_max=2)
    await s.call(*range(6))
    s.finish_alone(0)
    await settle()
    s.calls.streams[0].tell(1)
    await settle()
    assert [one.names for one in s.calls.streams] == [["1", "2"], ["3", "4"]]
    small = scene(bytes_max=1)
    await small.call(0, 1, 2)
    small.finish_alone(0)
    await settle()
    assert [one.names for one in small.calls.streams] == [["1"]]


async def test_what_waits_is_bounded(scene):
    s = scene(waiting_operations_max=2)
    await s.call(*range(4))
    assert [s.outcome(name) for name in range(4)] == [None, None, None, QueueFull]
    full = scene(waiting_bytes_max=request_of(1).ByteSize())
    await full.call(*range(3))
    assert full.outcome(2) is QueueFull


async def test_streams_that_have_not_ended_are_bounded(scene):
    s = scene(streams_max=1)
    await s.call(0, 1)
    s.finish_alone(0)
    await settle()
    s.calls.streams[0].tell()
    await s.call(2)
    await s.call(3)
    assert len(s.calls.streams) == 1
    s.calls.streams[0].tell(1)
    s.calls.streams[0].end()
    await settle()
    assert len(s.calls.streams) + len(s.calls.alone) >= 2


async def test_a_closed_client_tells_whoever_waits(scene):
    s = scene()
    await s.call(1, 2)
    s.finish_alone(1)
    await settle()
    await s.call(3)
    await s.batching.close()
    await settle()
    assert (s.outcome(2), s.outcome(3)) == (RuntimeError, RuntimeError)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("call", "finish", "fail", "break", "taken", "end", "go")),
        st.integers(0, 1000),
        st.integers(1, 4),
    ),
    max_size=60,
)


async def live(steps, in_flight):
    """Does what the steps say; then everything ends, and each caller has exactly its own."""
    s = Scene(calls_in_flight_max=in_flight, operations_max=3)
    wanted = {}
    for what, choice, count in steps:
        if what == "call":
            await s.call(*range(len(s.callers), len(s.callers) + count))
        elif what == "go":
            go(s, choice, wanted)
        else:
            answer(s, what, choice, count, wanted)
        await settle()
    while not all(caller.done() for caller in s.callers.values()):
        for name in open_alone(s):
            finish(s, name, wanted)
        for stream in open_streams(s):
            step(stream, "end", 0, 0, wanted)
        await settle()
    assert {name: s.outcome(name) for name in s.callers} == wanted
    await s.batching.close()


def go(s, choice, wanted):
    waiting = [name for name in s.callers if s.outcome(name) is None]
    if waiting:
        gone = waiting[choice % len(waiting)]
        s.callers[gone].cancel()
        wanted[gone] = asyncio.CancelledError


def answer(s, what, choice, count, wanted):
    alone, streams = open_alone(s), open_streams(s)
    if what == "finish" and alone:
        finish(s, alone[choice % len(alone)], wanted)
    elif streams:
        step(streams[choice % len(streams)], what, choice, count, wanted)


def open_streams(s):
    return [stream for stream in s.calls.streams if not stream.over]


def open_alone(s):
    return [int(name) for name, waiting in s.calls.alone.items() if not waiting.done()]


def finish(s, name, wanted):
    s.finish_alone(name)
    wanted.setdefault(name, str(name))


def step(stream, what, choice, count, wanted):
    untold = [name for name in map(int, stream.names) if name not in told_by(stream)]
    some = untold[choice % (len(untold) or 1) :][:count]
    if what == "break":
        for name in untold:
            wanted.setdefault(name, StorageUnavailable)
        stream.end(Failure())
    elif what == "taken":
        stream.tell()
    elif what == "fail":
        tell(stream, [(name, ConstraintViolation("no")) for name in some], wanted)
    elif what == "finish":
        tell(stream, some, wanted)
    elif what == "end":
        tell(stream, untold, wanted)
        stream.end()


def told_by(stream):
    return getattr(stream, "told", set())


def tell(stream, outcomes, wanted):
    stream.told = told_by(stream) | {one[0] if isinstance(one, tuple) else one for one in outcomes}
    for outcome in outcomes:
        name, error = outcome if isinstance(outcome, tuple) else (outcome, None)
        wanted.setdefault(name, str(name) if error is None else type(error))
    stream.tell(*outcomes)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(steps=STEPS, in_flight=st.integers(1, 3))
def test_any_interleaving_gives_each_caller_its_own_outcome(steps, in_flight):
    asyncio.run(live(steps, in_flight))


async def test_the_errors_of_a_group_are_not_shared(scene):
    s = scene()
    await s.call(1, 2, 3)
    s.finish_alone(1)
    await settle()
    s.calls.streams[0].end(Failure())
    await settle()
    first, second = s.callers[2].exception(), s.callers[3].exception()
    assert isinstance(first, HubError)
    assert first is not second


@pytest.mark.parametrize("seconds", [0.0, 1e-12])
async def test_a_time_that_is_over_is_still_a_time(scene, seconds):
    s = scene()
    await s.call(1)
    await s.call(2, seconds=seconds)
    await asyncio.wait([s.callers[2]])
    assert s.outcome(2) is DeadlineExceeded
