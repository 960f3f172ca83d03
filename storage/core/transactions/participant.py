"""One database as a participant of transactions: the door to its parts.

At most one part that may write is there at a time, and it holds the write lane. What a hub asks is
carried out to its end even if the hub goes away meanwhile: a commit is never split from its
bookkeeping. `states.TRANSITIONS` says what may follow what.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from messagehub.errors import HubError, InternalError, TransactionExpired
from messagehub.storage.v1.participant_service_pb2 import TransactionRecord
from messagehub.storage.v1.schema_pb2 import SchemaOperation, SchemaReport
from storage.core.engine import EngineLost
from storage.core.operation import Applied, Operation, ask
from storage.core.transactions.advancing import Advancing
from storage.core.transactions.commit_gate import CommitGate
from storage.core.transactions.endings import Ended, Endings, ended
from storage.core.transactions.engine_part import Advanced, TransactionEngine, Whole
from storage.core.transactions.limits import TransactionLimits
from storage.core.transactions.part import Asked, Part, Resolution
from storage.core.transactions.parts import Parts
from storage.core.transactions.resolving import Resolving
from storage.core.transactions.snapshots import Snapshots
from storage.core.transactions.states import State
from storage.core.write_lane import WriteLane

Answered = TypeVar("Answered")

_log = logging.getLogger(__name__)


class Participant:
    """The parts of one open database. Everything runs on the loop.

    `committed` hears of every commit, `lost` of an engine that is lost, `told` when a part comes
    to be in doubt or is resolved. `wall_clock_us` gives microseconds since 1970 UTC; `reached` is
    called with the names of the steps.
    """

    def __init__(
        self,
        name: str,
        engine: TransactionEngine,
        epoch: str,
        lane: WriteLane,
        endings: Endings,
        limits: TransactionLimits,
        *,
        committed: Callable[[Applied], None],
        lost: Callable[[HubError], None],
        told: Callable[[], None],
        wall_clock_us: Callable[[], int],
        reached: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._lane = lane
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._rehearsals: set[Operation] = set()
        self._running: set[asyncio.Task[Any]] = set()
        self._ending: HubError | None = None
        self.gate = CommitGate(name, self._loop.time)
        self.snapshots = Snapshots(name, engine, epoch, limits)
        self._parts = Parts(
            name,
            lane,
            self.gate,
            limits,
            committed=committed,
            told=told,
            wall_clock_us=wall_clock_us,
            reached=reached,
        )
        self._parts.expire = self._expire
        self._resolving = Resolving(self._parts, engine, epoch, endings)
        self._advancing = Advancing(self._parts, engine, epoch, self._end_soon)

    @property
    def idle(self) -> bool:
        """True while no transaction needs this database."""
        return not (len(self._parts) or len(self.snapshots) or self._running)

    @property
    def in_doubt(self) -> TransactionRecord | None:
        """The transaction that somebody should ask its home about."""
        return self._parts.in_doubt

    async def recover(self) -> None:
        """Takes over what was prepared when the process died, before anybody may write."""
        recovered = await self._engine.recover()
        if recovered is None:
            return
        self._parts.reached("participant.recovered")
        await self._parts.take_over(recovered.header, recovered.advanced, recovered.since_us)

    async def advance(self, asked: Asked) -> Advanced:
        """Begins a part if it is not there and takes it on; raises the `HubError` that stops it."""
        if self._ending is not None:
            raise self._ending
        if self.snapshots.has(asked.transaction_id) or (asked.header and asked.header.read_only):
            return await self._asked_for(asked, self.snapshots.advance(asked))
        part = self._parts.get(asked.transaction_id)
        if part is None:
            if asked.header is None:
                return await self._advancing.after_the_end(asked)
            part = self._parts.add(asked.header)
        return await self._asked_for(asked, self._advancing.advance(part, asked))

    async def run_whole(self, whole: Whole, control: Operation) -> Advanced:
        """Runs a transaction that has no other participant, in the group commit of the lane."""
        control.transaction = whole
        outcome = await ask(self._lane.submit, control)
        if outcome.error is not None:
            raise outcome.error
        if outcome.advanced is None:
            raise InternalError("a transaction ended without an answer")
        return outcome.advanced

    async def resolve(self, resolution: Resolution) -> Ended:
        """Ends a part and tells how the transaction ended here in truth."""
        header = resolution.header
        if header.read_only or self.snapshots.has(header.transaction_id):
            await self._carry_out(self.snapshots.release(header.transaction_id))
            return ended(TransactionRecord(header=header))
        return await self._carry_out(self._resolving.resolve(resolution))

    async def rehearse(
        self, operations: Sequence[SchemaOperation], control: Operation, *, until: float
    ) -> list[SchemaReport]:
        """Runs changes of the schema for their reports, while nothing else is written.

        Waits for the lane until `until`; raises `TransactionConflict` then.
        """
        if self._ending is not None:
            raise self._ending
        self._rehearsals.add(control)
        try:
            return await self._carry_out(self._rehearse(operations, control, until))
        except asyncio.CancelledError:
            control.cancelled = True
            raise
        finally:
            self._rehearsals.discard(control)

    async def _rehearse(
        self, operations: Sequence[SchemaOperation], control: Operation, until: float
    ) -> list[SchemaReport]:
        await self._lane.hold(until)
        try:
            return await self._engine.rehearse(operations, control)
        finally:
            self._lane.release()

    def has(self, transaction_id: str) -> bool:
        """True if a part of the transaction is here."""
        return transaction_id in self._parts

    async def look_up(self, transaction_id: str, request_id: str) -> TransactionRecord | None:
        """Tells what is known of a transaction that lives or has ended."""
        part = self._parts.get(transaction_id)
        if part is not None and part.begun:
            return part.record()
        return await self._engine.look_up(transaction_id, request_id)

    async def hold_commits(self, holder: str, *, until: float, lease_seconds: float) -> None:
        """Holds commits back for at most so long; see `CommitGate.hold`."""
        most = self._parts.limits.hold_seconds_max
        await self.gate.hold(holder, until=until, lease_seconds=min(lease_seconds or most, most))

    async def list(self, *, ended: int) -> list[TransactionRecord]:
        """Tells which transactions are here, and at most so many that ended."""
        records = [part.record() for part in self._parts.all() if part.begun]
        records += self.snapshots.records()
        return records + (await self._engine.ended(ended) if ended else [])

    async def end(self, reason: HubError) -> None:
        """Rolls back what is open; what is prepared stays so on disk, for the next start."""
        self._ending = reason
        for part in self._parts.all():
            part.interrupt(reason)
        for control in self._rehearsals:
            control.cancelled = True
        if self._running:
            await asyncio.wait(self._running)
        for part in self._parts.all():
            try:
                if part.state is State.OPEN:
                    resolution = Resolution(part.header, commit=False, error=reason)
                    await self._resolving.undo(part, resolution)
                else:
                    await self._engine.roll_back()
            except (HubError, EngineLost) as failure:
                self._parts.could_not_end(part, str(failure))
            finally:
                self._parts.leave(part, part.state)
        await self.snapshots.end()

    async def _asked_for(self, asked: Asked, work: Coroutine[Any, Any, Advanced]) -> Advanced:
        """Carries a step out; when the hub went away, its statements are interrupted."""
        try:
            return await self._carry_out(work)
        except asyncio.CancelledError:
            asked.control.cancelled = True
            raise

    async def _carry_out(self, work: Coroutine[Any, Any, Answered]) -> Answered:
        """Runs to its end what a hub asked for, also if the hub does not wait for it."""
        return await asyncio.shield(self._start(self._vouched(work)))

    def _start(self, work: Coroutine[Any, Any, Answered]) -> asyncio.Task[Answered]:
        task = self._loop.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        failure = None if task.cancelled() else task.exception()
        # A refusal is for the hub that asked, which may have gone away; a defect is for the log.
        if failure is not None and not isinstance(failure, HubError):
            _log.error("a step of a transaction broke", exc_info=failure)

    async def _vouched(self, work: Coroutine[Any, Any, Answered]) -> Answered:
        try:
            return await work
        except EngineLost as loss:
            self._lost(loss.error)
            for part in self._parts.all():
                self._parts.leave(part, part.state)
            raise loss.error from loss

    def _expire(self, part: Part) -> None:
        why = TransactionExpired("nothing came for it in time, or it was over its time")
        self._end_soon(Resolution(part.header, commit=False, error=why))

    def _end_soon(self, resolution: Resolution) -> None:
        async def end() -> None:
            try:
                await self._vouched(self._resolving.resolve(resolution))
            except HubError as failure:
                _log.warning(
                    "could not record an end",
                    extra={"database": self._parts.name, "detail": failure.message},
                )

        self._start(end())
