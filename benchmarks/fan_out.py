"""Many live subscribers while one of them stalls: what the others notice, and what it costs.

The delay of an event is from the execution of its write, by the storage server's clock, to its
arrival at a subscriber, by the clock of the same machine. So it includes the fsync.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import grpc

from benchmarks.bench_servers import UNBOUNDED, RunningHub
from benchmarks.table import MEBIBYTE, milliseconds, p, show
from messagehub.v1 import event_service_pb2 as events

SUBSCRIBERS = 200
SUBSCRIBERS_PER_CONNECTION = 20
EVENTS_A_SECOND = 2_000
WARM_UP_SECONDS = 3.0
BEFORE_SECONDS = 10.0
STALL_SECONDS = 20.0
# Delays of every n-th subscriber are looked at one by one; all are checked for gaps.
LOOKED_AT_EVERY = 10
DECODED_MAX = 256
END_SECONDS_MAX = 60.0


class Seen(NamedTuple):
    """What a message has: its first and last sequence and when its events were executed."""

    first: int
    last: int
    times: Sequence[float]


class Decoder:
    """Decodes a message once for all subscribers that get the same bytes.

    Two hundred subscribers in one process would otherwise measure themselves.
    """

    def __init__(self) -> None:
        self._seen: dict[bytes, Seen | None] = {}
        self.distinct = 0

    def decode(self, raw: bytes) -> Seen | None:
        """Gives what the message has; None for a heartbeat."""
        if raw not in self._seen:
            if len(self._seen) >= DECODED_MAX:
                self._seen.clear()
            self._seen[raw] = self._look(raw)
            self.distinct += 1
        return self._seen[raw]

    @staticmethod
    def _look(raw: bytes) -> Seen | None:
        came = events.SubscribeResponse.FromString(raw).events
        if not came:
            return None
        times = [event.time.ToNanoseconds() / 1e9 for event in came]
        return Seen(came[0].sequence, came[-1].sequence, times)


@dataclass
class Subscriber:
    """One stream, and everything that came in it, whole and in order."""

    last: int = 0
    events: int = 0
    arrived: list[tuple[float, Seen]] = field(default_factory=list)
    stalled: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, seen: Seen) -> None:
        """Checks that nothing is missing and nothing comes twice."""
        if self.last and seen.first != self.last + 1:
            raise AssertionError(f"{seen.first} came after {self.last}")
        if seen.last - seen.first + 1 != len(seen.times):
            raise AssertionError(f"a gap between {seen.first} and {seen.last}")
        self.last = seen.last
        self.events += len(seen.times)
        self.arrived.append((time.time(), seen))

    def delays(self, begin: float, end: float) -> list[float]:
        """The delays of the events that were executed between two times."""
        return [at - one for at, seen in self.arrived for one in seen.times if begin <= one < end]

    def messages(self, begin: float, end: float) -> int:
        """How many messages came between two times."""
        return sum(begin <= at < end for at, _ in self.arrived)


async def subscribe(
    channel: grpc.aio.Channel, subscriber: Subscriber, decoder: Decoder, ready: asyncio.Semaphore
) -> None:
    """Reads a stream until it is cancelled, but nothing while `stalled` is set."""
    stream = channel.unary_stream("/messagehub.v1.EventService/Subscribe")(
        events.SubscribeRequest(source_service="metrics", latest=True).SerializeToString()
    )
    try:
        await stream.read()
        ready.release()
        while True:
            if subscriber.stalled.is_set():
                await subscriber.running.wait()
            raw = await stream.read()
            if (seen := decoder.decode(raw)) is not None:
                subscriber.take(seen)
    finally:
        stream.cancel()


async def write_for(hub: RunningHub, seconds: float) -> tuple[float, float]:
    """Writes at the rate; gives when that began and ended."""
    began = time.time()
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.paced_writer"),
        *(hub.address, str(EVENTS_A_SECOND), str(seconds)),
    )
    if await writer.wait():
        raise RuntimeError("the writer failed")
    return began, time.time()


async def all_have(subscribers: Sequence[Subscriber]) -> None:
    """Waits until all have the same newest event, and no more comes."""
    async with asyncio.timeout(END_SECONDS_MAX):
        while len({subscriber.last for subscriber in subscribers}) > 1:
            await asyncio.sleep(0.05)


@dataclass
class Phase:
    """A stretch of writing: delays, messages and processor time of the hub."""

    delays: list[float]
    messages_a_second: float
    processor_share: float

    def row(self, name: str, before: "Phase") -> tuple[str, ...]:
        """Its line in the table."""
        ratios = [f"{p(self.delays, n) / p(before.delays, n):.2f}" for n in (50, 99)]
        return (
            name,
            *(milliseconds(p(self.delays, n)) for n in (50, 99)),
            *ratios,
            f"{self.messages_a_second:,.0f}",
            f"{self.processor_share:.2f}",
        )


async def phase(hub: RunningHub, subscribers: Sequence[Subscriber], seconds: float) -> Phase:
    """Writes for so long while the subscribers listen."""
    used = hub.processor_seconds()
    began, ended = await write_for(hub, seconds)
    share = (hub.processor_seconds() - used) / (ended - began)
    await all_have(subscribers)
    looked_at = subscribers[::LOOKED_AT_EVERY]
    return Phase(
        [delay for one in looked_at for delay in one.delays(began, ended)],
        sum(one.messages(began, ended) for one in subscribers) / (ended - began),
        share,
    )


async def stalled_subscriber(hub: RunningHub) -> None:
    """Measures the scene and prints a table."""
    decoder, ready = Decoder(), asyncio.Semaphore(0)
    subscribers = [Subscriber() for _ in range(SUBSCRIBERS)]
    channels = [
        grpc.aio.insecure_channel(
            hub.address, options=(*UNBOUNDED, ("grpc.use_local_subchannel_pool", 1))
        )
        for _ in range(SUBSCRIBERS // SUBSCRIBERS_PER_CONNECTION + 1)
    ]
    stalled, *others = subscribers
    tasks = [asyncio.create_task(subscribe(channels[0], stalled, decoder, ready))]
    for number, subscriber in enumerate(others):
        channel = channels[1 + number // SUBSCRIBERS_PER_CONNECTION]
        tasks.append(asyncio.create_task(subscribe(channel, subscriber, decoder, ready)))
    try:
        async with asyncio.timeout(END_SECONDS_MAX):
            for _ in subscribers:
                await ready.acquire()
        await phase(hub, subscribers, WARM_UP_SECONDS)
        before = await phase(hub, subscribers, BEFORE_SECONDS)
        memory = [hub.resident_bytes()]
        stalled.stalled.set()
        during = await phase(hub, others, STALL_SECONDS)
        memory.append(hub.resident_bytes())
        missed = others[0].events - stalled.events
        stalled.stalled.clear()
        stalled.running.set()
        began = time.perf_counter()
        await all_have(subscribers)
        took = time.perf_counter() - began
        memory.append(hub.resident_bytes())
        ended = [task for task in tasks if task.done()]
        for task in ended:
            task.result()
        if len({subscriber.events for subscriber in subscribers}) > 1:
            raise AssertionError("not everybody got everything once")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for channel in channels:
            await channel.close()
    show(
        f"{SUBSCRIBERS} subscribers, {EVENTS_A_SECOND} events/s, one stalls for "
        f"{STALL_SECONDS:.0f} s",
        [
            ("the others", "p50", "p99", "p50 / before", "p99 / before", "messages/s", "hub CPU"),
            before.row("before", before),
            during.row("during the stall", before),
        ],
    )
    print(
        f"\nThe hub had {memory[0] / MEBIBYTE:.0f} MiB before, {memory[1] / MEBIBYTE:.0f} MiB at "
        f"the end of the stall and {memory[2] / MEBIBYTE:.0f} MiB after. The stalled subscriber "
        f"was {missed} events behind and had every one of them once {took:.1f} s later."
    )
