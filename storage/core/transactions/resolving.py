"""How a part ends because somebody says so: the home's decision, a limit, an operator."""

from typing import Final

from messagehub.errors import HubError, TransactionExpired
from messagehub.storage.v1.participant_service_pb2 import TransactionHeader, TransactionRecord
from storage.core.transactions.endings import Ended, Endings, ended
from storage.core.transactions.engine_part import TransactionEngine
from storage.core.transactions.part import FROM_THE_WIRE, Part, Resolution
from storage.core.transactions.parts import Parts
from storage.core.transactions.refusals import not_found, refusal, rolled_back
from storage.core.transactions.states import TRANSITIONS, Answer, State

MICROSECONDS: Final = 1_000_000


class Resolving:
    """Ends parts, and answers for those that are not there. Everything runs on the loop."""

    def __init__(
        self, parts: Parts, engine: TransactionEngine, epoch: str, endings: Endings
    ) -> None:
        self._parts = parts
        self._engine = engine
        self._epoch = epoch
        self._endings = endings

    async def resolve(self, resolution: Resolution) -> Ended:
        """Ends a part and tells how the transaction ended here in truth."""
        part = self._parts.get(resolution.header.transaction_id)
        if part is None:
            return await self._resolve_absent(resolution)
        if not resolution.commit:
            part.interrupt(resolution.error or TransactionExpired("it was rolled back"))
        async with part.turn:
            if not self._parts.has(part):
                return await self._resolve_absent(resolution)
            after = TRANSITIONS[part.state, resolution.verb]
            if isinstance(after, Answer):
                raise refusal(after, resolution.header.transaction_id, self._parts.name)
            part.disarm()
            if after is State.COMMITTED:
                return await self._finish(part, forced=resolution.forced)
            return await self.undo(part, resolution)

    async def undo(self, part: Part, resolution: Resolution) -> Ended:
        """Rolls back and writes that down before anybody else may write."""
        was_prepared = part.state is State.PREPARED
        await self._engine.roll_back()
        try:
            told = await self._endings.write_now(resolution)
        except HubError:
            if was_prepared:  # it is prepared still, on disk, and will be tried again
                self._parts.doubt(part)
            else:
                self._parts.leave(part, State.ROLLED_BACK)
            raise
        if was_prepared:
            await self._engine.forget()
            self._parts.gate.leave()
        self._parts.leave(part, State.ROLLED_BACK)
        self._parts.reached("participant.resolved")
        return told

    async def _finish(self, part: Part, *, forced: bool) -> Ended:
        reached = self._parts.reached
        reached("participant.before_commit")
        try:
            advanced = await self._engine.commit(forced=forced)
        except HubError:
            self._parts.doubt(part)  # it is prepared still, and will be tried again
            raise
        reached("participant.committed")
        await self._engine.forget()
        self._parts.gate.leave()
        self._parts.leave(part, State.COMMITTED, advanced.applied)
        reached("participant.resolved")
        return ended(advanced.record or TransactionRecord())

    async def _resolve_absent(self, resolution: Resolution) -> Ended:
        header = resolution.header
        record = await self._engine.look_up(header.transaction_id)
        if record is None and (resolution.commit or self._is_too_old(header)):
            raise not_found(header.transaction_id, self._parts.name)
        if record is None:
            return await self._endings.write(resolution)
        if TRANSITIONS[FROM_THE_WIRE[record.state], resolution.verb] is Answer.TOO_LATE:
            raise rolled_back(record)
        return ended(record)

    def _is_too_old(self, header: TransactionHeader) -> bool:
        """True if a record of it could have been forgotten: then nothing found says nothing."""
        if header.home != self._parts.name:
            return False
        age_us = self._parts.wall_clock_us() - header.create_time_us
        other_life = header.home_epoch not in ("", self._epoch)
        return other_life or age_us > self._parts.limits.keep_seconds * MICROSECONDS
