"""A delivery between a real inbox and a database of the test's, which does as it is told."""

import asyncio
from contextlib import asynccontextmanager
from copy import copy
from types import SimpleNamespace

from hub.core.delivery.delivery import Delivery
from hub.core.delivery.dispatch import DeliveryLimits
from hub.core.delivery.entries import Selection
from hub.core.ports import Recorded
from hub.core.routing.routes import Routes
from messagehub.errors import HubError, PredecessorMissing, Recording, RequestIdReused
from messagehub.v1.statement_pb2 import ResultSet
from tests.unit.hub.delivery.inbox_parts import OWN, ROOMY, open_inbox, submit
from tests.unit.hub.fake_storage import until

SERVICES = {"character": "character_db", "auth": "auth_db"}
LIMITS = DeliveryLimits(
    attempt_seconds=30.0, setbacks_max=3, retry_seconds_min=1.0, retry_seconds_max=8.0
)


class Naps:
    """Takes the place of sleeping: each nap is over at once, unless it is held."""

    def __init__(self):
        self.seconds = []
        self.held = asyncio.Event()
        self.held.set()

    async def __call__(self, seconds):
        self.seconds.append(seconds)
        await asyncio.sleep(0)
        await self.held.wait()


class Database:
    """Executes each request id once and remembers it, unless the test says otherwise.

    `answers` holds, by query, what the next attempts get instead: an error, or a function. An
    operation whose predecessor has no outcome is refused, as a storage server does.
    """

    def __init__(self, clock):
        self.answers = {}
        self.sent = []
        self.executed = []
        self.records = {}
        self.questions = []
        self.reach = lambda _database, _time_us: True
        self.batches = []
        self.clock = clock
        self.silent = None
        self.follows = True

    async def deliver(self, operations, seconds):
        self.batches.append([operation.request_id for operation in operations])
        self.sent += operations
        await asyncio.sleep(0)
        outcomes = []
        for operation in operations:
            try:
                outcomes.append(await self.answer(operation))
            except HubError as error:
                outcomes.append(error)
        return outcomes

    async def answer(self, operation):
        if operation.refusal is not None:
            return self.bar(operation)
        new = operation.request_id not in self.records
        missing = operation.follows and operation.follows not in self.records
        if self.follows and new and missing:
            raise PredecessorMissing("the one before it has no outcome")
        query = getattr(operation.content, "query", operation.content)
        script = self.answers.get(query) if isinstance(query, str) else None
        if script:
            told = script.pop(0)
            if callable(told):
                told = await told(operation)
            if isinstance(told, Exception):
                raise told
        return self.execute(operation)

    def execute(self, operation):
        """Does it, once, and gives the outcome."""
        if operation.request_id not in self.records:
            self.executed.append(getattr(operation.content, "query", operation.content))
            sequence = len(self.executed)
            result = ResultSet(rows_affected=sequence)
            self.records[operation.request_id] = Recorded(
                operation.source_service, operation.correlation_id, 5, sequence, result, None
            )
        known = self.records[operation.request_id]
        if known.error is not None:
            raise known.error
        return SimpleNamespace(result=known.result, sequence=known.sequence)

    def refuse(self, operation, error):
        """Fails for good, and remembers that."""
        error.recording = Recording(99, "", False)
        self.records[operation.request_id] = Recorded(
            operation.source_service, operation.correlation_id, 5, 99, None, error
        )
        return error

    def bar(self, operation):
        """Records the refusal, unless something is recorded; gives what is."""
        if self.silent is not None:
            raise self.silent
        known = self.records.get(operation.request_id)
        if known is None:
            raise self.refuse(operation, copy(operation.refusal))
        if known.source_service != operation.source_service:
            raise RequestIdReused("other content")
        return self.execute(operation)

    async def reaches(self, database, time_us):
        self.questions.append((database, time_us))
        return self.reach(database, time_us)


class Scene:
    """An inbox, its delivery, and the database behind it."""

    def __init__(self, inbox, store, clock, woken, database, naps, delivery):
        self.inbox = inbox
        self.woken = woken
        self.store = store
        self.clock = clock
        self.database = database
        self.naps = naps
        self.delivery = delivery

    async def submit(self, *queries, queue=OWN):
        """Submits operations and gives their request ids."""
        return [
            (await submit(self.inbox, query, queue=queue)).entry.request_id for query in queries
        ]

    async def entry(self, request_id, owner="character"):
        return await self.store.find(owner, request_id)

    async def states(self, owner="character"):
        """The states of all operations, in the order of acceptance."""
        entries, _ = await self.store.page(
            Selection(owner, "", (), None), operations_max=1000, bytes_max=1_000_000
        )
        return [entry.state.name for entry in reversed(entries)]

    def start(self):
        """Begins to deliver what is there and what comes."""
        self.inbox._wake = self.delivery.wake
        for queue in self.woken:
            self.delivery.wake(queue)

    async def settled(self, owner="character"):
        """Returns once nothing of an owner waits any more."""
        while {"QUEUED", "RUNNING"} & set(await self.states(owner)):  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.001)

    async def become(self, *states):
        """Returns once the service's operations have these states."""
        while await self.states() != list(states):  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.001)

    async def empty(self):
        """Returns once nothing waits, not even the hub's own."""
        while await self.store.waiting():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.001)

    async def waits(self, condition):
        """Returns once a condition holds."""
        await until(condition)


@asynccontextmanager
async def scene(
    directory, *, limits=LIMITS, inbox_limits=ROOMY, services=None, grants=None, database=None
):
    """A delivery that has begun; ends it without grace."""
    async with open_inbox(directory, inbox_limits) as (inbox, store, clock, woken):
        naps = Naps()
        database = database or Database(SimpleNamespace(now=0.0))
        delivery = Delivery(
            inbox,
            limits,
            destination=database,
            reach=database,
            routes=Routes(services or SERVICES, grants),
            clock=lambda: database.clock.now,
            sleep=naps,
            random=lambda: 1.0,
        )
        one = Scene(inbox, store, clock, woken, database, naps, delivery)
        try:
            yield one
        finally:
            naps.held.set()
            await delivery.stop(0.0)
