"""A guard over storage servers whose every end of a call a test decides."""

import asyncio
from types import SimpleNamespace

from hub.core.circuits.circuits import Circuits
from hub.core.circuits.guard import Guard
from hub.core.circuits.guarded_journal import GuardedJournal
from hub.core.circuits.retry import RetryLimits
from hub.core.events.journal import JournalEnds, JournalPage, Position
from hub.core.ports import Adoption, Operation, Reading
from messagehub.errors import StorageUnavailable
from tests.unit.hub.circuits.circuit_parts import LIMITS, SERVER, Clock, machine

OWN, OTHER = "character_db", "auth_db"
ANSWER_SECONDS = 10.0
RETRIES = RetryLimits(
    attempts_max=4,
    seconds_min=0.1,
    seconds_max=10.0,
    budget_share=0.0,
    budget_per_second=0.0,
    budget_max=100.0,
)
GONE = StorageUnavailable("gone")


class Servers:
    """The ports below; each call ends as the test has written it down, else well."""

    def __init__(self, clock):
        self.clock = clock
        self.ends = []
        self.sent = []
        self.seconds = []
        self.closed = 0
        self.hang = asyncio.Event()
        self.hang.set()
        self.silent = False
        self.pages = ["first", "second"]
        self.break_after_first_page = None

    async def _end(self, seconds, default=None):
        self.seconds.append(seconds)
        await self.hang.wait()
        if self.silent:
            self.clock.now += seconds
        end = self.ends.pop(0) if self.ends else default
        if isinstance(end, Exception):
            raise end
        return end

    async def run(self, operations, seconds):
        self.sent.append([one.request_id for one in operations])
        self.seconds.append(seconds)
        await self.hang.wait()
        if self.silent:
            self.clock.now += seconds
        ends = self.ends.pop(0) if self.ends else {}
        return [
            ends.get(one.request_id) or SimpleNamespace(request_id=one.request_id)
            for one in operations
        ]

    async def query(self, reading, seconds):
        self.sent.append(reading.database)
        try:
            await self._end(seconds)
            for page in self.pages:
                yield page
                if self.break_after_first_page:
                    raise self.break_after_first_page
        finally:
            self.closed += 1

    async def look_up(self, database, request_id, *, correlation_id, seconds):
        self.sent.append(database)
        return await self._end(seconds)

    async def adopt(self, adoption, seconds):
        self.sent.append(adoption.database)
        return await self._end(seconds, ("heroes",))

    async def tail(self, database, after):
        self.sent.append(database)
        try:
            await self._end(0)
            yield JournalPage("e", [], 1)
            if self.break_after_first_page:
                raise self.break_after_first_page
            yield JournalPage("e", [], 2)
        finally:
            self.closed += 1

    async def read(self, database, after, *, until, bytes_max):
        return await self._end(0, [])

    async def ends_of(self, database):
        return await self._end(0, JournalEnds(Position("e", 2), Position("e", 0)))


class Parts:
    def __init__(self, retries):
        self.clock = Clock()
        self.servers = Servers(self.clock)
        self.slept = []
        self.after_sleep = lambda: None
        self.circuits = Circuits(
            (OWN, OTHER),
            LIMITS,
            make_machine=machine,
            storage=self.servers,
            trial_seconds=ANSWER_SECONDS,
            clock=self.clock,
            random=lambda: 1.0,
            call_later=lambda *_: SimpleNamespace(cancel=lambda: None),
        )
        self.guard = Guard(
            self.circuits,
            retries,
            operations_of=lambda _: self.servers,
            storage=self.servers,
            answer_seconds=ANSWER_SECONDS,
            clock=self.clock,
            sleep=self.sleep,
            random=lambda: 1.0,
        )
        journal = SimpleNamespace(
            tail=self.servers.tail, read=self.servers.read, ends=self.servers.ends_of
        )
        self.journal = GuardedJournal(journal, self.circuits)
        for name in (OWN, OTHER):
            self.breaker(name).hear(SERVER, available=True, detail="")

    async def sleep(self, seconds):
        self.slept.append(round(seconds, 6))
        self.clock.now += seconds
        self.after_sleep()

    def breaker(self, name=OWN):
        return self.circuits.by_database[name]

    def open(self, name=OWN):
        self.circuits.open(name, by="test", seconds=None)

    def half_open(self, name=OWN):
        self.circuits.open(name, by="test", seconds=1)
        self.clock.now += 1

    @property
    def calls(self):
        return self.breaker().count_calls()

    @property
    def budget_left(self):
        budget = self.guard._budgets[OWN]
        count = 0
        while budget.take():
            count += 1
        return count


def operation(request_id="1", database=OWN):
    return Operation(database, False, "character", "c", request_id, "statement")


async def run_one(parts, *, seconds=5.0):
    (outcome,) = await parts.guard.run((operation(),), seconds)
    return outcome


READING = Reading(OWN, "character", "c", "statement", 10)


async def read_all(parts, seconds=5.0):
    return [page async for page in parts.guard.query(READING, seconds)]


async def look_up(parts, seconds=5.0):
    return await parts.guard.look_up(OWN, "1", correlation_id="c", seconds=seconds)


async def adopt(parts):
    return await parts.guard.adopt(Adoption(OWN, "c", 1, "sum", None), 5.0)
