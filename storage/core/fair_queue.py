"""A bounded queue that shares time among its callers.

Within one caller the order is kept. Across callers the one that has had the least time comes next,
in turn where they are equal (start-time fair queueing; Goyal, Vin and Cheng, 1996). An operation
costs a quantum when it is taken, and what it took beyond that when it is done, so quick
operations are simply served in turn. Who was away begins where the others are: time that nobody
waited for cannot be saved up. Bounds are on operations and bytes, of the queue and of each caller.
Safe to use from several threads.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from messagehub.errors import HubError, MessageTooLarge, QueueFull
from storage.core.operation import Operation

MICROSECONDS: Final = 1_000_000
# About what a point read or a small write costs; what is quicker is not told apart.
QUANTUM_US: Final = 100
# So far behind the others a caller may fall, however long its operation took: a bound on how long
# it then waits while they keep the database busy.
DEBT_US_MAX: Final = MICROSECONDS
REMEMBERED_CALLERS: Final = 256


@dataclass(slots=True, frozen=True)
class QueueLimits:
    """How much may wait."""

    operations_max: int
    bytes_max: int
    caller_operations_max: int
    caller_bytes_max: int
    retry_after_seconds: float


class _Caller:
    __slots__ = ("size_bytes", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Operation] = deque()
        self.size_bytes = 0


class FairQueue:
    """Operations that wait for one database."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._callers: OrderedDict[str, _Caller] = OrderedDict()
        self._operations = 0
        self._size_bytes = 0
        # The microseconds that each caller has had, and where those begin who come now.
        self._had: dict[str, int] = {}
        self._now = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return self._operations

    def put(self, operation: Operation) -> None:
        """Appends an operation, or raises `QueueFull` and leaves the queue as it was.

        Raises `MessageTooLarge` if the operation would not fit into an empty queue either.
        """
        with self._lock:
            caller = self._callers.get(operation.source_service) or _Caller()
            self._check(operation, caller)
            self._admit(operation.source_service, caller)
            caller.waiting.append(operation)
            self._count(caller, operation, 1)

    def take(self, may: Callable[[str], bool] | None = None) -> Operation | None:
        """Gives the next operation of the callers that `may` be served, or None."""
        with self._lock:
            return self._take(may)

    def offers(self, may: Callable[[str], bool]) -> bool:
        """True if an operation waits of a caller that `may` be served."""
        with self._lock:
            return any(map(may, self._callers))

    def charge(self, service: str, seconds: float) -> None:
        """An operation of a caller took so long."""
        beyond = int(seconds * MICROSECONDS) - QUANTUM_US
        if beyond <= 0:
            return
        with self._lock:
            had = max(self._had.get(service, self._now), self._now)
            self._had[service] = min(had + beyond, self._now + DEBT_US_MAX)
            if len(self._had) > REMEMBERED_CALLERS + len(self._callers):
                self._had = {name: t for name, t in self._had.items() if t > self._now}

    def take_group(self, operations_max: int) -> list[Operation]:
        """Gives the next operations, at most so many."""
        group: list[Operation] = []
        with self._lock:
            while len(group) < operations_max and (operation := self._take()) is not None:
                group.append(operation)
        return group

    def put_back(self, group: list[Operation]) -> None:
        """Puts operations that were taken but not begun before everything else, in their order."""
        with self._lock:
            for operation in reversed(group):
                service = operation.source_service
                caller = self._callers.setdefault(service, _Caller())
                caller.waiting.appendleft(operation)
                self._callers.move_to_end(service, last=False)
                self._had[service] = self._had.get(service, self._now) - QUANTUM_US
                self._count(caller, operation, 1)

    def take_overdue(self, now: float) -> list[tuple[Operation, HubError]]:
        """Takes those out that must not run any more at `now`, with the reason for each."""
        overdue: list[tuple[Operation, HubError]] = []
        with self._lock:
            for name, caller in list(self._callers.items()):
                for operation in list(caller.waiting):
                    reason = operation.overdue(now)
                    if reason is not None:
                        caller.waiting.remove(operation)
                        self._count(caller, operation, -1)
                        overdue.append((operation, reason))
                if not caller.waiting:
                    del self._callers[name]
        return overdue

    def take_all(self) -> list[Operation]:
        """Empties the queue."""
        return self.take_group(self._operations)

    def _admit(self, service: str, caller: _Caller) -> None:
        if service not in self._callers:
            self._callers[service] = caller
            self._had[service] = max(self._had.get(service, self._now), self._now)

    def _take(self, may: Callable[[str], bool] | None = None) -> Operation | None:
        served = [name for name in self._callers if may is None or may(name)]
        if not served:
            return None
        name = served[0] if len(served) == 1 else min(served, key=self._had.__getitem__)
        caller = self._callers.pop(name)
        operation = caller.waiting.popleft()
        self._count(caller, operation, -1)
        had = self._had[name]
        self._now = max(self._now, had)
        self._had[name] = had + QUANTUM_US
        if caller.waiting:
            self._callers[name] = caller
        return operation

    def _count(self, caller: _Caller, operation: Operation, sign: int) -> None:
        self._operations += sign
        self._size_bytes += sign * operation.size_bytes
        caller.size_bytes += sign * operation.size_bytes

    def _check(self, operation: Operation, caller: _Caller) -> None:
        limits = self._limits
        most = min(limits.bytes_max, limits.caller_bytes_max)
        if operation.size_bytes > most:
            raise MessageTooLarge(
                f"the operation has {operation.size_bytes} bytes, but only {most} may wait "
                "(queue_bytes_max, caller_bytes_max): send less in one operation",
                metadata={"limit_bytes": str(most)},
            )
        size_bytes = operation.size_bytes
        operations, caller_operations = self._operations + 1, len(caller.waiting) + 1
        total, caller_total = self._size_bytes + size_bytes, caller.size_bytes + size_bytes
        for what, held, limit, name in (
            ("operations of this database", operations, limits.operations_max, "queue_operations"),
            ("bytes of this database", total, limits.bytes_max, "queue_bytes"),
            (
                "operations of this service",
                caller_operations,
                limits.caller_operations_max,
                "caller_operations",
            ),
            ("bytes of this service", caller_total, limits.caller_bytes_max, "caller_bytes"),
        ):
            if held > limit:
                raise QueueFull(
                    f"too many {what} are waiting (limit {limit}, {name}_max): send fewer at a "
                    "time, or try again later",
                    retry_after=limits.retry_after_seconds,
                    metadata={"limit": str(limit)},
                )
