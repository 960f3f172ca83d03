"""Databases that keep the private contract of participants, in memory.

What a real storage server keeps on disk survives `restart` here; everything else does not.
Statements are tuples: `("add", key, number)`, `("read", key)`, `("fail",)`, `("slow", seconds)`.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hub.core.transactions.transaction import (
    Advance,
    Advanced,
    Header,
    PartOperation,
    PartResult,
    PartState,
    Record,
    Resolution,
    Resolved,
    Step,
)
from messagehub.errors import (
    AccessDenied,
    ConstraintViolation,
    DatabaseUnavailable,
    HubError,
    RequestIdReused,
    TransactionConflict,
    TransactionExpired,
    TransactionNotFound,
)

IN_DOUBT_SECONDS = 1.0
ENDED = (PartState.COMMITTED, PartState.ROLLED_BACK)


@dataclass
class Part:
    header: Header
    snapshot: Counter[str]
    changes: list[tuple[str, int]] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    results: dict[int, PartResult] = field(default_factory=dict)
    by_request_id: dict[str, PartResult] = field(default_factory=dict)
    prepared: bool = False
    sequence: int = 0
    since: float = 0.0
    used_at: float = 0.0
    recovered: bool = False

    def value(self, key: str) -> int:
        return self.snapshot[key] + sum(number for name, number in self.changes if name == key)


class DatabaseModel:
    """One database of a storage server; `clock` gives seconds."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self.clock = clock
        self.epoch = f"{name}-1"
        # On disk.
        self.values: Counter[str] = Counter()
        self.journal: list[tuple[str, Any]] = []
        self.records: dict[str, Record] = {}
        self.by_request_id: dict[str, tuple[bytes, Record]] = {}
        self.prepared: dict[str, Part] = {}
        # In memory.
        self.open: dict[str, Part] = {}
        self.holders: dict[str, float] = {}
        self.lane: str | None = None
        self.forgetful = False
        self._life = 0

    # What the hub is told of beside its calls.

    @property
    def in_doubt(self) -> Record | None:
        for part in self.prepared.values():
            if part.recovered or self.clock() - part.since >= IN_DOUBT_SECONDS:
                return Record(part.header, PartState.PREPARED, 0, part.sequence)
        return None

    def restart(self) -> None:
        """Dies and comes back with what is on disk; whatever was under way is gone."""
        self._life += 1
        self.open.clear()
        self.holders.clear()
        self.lane = None
        for name, part in self.prepared.items():
            part.recovered = True
            self.lane = name

    # The contract.

    async def advance(self, advance: Advance) -> Advanced:
        life = self._life
        name = advance.transaction_id
        record = self.records.get(name)
        if record is not None and record.state is PartState.COMMITTED:
            results = tuple(one for one in record.results if one.database == self.name)
            return Advanced(results, self.epoch, record.sequence, record=record)
        if record is not None:
            raise TransactionExpired("it was rolled back") from record.error
        part = self.prepared.get(name)
        if part is not None:
            if advance.step is not Step.PREPARE:
                raise TransactionConflict("it is prepared")
            return self._answer(part)
        part = await self._begun(advance, life)
        return await self._step(part, advance, life)

    async def _begun(self, advance: Advance, life: int) -> Part:
        name, header = advance.transaction_id, advance.header
        part = self.open.get(name)
        if part is None:
            if header is None:
                raise TransactionNotFound("there is no such part")
            if not header.read_only:
                await self._wait(lambda: self.lane in (None, name), advance.wait_seconds, life)
                if name in self.records:
                    raise TransactionExpired("it was rolled back meanwhile")
                if name in self.open or name in self.prepared:
                    return self.open.get(name) or self.prepared[name]
                self.lane = name
            part = Part(header, Counter(self.values), since=self.clock())
            part.sequence = len(self.journal)
            self.open[name] = part
        part.used_at = self.clock()
        return part

    async def _step(self, part: Part, advance: Advance, life: int) -> Advanced:
        name = advance.transaction_id
        decision = advance.decision
        if decision is not None and decision.request_id in self.by_request_id:
            fingerprint, record = self.by_request_id[decision.request_id]
            self._drop(name)
            if fingerprint != decision.fingerprint:
                raise RequestIdReused("other content")
            self._remember(Record(part.header, PartState.ROLLED_BACK))
            return Advanced((), self.epoch, 0, replayed=True, record=record)
        results = await self._run(part, advance, life)
        if advance.step is Step.STAY_OPEN:
            part.used_at = self.clock()
            return Advanced(tuple(results), self.epoch, len(self.journal))
        part.events += advance.work.events
        if advance.step is Step.PREPARE:
            if not part.prepared:
                await self._hold_prepare(part, advance, life)
            return self._answer(part)
        return self._decide(part, advance)

    async def _run(self, part: Part, advance: Advance, life: int) -> list[PartResult]:
        results = []
        for operation in advance.work.operations:
            before = len(part.changes)
            try:
                result = await self._execute(part, operation, life)
            except HubError as failure:
                failure.metadata["operation"] = str(operation.place)
                if advance.step is Step.STAY_OPEN:
                    del part.changes[before:]
                elif self._life == life:
                    self._drop(part.header.transaction_id)
                raise
            results.append(result)
        return results

    async def _execute(self, part: Part, operation: PartOperation, life: int) -> PartResult:
        if operation.request_id and operation.request_id in part.by_request_id:
            return part.by_request_id[operation.request_id]
        kind, *arguments = operation.statement
        given: Any = None
        if kind == "slow":
            await asyncio.sleep(arguments[0])
            self._check_alive(part, life)
        elif kind == "fail":
            raise ConstraintViolation("it always fails")
        elif kind == "read":
            given = part.value(arguments[0])
        elif part.header.read_only or operation.read_only:
            raise AccessDenied("only reading is granted")
        else:
            part.changes.append((arguments[0], arguments[1]))
        result = PartResult(operation.place, self.name, 0, given)
        part.results[operation.place] = result
        if operation.request_id:
            part.by_request_id[operation.request_id] = result
        return result

    async def _hold_prepare(self, part: Part, advance: Advance, life: int) -> None:
        name = part.header.transaction_id
        try:
            await self._wait(lambda: not self._held, advance.wait_seconds, life)
        except TransactionConflict:
            self._drop(name)
            raise
        self._check_alive(part, life)
        part.prepared = True
        part.since = self.clock()
        part.sequence = len(self.journal) + 1
        self.prepared[name] = self.open.pop(name)

    def _decide(self, part: Part, advance: Advance) -> Advanced:
        decision = advance.decision
        assert decision is not None, "a commit without a decision"
        assert {one.database for one in decision.participants} == set(part.header.others)
        sequence = self._apply(part)
        own = tuple(one._replace(sequence=sequence) for one in part.results.values())
        results = tuple(sorted((*decision.results, *own), key=lambda one: one.place))
        record = Record(
            part.header,
            PartState.COMMITTED,
            sequence=sequence,
            participants=decision.participants,
            results=results,
        )
        self._remember(record)
        if decision.request_id:
            self.by_request_id[decision.request_id] = (decision.fingerprint, record)
        self._drop(part.header.transaction_id)
        return Advanced(own, self.epoch, sequence, record=record)

    async def resolve(self, resolution: Resolution) -> Resolved:
        name = resolution.header.transaction_id
        known = self.records.get(name)
        if resolution.commit:
            part = self.prepared.get(name)
            if part is not None:
                sequence = self._apply(part)
                assert sequence == part.sequence, "another write came between"
                known = Record(part.header, PartState.COMMITTED, sequence=sequence)
                self._remember(known._replace(forced=resolution.forced))
                self._drop(name)
            elif known is None or known.state is not PartState.COMMITTED:
                raise TransactionNotFound("there is nothing to commit")
            return Resolved(self.records[name])
        if known is not None and known.state is PartState.COMMITTED:
            return Resolved(known)
        if self.forgetful and name not in self.open and name not in self.prepared:
            raise TransactionNotFound("the journal does not reach back so far")
        return self._roll_back(resolution)

    def _roll_back(self, resolution: Resolution) -> Resolved:
        header = resolution.header
        self._drop(header.transaction_id)
        tombstone = Record(
            header, PartState.ROLLED_BACK, error=resolution.error, forced=resolution.forced
        )
        if header.read_only:
            return Resolved(tombstone)
        if header.transaction_id not in self.records:
            self._remember(tombstone)
        tombstone = self.records[header.transaction_id]
        if not resolution.request_id:
            return Resolved(tombstone)
        if resolution.request_id in self.by_request_id:
            fingerprint, record = self.by_request_id[resolution.request_id]
            if fingerprint != resolution.fingerprint:
                raise RequestIdReused("other content")
            return Resolved(tombstone, record)
        self.by_request_id[resolution.request_id] = (resolution.fingerprint, tombstone)
        return Resolved(tombstone)

    def look_up(self, name: str, request_id: str = "") -> Record | None:
        if request_id:
            recorded = self.by_request_id.get(request_id)
            return recorded[1] if recorded else None
        if name in self.records:
            return self.records[name]
        return next((one for one in self.list() if one.header.transaction_id == name), None)

    def list(self) -> list[Record]:
        return [
            Record(
                part.header,
                PartState.PREPARED if part.prepared else PartState.OPEN,
                sequence=part.sequence,
            )
            for part in (*self.open.values(), *self.prepared.values())
        ]

    async def hold_commits(self, holder: str, wait_seconds: float, lease_seconds: float) -> None:
        life = self._life
        self.holders[holder] = self.clock() + wait_seconds + lease_seconds
        try:
            await self._wait(lambda: not self.prepared, wait_seconds, life)
        except HubError:
            self.holders.pop(holder, None)
            raise
        self.holders[holder] = self.clock() + lease_seconds

    def release_commits(self, holder: str) -> bool:
        return self.holders.pop(holder, 0.0) > self.clock()

    def expire(self) -> None:
        """Rolls back open parts that are over their limits."""
        now = self.clock()
        for name, part in list(self.open.items()):
            header = part.header
            idle = now - part.used_at >= header.idle_seconds
            if idle or now - part.since >= header.seconds:
                self._drop(name)
                if not header.read_only:
                    self._remember(
                        Record(header, PartState.ROLLED_BACK, error=TransactionExpired("too late"))
                    )

    @property
    def _held(self) -> bool:
        return any(until > self.clock() for until in self.holders.values())

    async def _wait(self, condition: Callable[[], bool], seconds: float, life: int) -> None:
        last = self.clock() + seconds
        while not condition():
            if self.clock() >= last:
                raise TransactionConflict(f"{self.name} was not free in time")
            await asyncio.sleep(0.01)
            if self._life != life:
                raise DatabaseUnavailable("it was restarted")

    def _check_alive(self, part: Part, life: int) -> None:
        if self._life != life:
            raise DatabaseUnavailable("it was restarted")
        if self.open.get(part.header.transaction_id) is not part:
            raise TransactionExpired("it was rolled back meanwhile")

    def _answer(self, part: Part) -> Advanced:
        return Advanced(tuple(part.results.values()), self.epoch, part.sequence)

    def _apply(self, part: Part) -> int:
        name = part.header.transaction_id
        assert self.lane == name, f"{name} commits without holding {self.name}"
        for key, number in part.changes:
            self.values[key] += number
        self.journal.append((name, tuple(part.events)))
        return len(self.journal)

    def _remember(self, record: Record) -> None:
        name = record.header.transaction_id
        known = self.records.get(name)
        assert known is None or known.state is record.state, f"two decisions about {name}"
        self.records[name] = record

    def _drop(self, name: str) -> None:
        self.open.pop(name, None)
        self.prepared.pop(name, None)
        if self.lane == name:
            self.lane = None
