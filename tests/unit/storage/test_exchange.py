"""One stream with a hub: frames in, outcomes out, both bounded."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from messagehub.errors import InvalidRequest
from messagehub.storage.v1 import storage_service_pb2 as wire
from messagehub.v1.statement_pb2 import ResultSet, Statement, Value
from storage.api.exchange import Exchange, ExchangeLimits
from storage.core.operation import Operation, Outcome
from tests.unit.storage.scripted_databases import NEVER, Server
from tests.unit.storage.scripted_engine import settle


class Hub:
    """The other end of one stream."""

    def __init__(self, server: Server, **limits: Any) -> None:
        defaults: dict[str, Any] = {
            "frame_bytes_max": 1000,
            "outgoing_bytes_max": 10_000,
            "caller_outgoing_bytes_max": 10_000,
            "acknowledge_seconds": NEVER,
            "operation_seconds_max": 30.0,
        }
        self.exchange = Exchange(server.databases, ExchangeLimits(**(defaults | limits)))
        self._frames: asyncio.Queue[wire.ExchangeRequest | Exception | None] = asyncio.Queue()
        self.taken_in = 0
        self.responses = self.exchange.run(self._requests())
        self.received: list[wire.ExchangeResponse] = []
        self.reading: asyncio.Task[None] | None = None

    async def _requests(self) -> AsyncIterator[wire.ExchangeRequest]:
        while (frame := await self._frames.get()) is not None:
            if isinstance(frame, Exception):
                raise frame
            self.taken_in += 1
            yield frame

    def send(self, *operations: wire.Operation, cancelled: tuple[int, ...] = ()) -> None:
        self._frames.put_nowait(wire.ExchangeRequest(operations=operations, cancelled=cancelled))

    def fail(self, failure: Exception) -> None:
        self._frames.put_nowait(failure)

    def end(self) -> None:
        self._frames.put_nowait(None)

    def read(self) -> None:
        """From now on, everything that comes is taken at once."""

        async def take_all() -> None:
            async for response in self.responses:
                self.received.append(response)

        self.reading = asyncio.ensure_future(take_all())

    @property
    def outcomes(self) -> dict[int, wire.Outcome]:
        return {o.number: o for response in self.received for o in response.outcomes}

    async def close(self) -> None:
        if self.reading is not None:
            self.reading.cancel()
            await asyncio.wait([self.reading])
        await self.responses.aclose()


def write(number: int, database: str = "a", query: str = "INSERT", **more: Any) -> wire.Operation:
    return wire.Operation(
        number=number, database=database, statement=Statement(query=query), **more
    )


@pytest_asyncio.fixture(loop_scope="session")
async def hub(server: Server) -> AsyncIterator[Hub]:
    made = Hub(server)
    yield made
    await made.close()


async def test_outcomes_come_back_by_number_and_together(server: Server, hub: Hub) -> None:
    hub.read()
    hub.send(*(write(number, database="ab"[number % 2]) for number in range(100, 140)))
    await settle()
    assert sorted(hub.outcomes) == list(range(100, 140))
    assert all(outcome.HasField("result") for outcome in hub.outcomes.values())
    assert all(outcome.sequence for outcome in hub.outcomes.values())
    assert len(hub.received) < 10
    assert hub.received[-1].frames_taken == 1


async def test_a_frame_counts_as_taken_without_an_outcome_too(server: Server) -> None:
    hub = Hub(server, acknowledge_seconds=0.0)
    hub.read()
    server.disk("a").applying.shut()
    hub.send(write(1))
    hub.send()
    await settle()
    await asyncio.sleep(0.01)
    assert hub.received[-1].frames_taken == 2
    assert hub.outcomes == {}
    server.disk("a").applying.open()
    await settle()
    assert list(hub.outcomes) == [1]
    told = [response.frames_taken for response in hub.received]
    assert told == sorted(told)
    await hub.close()


async def test_what_is_refused_at_the_door_is_an_outcome(server: Server, hub: Hub) -> None:
    hub.read()
    hub.send(write(1, database="No Name"), write(2))
    await settle()
    assert hub.outcomes[1].HasField("error")
    assert hub.outcomes[2].HasField("result")


async def test_a_write_that_was_cancelled_while_it_waited_is_not_run(
    server: Server, hub: Hub
) -> None:
    hub.read()
    server.disk("a").applying.shut()
    hub.send(write(1))
    await server.disk("a").applying.reached.wait()
    hub.send(write(2), write(3))
    hub.send(cancelled=(2, 77))
    await settle()
    server.disk("a").applying.open()
    await settle()
    cancelled = [operation.cancelled for group in server.disk("a").groups for operation in group]
    assert cancelled == [False, True, False], "the engine refuses those that are marked"
    assert sorted(hub.outcomes) == [1, 2, 3], "a cancelled one is answered too"


async def test_when_the_stream_breaks_everything_that_runs_is_cancelled(
    server: Server, hub: Hub
) -> None:
    hub.read()
    for gate in (server.disk("a").applying, server.disk("b").reading):
        gate.shut()
    hub.send(write(1), write(2, database="b", query="SELECT"))
    await server.disk("a").applying.reached.wait()
    await server.disk("b").reading.reached.wait()
    hub.send(write(3))
    await settle()
    await hub.close()
    server.disk("a").applying.open()
    server.disk("b").reading.open()
    await settle()
    assert all(operation.cancelled for group in server.disk("a").groups for operation in group)
    assert all(operation.cancelled for operation in server.disk("b").read)


async def test_a_hub_that_ends_its_side_still_gets_every_outcome(server: Server, hub: Hub) -> None:
    hub.read()
    server.disk("a").applying.shut()
    hub.send(write(1), write(2))
    hub.end()
    await server.disk("a").applying.reached.wait()
    await settle()
    assert hub.reading is not None
    assert not hub.reading.done()
    server.disk("a").applying.open()
    await hub.reading
    assert sorted(hub.outcomes) == [1, 2]


async def test_a_frame_that_cannot_be_read_ends_the_stream_with_its_error(
    server: Server, hub: Hub
) -> None:
    hub.read()
    hub.send(write(1))
    hub.fail(InvalidRequest("no frame"))
    assert hub.reading is not None
    with pytest.raises(InvalidRequest):
        await hub.reading
    assert list(hub.outcomes) == [1]


async def test_outcomes_leave_in_frames_of_bounded_size(server: Server, hub: Hub) -> None:
    hub.send()  # the stream begins
    first = asyncio.ensure_future(anext(hub.responses))
    await settle()
    for number in range(10):
        hub.exchange._running[number] = server.caller.operation(str(number))
        hub.exchange._deliver(number, sized(400))
    hub.exchange._running[10] = server.caller.operation("large")
    hub.exchange._deliver(10, sized(5000))
    hub.received.append(await first)
    hub.read()
    await settle()
    sizes = [response.ByteSize() for response in hub.received if response.outcomes]
    assert sorted(hub.outcomes) == list(range(11))
    assert max(sizes[:-1]) <= 1000 + 20, "as many as fit"
    assert len(hub.received[-1].outcomes) == 1, "one that is larger than a frame goes alone"


def sized(size: int) -> Outcome:
    outcome = Outcome(result=ResultSet())
    assert outcome.result is not None
    outcome.result.rows.add().values.append(Value(blob=b"x" * size))
    return outcome


async def test_a_hub_that_does_not_read_is_not_read_from_either(server: Server) -> None:
    """What waits to leave is bounded, and flows again when it leaves: no dead lock."""
    hub = Hub(server, outgoing_bytes_max=200, frame_bytes_max=50)
    first = asyncio.ensure_future(anext(hub.responses))
    hub.send(write(0))
    hub.received.append(await first)
    for number in range(1, 200):
        hub.send(write(number))
        await settle(5)
    assert 10 < hub.taken_in < 100, "frames are left in the transport"
    assert 200 < hub.exchange._outgoing_bytes < 300
    hub.read()
    hub.end()
    assert hub.reading is not None
    await hub.reading
    assert sorted(hub.outcomes) == list(range(200))
    assert hub.exchange._outgoing_bytes == 0


async def test_results_that_nobody_takes_are_dropped_but_never_what_a_write_did(
    server: Server, hub: Hub
) -> None:
    hub.send()
    first = asyncio.ensure_future(anext(hub.responses))
    await settle()
    for number in range(100):
        hub.exchange._running[number] = server.caller.operation(str(number))
        outcome = sized(900)
        outcome.event_id = "a write's" if number % 2 else ""
        hub.exchange._deliver(number, outcome)
    hub.received.append(await first)
    hub.read()
    await settle(200)
    refused = [number for number, outcome in hub.outcomes.items() if outcome.HasField("error")]
    assert len(hub.outcomes) == 100
    assert refused == list(range(12, 100, 2))


async def test_results_of_one_caller_do_not_use_up_the_room_of_others(server: Server) -> None:
    hub = Hub(server, caller_outgoing_bytes_max=4000)
    hub.send()
    first = asyncio.ensure_future(anext(hub.responses))
    await settle()
    for number in range(12):
        service = "quiet" if number == 10 else "flood"
        hub.exchange._running[number] = server.caller.operation(str(number), service=service)
        hub.exchange._deliver(number, sized(900))
    hub.received.append(await first)
    hub.read()
    await settle(200)
    refused = [number for number, outcome in hub.outcomes.items() if outcome.HasField("error")]
    assert refused == [5, 6, 7, 8, 9, 11]
    assert not hub.exchange._caller_bytes
    hub.exchange._running[12] = server.caller.operation("12", service="flood")
    hub.exchange._deliver(12, sized(900))
    await settle(50)
    assert hub.outcomes[12].HasField("result"), "what has left counts no more"
    hub.end()
    assert hub.reading is not None
    await hub.reading


async def test_outcomes_of_a_stream_that_is_gone_hurt_nobody(server: Server, hub: Hub) -> None:
    hub.read()
    server.disk("a").applying.shut()
    hub.send(write(1))
    await server.disk("a").applying.reached.wait()
    other = Hub(server)
    other.read()
    other.send(write(1))
    await settle()
    await hub.close()
    server.disk("a").applying.open()
    await settle()
    assert list(other.outcomes) == [1]
    await other.close()


@pytest.mark.parametrize("timeout_ms", [0, 1500, -5])
async def test_the_time_that_is_left_becomes_a_deadline(
    server: Server, hub: Hub, timeout_ms: int
) -> None:
    hub.read()
    before = asyncio.get_running_loop().time()
    hub.send(write(1, timeout_ms=timeout_ms))
    await settle()
    after = asyncio.get_running_loop().time()
    ((operation,),) = server.disk("a").groups
    seconds = timeout_ms / 1000 or 30.0
    assert before + seconds <= operation.deadline <= after + seconds


async def test_everything_of_an_operation_arrives(server: Server, hub: Hub) -> None:
    hub.read()
    asked = write(
        1,
        source_service="campaign",
        correlation_id="why",
        request_id="0190a000-0000-7000-8000-000000000001",
    )
    published = wire.Operation(number=2, database="a", source_service="campaign")
    published.event.type = "campaign.made"
    hub.send(asked, published)
    await settle()
    operations: list[Operation] = [o for group in server.disk("a").groups for o in group]
    statement, event = operations
    assert (statement.source_service, statement.correlation_id) == ("campaign", "why")
    assert statement.request_id == asked.request_id
    assert statement.statement == asked.statement
    assert statement.event is None
    assert statement.size_bytes == asked.ByteSize()
    assert event.statement is None
    assert event.event == published.event


async def test_a_service_that_may_only_read_is_refused_a_write(server: Server, hub: Hub) -> None:
    hub.read()
    hub.send(write(1, read_only=True), write(2, query="SELECT", read_only=True))
    await settle()
    assert hub.outcomes[1].HasField("error")
    assert hub.outcomes[2].HasField("result")
