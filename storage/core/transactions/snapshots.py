"""The read-only parts of transactions: one pinned snapshot each, given back in time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from messagehub.errors import InvalidRequest, QueueFull
from messagehub.storage.v1.participant_service_pb2 import (
    ParticipantState,
    TransactionHeader,
    TransactionRecord,
)
from storage.core.transactions.engine_part import Advanced, Snapshot, Step, TransactionEngine
from storage.core.transactions.limits import TransactionLimits
from storage.core.transactions.part import Asked
from storage.core.transactions.refusals import not_found


class _Pinned:
    __slots__ = ("began_at", "header", "snapshot", "timer", "turn")

    def __init__(self, header: TransactionHeader, snapshot: Snapshot, began_at: float) -> None:
        self.header = header
        self.snapshot = snapshot
        self.began_at = began_at
        self.timer: asyncio.TimerHandle | None = None
        self.turn = asyncio.Lock()


class Snapshots:
    """The snapshots that transactions read from in one database. Everything runs on the loop."""

    def __init__(
        self, name: str, engine: TransactionEngine, epoch: str, limits: TransactionLimits
    ) -> None:
        self._name = name
        self._engine = engine
        self._epoch = epoch
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._pinned: dict[str, _Pinned] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._pinned)

    async def advance(self, asked: Asked) -> Advanced:
        """Pins a snapshot if the header says so, and reads from it."""
        if asked.step is not Step.STAY_OPEN or asked.events:
            raise InvalidRequest(
                "a read-only transaction has nothing to prepare, commit or publish",
                fields={"step": "must be STAY_OPEN"},
            )
        pinned = self._pinned.get(asked.transaction_id) or await self._pin(asked)
        async with pinned.turn:
            try:
                results = await pinned.snapshot.run(asked.operations, asked.control)
            finally:
                # Also after a failure: nobody may come to release it.
                self._arm(pinned)
        return Advanced(results, self._epoch, pinned.snapshot.sequence)

    @asynccontextmanager
    async def lend(self, transaction_id: str) -> AsyncIterator[Snapshot]:
        """Gives a snapshot away for as long as it takes; afterwards it is let go.

        Raises `TransactionNotFound` if it is not there (any more).
        """
        pinned = self._pinned.get(transaction_id)
        if pinned is None:
            raise not_found(transaction_id, self._name)
        try:
            async with pinned.turn:
                if pinned.timer is not None:
                    pinned.timer.cancel()
                yield pinned.snapshot
        finally:
            await self.release(transaction_id)

    def has(self, transaction_id: str) -> bool:
        """True if the transaction reads here."""
        return transaction_id in self._pinned

    def records(self) -> list[TransactionRecord]:
        """Those that read here."""
        return [
            TransactionRecord(
                header=one.header,
                state=ParticipantState.PARTICIPANT_STATE_OPEN,
                update_time_us=one.header.create_time_us,
                sequence=one.snapshot.sequence,
            )
            for one in self._pinned.values()
        ]

    async def release(self, transaction_id: str) -> None:
        """Lets a snapshot go; nothing happens if it is gone."""
        pinned = self._pinned.pop(transaction_id, None)
        if pinned is None:
            return
        if pinned.timer is not None:
            pinned.timer.cancel()
        pinned.snapshot.stop()
        async with pinned.turn:
            await pinned.snapshot.close()

    async def end(self) -> None:
        """Lets all of them go."""
        for transaction_id in list(self._pinned):
            await self.release(transaction_id)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _pin(self, asked: Asked) -> _Pinned:
        if asked.header is None:
            raise not_found(asked.transaction_id, self._name)
        mine = sum(
            one.header.source_service == asked.header.source_service
            for one in self._pinned.values()
        )
        if mine >= max(1, self._limits.snapshots_max // 2):
            raise QueueFull(
                f"{mine} snapshots of {self._name} are open for {asked.header.source_service}, "
                "half of all (snapshots_max): end one first",
                retry_after=1.0,
            )
        if len(self._pinned) >= self._limits.snapshots_max:
            raise QueueFull(
                f"{self._limits.snapshots_max} snapshots of {self._name} are open already: end "
                "one first",
                retry_after=1.0,
            )
        snapshot = await self._engine.pin()
        if asked.transaction_id in self._pinned:
            # Asked for twice at once, because an answer was lost: one is enough.
            await snapshot.close()
            return self._pinned[asked.transaction_id]
        pinned = _Pinned(asked.header, snapshot, self._loop.time())
        self._pinned[asked.transaction_id] = pinned
        return pinned

    def _arm(self, pinned: _Pinned) -> None:
        if pinned.timer is not None:
            pinned.timer.cancel()
        if pinned.header.transaction_id not in self._pinned:
            return
        when = self._limits.expiry(pinned.header, pinned.began_at, self._loop.time())
        pinned.timer = self._loop.call_at(when, self._expire, pinned.header.transaction_id)

    def _expire(self, transaction_id: str) -> None:
        task = self._loop.create_task(self.release(transaction_id))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
