"""A bounded queue that serves its callers in turn.

Within one caller the order is kept. Across callers it is round robin, so a caller that floods the
queue delays others by at most one of its own operations each (deficit round robin with a quantum
of one operation; Shreedhar and Varghese, 1995). Bounds are on operations and bytes, of the queue
and of each caller. Safe to use from several threads.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass
from threading import Lock

from messagehub.errors import HubError, MessageTooLarge, QueueFull
from storage.core.operation import Operation


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
            self._callers.setdefault(operation.source_service, caller)
            caller.waiting.append(operation)
            self._count(caller, operation, 1)

    def take(self) -> Operation | None:
        """Gives the next operation, or None."""
        with self._lock:
            return self._take()

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
                caller = self._callers.setdefault(operation.source_service, _Caller())
                caller.waiting.appendleft(operation)
                self._callers.move_to_end(operation.source_service, last=False)
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

    def _take(self) -> Operation | None:
        if not self._callers:
            return None
        name, caller = self._callers.popitem(last=False)
        operation = caller.waiting.popleft()
        self._count(caller, operation, -1)
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
