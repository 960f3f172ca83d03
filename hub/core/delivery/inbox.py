"""The inbox: what the hub has accepted and not delivered yet, within bounds.

It refuses instead of forgetting: an operation is taken while there is room for it, fails visibly
when it is too old, and is kept for a while after it ended. The bounds on what waits are per
database, those of the hub's own events apart from the services'.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from hub.core.delivery.entries import (
    HUB,
    Ending,
    Entry,
    Kept,
    Queue,
    State,
    Store,
    Submission,
    Sweep,
    Written,
)
from messagehub.errors import (
    DeadlineExceeded,
    HubError,
    InternalError,
    OperationNotFound,
    QueueFull,
)
from messagehub.request_ids import new_request_id

MICROSECONDS: Final = 1_000_000
HUB_SOURCE: Final = "hub"
# What an operation takes beside its content: its ids, times and places in the indexes.
OVERHEAD_BYTES: Final = 512
# A sweep goes on in steps, so that it never holds up submissions for long.
SWEPT_AT_ONCE_MAX: Final = 500

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InboxLimits:
    """The bounds of the inbox; see `HubConfig` for defaults.

    `operations_max`, `bytes_max` and `age_seconds_max` bound what waits for one database, `kept_*`
    and `keep_seconds` what has ended. `claim_*` bound what is taken out at once for one queue.
    """

    operations_max: int
    bytes_max: int
    age_seconds_max: float
    keep_seconds: float
    kept_operations_max: int
    kept_bytes_max: int
    claim_operations_max: int
    claim_bytes_max: int
    sweep_seconds: float
    retry_seconds: float


class Backlog(NamedTuple):
    """What waits for one database; the age of the oldest is in seconds, 0 if there is none."""

    operations: int
    size: int
    oldest_seconds: float


EMPTY: Final = Backlog(0, 0, 0.0)


class Room:
    """How much waits for each database, and how much may."""

    def __init__(self, limits: InboxLimits) -> None:
        self._limits = limits
        self._operations: Counter[tuple[bool, str]] = Counter()
        self._bytes: Counter[tuple[bool, str]] = Counter()

    def refusal(self, queue: Queue, size: int) -> QueueFull | None:
        """Why there is no room for one more operation; None if there is."""
        key = _share(queue)
        for what, held, limit in (
            ("operations", self._operations[key] + 1, self._limits.operations_max),
            ("bytes", self._bytes[key] + size, self._limits.bytes_max),
        ):
            if held > limit:
                return QueueFull(
                    f"too many {what} wait for {queue.database} (the limit is {limit}): nothing "
                    "was accepted, submit again later",
                    retry_after=self._limits.retry_seconds,
                    metadata={"limit": str(limit), "database": queue.database},
                )
        return None

    def add(self, queue: Queue, operations: int, size: int) -> None:
        """Counts operations that are in the inbox, whether there is room or not."""
        self._operations[_share(queue)] += operations
        self._bytes[_share(queue)] += size

    def give_back(self, queue: Queue, size: int) -> None:
        """An operation does not wait any more."""
        self.add(queue, -1, -size)

    def used(self, database: str) -> Kept:
        """How much of the services' operations waits for a database."""
        key = (False, database)
        return Kept(self._operations[key], self._bytes[key])


class Inbox:
    """Everything that changes what is in the inbox, between `open` and `close`.

    `now_us` gives microseconds since 1970, `size_of` the bytes of a statement or an event.
    """

    def __init__(
        self,
        store: Store,
        limits: InboxLimits,
        *,
        now_us: Callable[[], int],
        size_of: Callable[[Any], int],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._store = store
        self._limits = limits
        self._now_us = now_us
        self._size_of = size_of
        self._sleep = sleep
        self._room = Room(limits)
        self._queues: set[Queue] = set()
        self._wake: Callable[[Queue], None] = lambda _: None
        self._changes: set[asyncio.Task[Any]] = set()
        # By position: the operations whose ending somebody waits for, as long as somebody does.
        self._endings: WeakValueDictionary[int, asyncio.Event] = WeakValueDictionary()
        self._sweeping: asyncio.Task[None] | None = None

    async def open(self, wake: Callable[[Queue], None]) -> None:
        """Counts what is there; `wake` is called now and whenever something waits in a queue."""
        self._wake = wake
        for waiting in await self._store.waiting():
            self._room.add(waiting.queue, waiting.operations, waiting.size)
            self._queues.add(waiting.queue)
            wake(waiting.queue)
        self._sweeping = asyncio.create_task(self._keep_sweeping(), name="inbox-sweep")

    async def close(self) -> None:
        """Lets the changes under way reach the disk."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
        if self._changes:
            await asyncio.wait(self._changes)

    async def submit(
        self,
        queue: Queue,
        content: Any,
        *,
        source_service: str,
        correlation_id: str,
        request_id: str,
    ) -> Written:
        """Accepts an operation; it is on disk when this returns.

        Raises `QueueFull` if there is no room, `RequestIdReused` if the owner used the request id
        for something else. A caller that goes away changes nothing: the operation is accepted.
        """
        size = self._size_of(content) + OVERHEAD_BYTES
        submission = Submission(queue, source_service, correlation_id, request_id, content, size)
        return await self._finish_anyway(self._accept(submission))

    def announce(
        self, database: str, event: Any, *, source: str = HUB_SOURCE, correlation_id: str = ""
    ) -> None:
        """See `hub.core.announcements.Announcements`."""

        async def submit() -> None:
            try:
                await self.submit(
                    Queue(HUB, database),
                    event,
                    source_service=source,
                    correlation_id=correlation_id,
                    request_id=new_request_id(),
                )
            except HubError as refusal:
                _log.warning(
                    "an event of the hub's own was lost",
                    extra={"database": database, "detail": refusal.message},
                )

        self._track(asyncio.create_task(submit()))

    async def cancel(self, owner: str, request_id: str) -> Entry:
        """Takes a QUEUED operation back: it will never be executed.

        Raises `OperationNotFound`, and `OperationNotCancellable` once it may have been sent.
        """
        return await self._finish_anyway(self._cancel(owner, request_id))

    async def claim(self, queue: Queue) -> Sequence[Entry]:
        """Gives the next operations of a queue; see `hub.core.delivery.entries.Deliveries`."""
        return await self._store.claim(
            queue,
            operations_max=self._limits.claim_operations_max,
            bytes_max=self._limits.claim_bytes_max,
            now_us=self._now_us(),
        )

    async def postpone(
        self, untried: Sequence[Entry], tried: Sequence[Entry] = (), *, setback: bool = False
    ) -> None:
        """Puts operations back that were not done; see `hub.core.delivery.entries.Deliveries`."""
        await self._store.postpone(untried, tried, setback=setback, now_us=self._now_us())

    async def finish(self, ended: Sequence[tuple[Entry, Ending]]) -> None:
        """Records how RUNNING operations ended."""
        announced = await self._store.finish(ended, now_us=self._now_us())
        for entry, _ in ended:
            self._room.give_back(entry.queue, entry.size)
            if (waited_for := self._endings.get(entry.position)) is not None:
                waited_for.set()
        self._admit(announced)

    async def ended(self, entry: Entry, seconds: float) -> Entry | None:
        """Gives an operation once its ending is recorded; None if that takes longer."""
        waited_for = self._endings.setdefault(entry.position, asyncio.Event())
        try:
            async with asyncio.timeout(seconds):
                while True:
                    known = await self._store.find(entry.queue.owner, entry.request_id)
                    if known is None or known.state not in (State.QUEUED, State.RUNNING):
                        return known
                    await waited_for.wait()
        except TimeoutError:
            return None

    def too_old(self, entry: Entry) -> DeadlineExceeded | None:
        """Why an operation must not be sent any more; None while it may."""
        if entry.create_time_us >= self._now_us() - self._age_us():
            return None
        return self._age_error()

    async def backlog(self, database: str) -> Backlog:
        """Tells what of the services' operations waits for a database."""
        used = self._room.used(database)
        if not used.operations:
            return EMPTY
        queues = [q for q in self._queues if q.database == database and q.owner != HUB]
        oldest_us = await self._store.oldest_us(queues)
        age_us = 0 if oldest_us is None else self._now_us() - oldest_us
        return Backlog(used.operations, used.size, max(0, age_us) / MICROSECONDS)

    async def sweep(self) -> None:
        """Fails what is too old, and forgets what ended long ago or is too much."""
        more = True
        while more:
            now_us = self._now_us()
            sweep = Sweep(
                queues=tuple(self._queues),
                expire_before_us=now_us - self._age_us(),
                error=self._age_error(),
                forget_before_us=now_us - int(self._limits.keep_seconds * MICROSECONDS),
                kept_max=Kept(self._limits.kept_operations_max, self._limits.kept_bytes_max),
                operations_max=SWEPT_AT_ONCE_MAX,
            )
            swept = await self._store.sweep(sweep, now_us=now_us)
            for entry in swept.expired:
                self._room.give_back(entry.queue, entry.size)
            self._admit(swept.announced)
            more = bool(swept.expired or swept.forgotten)

    async def _accept(self, submission: Submission) -> Written:
        queue, size = submission.queue, submission.size
        full = self._room.refusal(queue, size)
        if full is None:
            self._room.add(queue, 1, size)
        written: Written | None = None
        try:
            # Also without room: if it is known already, it needs none.
            written = await self._store.accept(submission, now_us=self._now_us(), room=full is None)
        finally:
            if full is None and (written is None or written.replayed):
                self._room.give_back(queue, size)
        if written is None:
            raise full or InternalError("the inbox had room and refused")
        if not written.replayed:
            self._queues.add(queue)
            self._wake(queue)
        return written

    async def _cancel(self, owner: str, request_id: str) -> Entry:
        written = await self._store.cancel(owner, request_id, now_us=self._now_us())
        if written is None:
            raise OperationNotFound(
                f"no submitted operation with the request id {request_id} is known: it was never "
                "accepted here, or it ended long ago"
            )
        if not written.replayed:
            self._room.give_back(written.entry.queue, written.entry.size)
        return written.entry

    async def _finish_anyway(self, change: Coroutine[Any, Any, Answer]) -> Answer:
        """Waits for a change that goes on when its caller goes away."""
        task = asyncio.create_task(change)
        self._track(task)
        return await asyncio.shield(task)

    def _track(self, change: asyncio.Task[Any]) -> None:
        self._changes.add(change)
        change.add_done_callback(self._forget)

    def _forget(self, change: asyncio.Task[Any]) -> None:
        self._changes.discard(change)
        if not change.cancelled():
            change.exception()  # its caller, if it still waits, gets it

    def _admit(self, announced: Sequence[Entry]) -> None:
        """Counts events that the store put in; each takes the place of an operation that ended."""
        for entry in announced:
            self._room.add(entry.queue, 1, entry.size)
            self._queues.add(entry.queue)
            self._wake(entry.queue)

    async def _keep_sweeping(self) -> None:
        while True:
            await self._sleep(self._limits.sweep_seconds)
            try:
                await self.sweep()
            except HubError as failure:
                _log.warning("the inbox cannot be swept", extra={"detail": failure.message})

    def _age_us(self) -> int:
        return int(self._limits.age_seconds_max * MICROSECONDS)

    def _age_error(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"the operation waited for its database for longer than "
            f"{self._limits.age_seconds_max:.0f} seconds, and was not executed"
        )


def _share(queue: Queue) -> tuple[bool, str]:
    return queue.owner == HUB, queue.database
