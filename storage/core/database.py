"""One database: opened on first use, closed when idle, failed or fenced when it must be.

    closed ──submit──▶ opening ──▶ open ──idle──▶ closed
                          │          │
                          ▼          ▼ the engine is lost
                        failed     fenced (until the process restarts)

`failed` tries again with the next operation, at most once in `reopen_seconds`. Operations that
arrive while the database is opening wait for it, in order.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from messagehub.errors import (
    AccessDenied,
    Cancelled,
    DatabaseCorrupt,
    DatabaseUnavailable,
    HubError,
    InternalError,
    ShuttingDown,
    TransactionConflict,
)
from messagehub.storage.v1.participant_service_pb2 import TransactionRecord
from messagehub.storage.v1.storage_service_pb2 import DescribeSchemaResponse
from messagehub.v1.event_pb2 import Event
from messagehub.v1.statement_pb2 import ResultSet
from storage.core.engine import Access, Engine, EngineLost, Recorded
from storage.core.extent import Extent, Place
from storage.core.fair_queue import FairQueue, QueueLimits
from storage.core.following import Following, FollowLimits
from storage.core.operation import Applied, Operation, Position, ask
from storage.core.query_streams import QueryStreams
from storage.core.read_lanes import ReadLanes, ReadLimits
from storage.core.subscriptions import Change, Standing, Subscription
from storage.core.tail import Tail
from storage.core.transactions.endings import Endings
from storage.core.transactions.engine_part import Inspected
from storage.core.transactions.limits import TransactionLimits
from storage.core.transactions.participant import Participant
from storage.core.write_lane import WriteLane

NANOSECONDS_PER_MICROSECOND: Final = 1000
# How long upkeep waits for the write lane before it lets it be for this time.
TRIM_WAIT_SECONDS: Final = 0.1
# Who holds commits while a database is closed to be replaced.
STANDSTILL: Final = "standstill"

Followed = AsyncGenerator[tuple[Sequence[Event], Position], None]

_log = logging.getLogger(__name__)


class State(Enum):
    """Where a database stands."""

    CLOSED = "closed"
    OPENING = "opening"
    OPEN = "open"
    FAILED = "failed"
    FENCED = "fenced"
    ENDED = "ended"


@dataclass(slots=True, frozen=True)
class DatabaseLimits:
    """The bounds of one database; see `StorageConfig` for units and defaults."""

    queue: QueueLimits
    reads: ReadLimits
    group_operations_max: int
    queries_max: int
    tail_bytes_max: int
    follow: FollowLimits
    reopen_seconds: float
    transactions: TransactionLimits


class Database:
    """Routes operations to the lanes of one engine. Everything runs on the loop."""

    def __init__(
        self,
        name: str,
        make_engine: Callable[[], Engine],
        limits: DatabaseLimits,
        changed: Callable[["Database"], None],
        reached: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.state = State.CLOSED
        self.failure: HubError | None = None
        self._make_engine = make_engine
        self._limits = limits
        self._changed = changed
        self._reached = reached
        self._loop = asyncio.get_running_loop()
        self._turning = asyncio.Lock()
        self._arrivals = FairQueue(limits.queue)
        self._opening: asyncio.Task[None] | None = None
        self._retry_at = self._loop.time()
        self._used_at = self._loop.time()
        self._uses = 0
        self._queries = QueryStreams(limits.queries_max)
        self._position = Position("", 0, 0, "")

    @property
    def sequence(self) -> int:
        """The newest position that is known."""
        return self._tail.sequence if self.state is State.OPEN else self._position.sequence

    @property
    def epoch(self) -> str:
        """The life of its journal; empty as long as it was never open."""
        return self._position.epoch

    @property
    def schema_version(self) -> str:
        """The version of its schema; empty before the first update, or as long as unknown."""
        return self._position.schema_version

    @property
    def detail(self) -> str:
        """Why the database cannot be used; empty as long as nothing is known against it."""
        return "" if self.failure is None else self.failure.message

    def idle_since(self) -> float | None:
        """When an open database was used last; None while it is in use or not open."""
        busy = self._uses or self.state is not State.OPEN
        if busy or not self._writes.idle or not self._reads.idle or not self._participant.idle:
            return None
        return self._used_at

    def submit(self, operation: Operation) -> None:
        """Takes an operation, whose `deliver` is called later, or raises why not."""
        self._used_at = self._loop.time()
        if self.state is not State.OPEN:
            self._check_openable()
            self._arrivals.put(operation)
            self._begin_opening()
            return
        if operation.statement is None or operation.submitted:
            access = Access.WRITE
        else:
            access = self._engine.access(operation.statement)
        if access is Access.WRITE:
            self._submit_write(operation)
        else:
            self._reads.submit(operation)

    def _submit_write(self, operation: Operation) -> None:
        if operation.read_only:
            raise AccessDenied(
                f"{operation.source_service} may only read {self.name}: "
                "grant it to write in the configuration of the hub"
            )
        self._writes.submit(operation)

    async def open(self) -> None:
        """Opens the database now, or raises why it cannot be."""
        if self.state is State.OPEN:
            return
        self._check_openable()
        self._begin_opening()
        if self._opening is not None:
            await asyncio.shield(self._opening)
        if self.failure is not None:
            raise self.failure
        self._check_openable()

    async def pages(self, operation: Operation, page_rows: int) -> AsyncGenerator[ResultSet, None]:
        """Streams the rows of one reading statement."""
        await self.open()
        self._queries.begin(operation)
        try:
            with self._use():
                async with aclosing(self._engine.pages(operation, page_rows)) as pages:
                    async for page in pages:
                        yield page
        except Cancelled as cancelled:
            if self.state is State.OPEN:
                raise
            raise ShuttingDown(f"{self.name} was closed meanwhile", retry_after=1.0) from cancelled
        finally:
            self._queries.end(operation)

    async def position(self) -> Position:
        """Where the journal stands now."""
        await self.open()
        return replace(self._position, sequence=self._tail.sequence)

    async def follow(self, epoch: str, after: int) -> Followed:
        """Streams the events after a position, then new ones; empty lists are heartbeats.

        The position with them is the newest end of a commit up to there. Raises
        `CursorEpochChanged` or `CursorExpired` if `after` is not of this journal.
        """
        position = await self.position()
        extent = Extent(self.name, position.epoch, position.oldest_sequence, position.sequence)
        extent.check(Place(epoch or position.epoch, after))
        following = Following(self._tail, self._engine.journal, self._limits.follow)
        with self._use():
            yield [], replace(position, sequence=after)
            async with aclosing(following.parts(after)) as parts:
                async for events, sequence in parts:
                    yield events, replace(self._position, sequence=sequence)
        raise ShuttingDown("the database was closed: subscribe again", retry_after=1.0)

    async def change(
        self, change: Change, *, correlation_id: str, seconds: float
    ) -> Subscription | None:
        """Changes a named subscription and gives what is kept; on disk when this returns."""
        operation = Operation(
            source_service=change.source_service,
            correlation_id=correlation_id,
            request_id="",
            deadline=self._loop.time() + seconds,
            deliver=lambda _: None,
            subscription=change,
        )
        outcome = await ask(self.submit, operation)
        if outcome.error is not None:
            raise outcome.error
        return outcome.subscription

    async def subscriptions(self, source_service: str, name: str) -> list[Standing]:
        """Tells how the named subscriptions of a service stand, or the one with this name."""
        await self.open()
        return await self._engine.subscriptions(source_service, name)

    async def recorded(self, request_id: str) -> Recorded | None:
        """Gives what the journal has of a request id."""
        await self.open()
        return await self._engine.recorded(request_id)

    async def schema(self) -> DescribeSchemaResponse:
        """Tells the schema as it is, and how it came to be."""
        await self.open()
        with self._use():
            return await self._engine.schema()

    async def adopt(self, file: Path) -> list[str]:
        """Fills the database, which must be empty, with a copy of `file`; gives its tables."""
        await self.open()
        async with self._turning:
            if self.state is not State.OPEN:
                raise DatabaseUnavailable(f"{self.name} was closed meanwhile", retry_after=1.0)
            if not self._participant.idle:
                raise TransactionConflict(
                    f"a transaction uses {self.name}: adopt when it has ended", retry_after=1.0
                )
            await self._turn_off(
                State.CLOSED, DatabaseUnavailable(f"{self.name} is being adopted", retry_after=1.0)
            )
            engine = self._make_engine()
            try:
                await engine.open()
                return await engine.adopt(file)
            finally:
                await engine.close()

    async def inspect(self) -> list[Inspected]:
        """Tells whether the invariants of the live database hold; changes nothing."""
        await self.open()
        with self._use():
            snapshot = await self._engine.transactions.pin()
            try:
                found = await snapshot.inspect()
            finally:
                await snapshot.close()
        in_doubt = self.in_doubt
        problem = f"{in_doubt.header.transaction_id} waits for its home" if in_doubt else ""
        return [*found, Inspected("no transaction is in doubt", problem)]

    async def restored_by(self) -> str:
        """Names the restore that made the database; empty if none did, or it cannot be opened."""
        try:
            await self.open()
        except (DatabaseCorrupt, DatabaseUnavailable):
            return ""  # that may be why it is restored
        return await self._engine.restored_by()

    @asynccontextmanager
    async def standstill(self, seconds: float) -> AsyncIterator[None]:
        """Closes the database and keeps it closed within the block; who comes meanwhile waits.

        Raises `TransactionConflict` if a transaction stays prepared for so many seconds.
        """
        async with self._turning:
            if self.state in (State.FENCED, State.ENDED):
                raise self.failure or ShuttingDown("the storage server is stopping")
            if self.state is State.OPEN:
                await self._participant.hold_commits(
                    STANDSTILL, until=self._loop.time() + seconds, lease_seconds=0.0
                )
                await self._turn_off(
                    State.CLOSED,
                    DatabaseUnavailable(f"{self.name} is being restored", retry_after=1.0),
                )
            try:
                yield
            finally:
                self.state = State.CLOSED
                self._retry_at = self._loop.time()

    async def participant(self) -> Participant:
        """Gives the part that the database has in transactions; opens it first."""
        await self.open()
        self._used_at = self._loop.time()
        return self._participant

    @property
    def in_doubt(self) -> TransactionRecord | None:
        """The transaction that somebody should ask its home about."""
        return self._participant.in_doubt if self.state is State.OPEN else None

    async def trim(self, *, older_than_us: int, keep_rows: int, at_most: int) -> bool:
        """Forgets some old journal entries, if the database is open; True if there may be more."""
        if self.state is not State.OPEN:
            return False
        try:
            await self._writes.hold(self._loop.time() + TRIM_WAIT_SECONDS)
        except TransactionConflict:
            return False  # there will be another time
        try:
            trimmed = await self._engine.trim(
                older_than_us=older_than_us, keep_rows=keep_rows, at_most=at_most
            )
        except EngineLost as loss:
            self._writes.refuse(loss.error)
            self._lost(loss.error)
            raise loss.error from loss
        finally:
            self._writes.release()
        self._position = replace(self._position, oldest_sequence=trimmed.oldest_sequence)
        for lost in trimmed.cut_off:
            lost.log_cut_off()
        return trimmed.rows == at_most

    async def close(self) -> None:
        """Closes the database because nobody uses it; the next operation opens it again."""
        async with self._turning:
            if self.idle_since() is not None:  # nobody has come since it was found idle
                await self._turn_off(State.CLOSED, ShuttingDown(f"{self.name} is being closed"))

    async def end(self, seconds: float | None = None) -> None:
        """Finishes what is under way, refuses the rest, closes, and stays closed.

        Writes that are not done after so many seconds are interrupted, and leave nothing.
        """
        async with self._turning:
            reason = ShuttingDown("the storage server is stopping", retry_after=1.0)
            if self.state in (State.OPEN, State.FENCED):
                await self._turn_off(State.ENDED, reason, seconds)
            self.state = State.ENDED
            for operation in self._arrivals.take_all():
                operation.refuse(reason)

    def _check_openable(self) -> None:
        if self.state is State.ENDED:
            raise ShuttingDown("the storage server is stopping", retry_after=1.0)
        if self.state is State.FENCED or self._loop.time() < self._retry_at:
            raise self.failure or DatabaseUnavailable(f"{self.name} cannot be used")

    def _begin_opening(self) -> None:
        if self._opening is None:
            self._opening = self._loop.create_task(self._turn_on())
            self._opening.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening = None
        if not task.cancelled() and (defect := task.exception()) is not None:
            self._fail(InternalError(f"{self.name} could not be opened"))
            self._loop.call_exception_handler({"message": "open failed", "exception": defect})
        self._resubmit_arrivals()

    def _resubmit_arrivals(self) -> None:
        for operation in self._arrivals.take_all():
            try:
                self.submit(operation)
            except HubError as refusal:
                operation.refuse(refusal)

    async def _turn_on(self) -> None:
        async with self._turning:
            if self.state not in (State.CLOSED, State.FAILED):
                return
            self.state = State.OPENING
            try:
                engine = self._make_engine()
            except HubError as failure:
                self._fail(failure)
                return
            try:
                self._position = await engine.open()
            except HubError as failure:
                await engine.close()
                self._fail(failure)
                return
            except BaseException:
                await engine.close()
                raise
            self._engine = engine
            self._tail = Tail(self._limits.tail_bytes_max, self._position.sequence)
            self._writes = WriteLane(
                FairQueue(self._limits.queue),
                engine.apply,
                self._committed,
                self._lost,
                group_operations_max=self._limits.group_operations_max,
            )
            self._reads = ReadLanes(
                FairQueue(self._limits.queue),
                engine.drain,
                self._submit_write,
                self._limits.reads,
                self._loop.time,
            )
            self._participant = self._make_participant(engine)
            try:
                await self._participant.recover()
            except (EngineLost, HubError) as loss:
                error = loss.error if isinstance(loss, EngineLost) else loss
                await self._writes.end(error)
                await engine.close()
                # What may pass, such as a full disk, is tried again.
                tell = self._lost if isinstance(loss, EngineLost) else self._fail
                tell(error)
                return
            self.state = State.OPEN
            self._used_at = self._loop.time()
            # Before anybody who comes now, so that writes of one caller keep their order.
            self._resubmit_arrivals()
            self._tell(None)

    async def _turn_off(self, state: State, reason: HubError, seconds: float | None = None) -> None:
        self._position = replace(self._position, sequence=self._tail.sequence)
        self.state = state
        self._queries.interrupt()
        await self._participant.end(reason)
        await self._writes.end(reason, seconds)
        await self._reads.end(reason)
        self._tail.end()
        await self._engine.close()

    def _make_participant(self, engine: Engine) -> Participant:
        return Participant(
            self.name,
            engine.transactions,
            self._position.epoch,
            self._writes,
            Endings(self._writes.submit, engine.apply, self._committed, self._loop.time),
            self._limits.transactions,
            committed=self._committed,
            lost=self._lost_within,
            told=lambda: self._changed(self),
            wall_clock_us=lambda: time.time_ns() // NANOSECONDS_PER_MICROSECOND,
            reached=self._reached,
        )

    def _committed(self, applied: Applied) -> None:
        self._tail.append(applied.events, applied.sequence)
        if applied.schema_version is not None:
            self._position = replace(self._position, schema_version=applied.schema_version)
            self._changed(self)

    def _lost(self, failure: HubError) -> None:
        _log.error("fenced", extra={"database": self.name, "detail": failure.message})
        self.state = State.FENCED
        self._tail.end()
        self._tell(failure)

    def _lost_within(self, failure: HubError) -> None:
        """A transaction lost the engine; the write lane does not know yet."""
        self._writes.refuse(failure)
        self._lost(failure)

    def _fail(self, failure: HubError) -> None:
        _log.warning("cannot open", extra={"database": self.name, "detail": failure.message})
        self.state = State.FAILED
        self._retry_at = self._loop.time() + self._limits.reopen_seconds
        self._tell(failure)

    def _tell(self, failure: HubError | None) -> None:
        self.failure = failure
        self._changed(self)

    @contextmanager
    def _use(self) -> Iterator[None]:
        """Keeps the database from being closed as idle."""
        self._uses += 1
        try:
            yield
        finally:
            self._uses -= 1
            self._used_at = self._loop.time()
