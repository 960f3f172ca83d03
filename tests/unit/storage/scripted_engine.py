"""An engine without a disk, whose every step waits until the test lets it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

from messagehub.errors import CursorExpired, HubError
from messagehub.v1.event_pb2 import Event
from messagehub.v1.statement_pb2 import ResultSet, Statement
from storage.core.engine import Access, Recorded, Trimmed
from storage.core.operation import Applied, Operation, Outcome, Position
from storage.core.subscriptions import Standing


class Gate:
    """Open unless closed; `passed` counts who went through."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._event.set()
        self.reached = asyncio.Event()

    def shut(self) -> None:
        self._event.clear()
        self.reached.clear()

    def open(self) -> None:
        self._event.set()

    async def __call__(self) -> None:
        self.reached.set()
        await self._event.wait()


class Disk:
    """What outlives the engines of one database, and how the next steps go."""

    def __init__(self) -> None:
        self.epoch = "e1"
        self.events: list[Event] = []
        self.forgotten = 0
        self.calls: list[str] = []
        self.groups: list[list[Operation]] = []
        self.read: list[Operation] = []
        self.opening = Gate()
        self.applying = Gate()
        self.reading = Gate()
        self.paging = Gate()
        self.closing = Gate()
        self.open_failures: list[Exception] = []
        self.apply_failures: list[Exception] = []
        self.trim_failures: list[Exception] = []
        self.cut_off: list[Standing] = []
        self.drain_failures: list[Exception] = []
        self.begun_max = 1_000_000

    def let_all_through(self) -> None:
        """Opens every gate."""
        for gate in (self.opening, self.applying, self.reading, self.paging, self.closing):
            gate.open()

    @property
    def sequence(self) -> int:
        return self.events[-1].sequence if self.events else self.forgotten

    def make(self) -> "ScriptedEngine":
        return ScriptedEngine(self)


class NoTransactions:
    """The side of transactions of an engine that has none under way."""

    is_open = False

    async def recover(self) -> None:
        return None

    async def look_up(self, transaction_id: str, request_id: str = "") -> None:
        return None


class ScriptedEngine:
    """Statements that begin with SELECT read; every write is an event of its own."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.is_open = False
        self.transactions: Any = NoTransactions()

    async def open(self) -> Position:
        self.disk.calls.append("open")
        await self.disk.opening()
        if self.disk.open_failures:
            raise self.disk.open_failures.pop(0)
        self.is_open = True
        return Position(self.disk.epoch, self.disk.sequence, self.disk.forgotten, "")

    async def close(self) -> None:
        self.disk.calls.append("close")
        await self.disk.closing()
        self.is_open = False

    def access(self, statement: Statement) -> Access:
        return Access.READ if statement.query.startswith("SELECT") else Access.WRITE

    async def apply(self, group: Sequence[Operation]) -> Applied:
        assert self.is_open, "a closed engine was used"
        await self.disk.applying()
        if self.disk.apply_failures:
            raise self.disk.apply_failures.pop(0)
        applied = Applied(sequence=self.disk.sequence)
        begun = list(group[: self.disk.begun_max])
        self.disk.groups.append(begun)
        for operation in begun:
            sequence = self.disk.sequence + 1
            event = Event(sequence=sequence, correlation_id=operation.correlation_id)
            self.disk.events.append(event)
            applied.events.append(event)
            outcome = Outcome(result=ResultSet(), sequence=sequence, event_id=f"e/{sequence}")
            applied.outcomes.append(outcome)
        applied.sequence = self.disk.sequence
        return applied

    async def drain(
        self,
        lane: int,
        take: Callable[[], Operation | None],
        deliver: Callable[[Operation, Outcome | None], None],
    ) -> None:
        assert self.is_open, "a closed engine was used"
        if self.disk.drain_failures:
            raise self.disk.drain_failures.pop(0)
        while (operation := take()) is not None:
            await self.disk.reading()
            self.disk.read.append(operation)
            now = asyncio.get_running_loop().time()
            deliver(operation, Outcome(result=ResultSet(), error=operation.overdue(now)))

    async def pages(self, operation: Operation, page_rows: int) -> AsyncGenerator[ResultSet, None]:
        while True:
            await self.disk.paging()
            if (overdue := operation.overdue(0.0)) is not None:
                raise overdue
            yield ResultSet()

    async def journal(self, after_sequence: int, limit: int) -> list[Event]:
        assert self.is_open, "a closed engine was used"
        self.disk.calls.append("journal")
        if after_sequence < self.disk.forgotten:
            raise CursorExpired("forgotten")
        return [event for event in self.disk.events if event.sequence > after_sequence][:limit]

    async def recorded(self, request_id: str) -> Recorded | None:
        return None

    async def trim(self, *, older_than_us: int, keep_rows: int, at_most: int) -> Trimmed:
        self.disk.calls.append("trim")
        if self.disk.trim_failures:
            raise self.disk.trim_failures.pop(0)
        rows = min(at_most, max(0, len(self.disk.events) - 1))
        if rows:
            self.disk.forgotten = self.disk.events[rows - 1].sequence
            del self.disk.events[:rows]
        return Trimmed(rows, self.disk.forgotten, self.disk.cut_off)

    async def subscriptions(self, source_service: str, name: str) -> list[Standing]:
        assert self.is_open, "a closed engine was used"
        return []

    async def adopt(self, file: Path) -> list[str]:
        self.disk.calls.append("adopt")
        self.disk.epoch += "'"
        self.disk.events.clear()
        self.disk.forgotten = 0
        return ["adopted"]


class Caller:
    """Makes operations and keeps what they were answered, in the order of the answers."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, str]] = []
        self.outcomes: dict[str, Outcome] = {}

    def operation(self, name: str, *, query: str = "INSERT", **more: Any) -> Operation:
        def deliver(outcome: Outcome) -> None:
            assert name not in self.outcomes, f"{name} was answered twice"
            self.outcomes[name] = outcome
            self.answers.append((name, outcome.error.reason if outcome.error else ""))

        return Operation(
            source_service=more.pop("service", "character"),
            correlation_id=name,
            request_id="",
            deadline=more.pop("deadline", 1e18),
            deliver=deliver,
            statement=Statement(query=query),
            **more,
        )

    def read(self, name: str, **more: Any) -> Operation:
        return self.operation(name, query="SELECT", **more)

    def error(self, name: str) -> HubError | None:
        return self.outcomes[name].error


async def settle(turns: int = 20) -> None:
    """Lets everything that is ready run."""
    for _ in range(turns):
        await asyncio.sleep(0)
