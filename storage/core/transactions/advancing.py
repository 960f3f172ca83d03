"""How a part goes on: begun, its statements run, prepared, committed as the home."""

from collections.abc import Callable
from typing import Final

from messagehub.errors import Cancelled, HubError
from storage.core.transactions.engine_part import Advance, Advanced, Step, TransactionEngine
from storage.core.transactions.part import FROM_THE_WIRE, Asked, Part, Resolution
from storage.core.transactions.parts import Parts
from storage.core.transactions.refusals import not_found, refusal, rolled_back
from storage.core.transactions.states import TRANSITIONS, Answer, State, Verb

_VERBS: Final = {
    Step.STAY_OPEN: Verb.RUN,
    Step.PREPARE: Verb.PREPARE,
    Step.COMMIT: Verb.COMMIT,
}


class Advancing:
    """Takes parts on. Everything runs on the loop.

    `end_soon` writes down that a part is rolled back, without anybody who waits for it.
    """

    def __init__(
        self,
        parts: Parts,
        engine: TransactionEngine,
        epoch: str,
        end_soon: Callable[[Resolution], None],
    ) -> None:
        self._parts = parts
        self._engine = engine
        self._epoch = epoch
        self._end_soon = end_soon

    async def advance(self, part: Part, asked: Asked) -> Advanced:
        """Takes a part on; raises the `HubError` that stops it."""
        async with part.turn:
            begins = part.state is State.ABSENT
            if not self._parts.has(part):
                return await self.after_the_end(asked)
            if begins:
                await self._parts.join(part, asked.wait_until)
            after = TRANSITIONS[part.state, Verb.BEGIN if begins else _VERBS[asked.step]]
            if after is Answer.AS_BEFORE and part.advanced is not None:
                return part.advanced
            if isinstance(after, Answer):
                raise refusal(after, asked.transaction_id, self._parts.name)
            part.disarm()
            return await self._take_on(part, asked, begins=begins)

    async def after_the_end(self, asked: Asked) -> Advanced:
        """The answer for a part that is not there and shall not begin."""
        record = await self._engine.look_up(asked.transaction_id)
        if record is None:
            raise not_found(asked.transaction_id, self._parts.name)
        answer = TRANSITIONS[FROM_THE_WIRE[record.state], _VERBS[asked.step]]
        if answer is Answer.AS_BEFORE:
            return Advanced(list(record.results), self._epoch, record.sequence, record=record)
        if answer is Answer.TOO_LATE:
            raise refusal(Answer.TOO_LATE, asked.transaction_id, self._parts.name)
        raise rolled_back(record)

    async def _take_on(self, part: Part, asked: Asked, *, begins: bool) -> Advanced:
        gate = self._parts.gate
        entered = False
        part.control = asked.control
        try:
            if asked.step is Step.PREPARE:
                await gate.enter(asked.wait_until)
                entered = True
            advanced = await self._run(part, asked, begins=begins)
        except BaseException as failure:
            if entered:
                gate.leave()
            # Its caller did not go away: somebody else rolls back.
            doom = part.doomed if isinstance(failure, Cancelled) else None
            await self._after_failure(part, doom or failure, begins=begins)
            if doom is not None:
                raise doom from failure
            raise
        finally:
            part.control = None
        if advanced.record is not None:
            if entered:
                gate.leave()
            self._parts.leave(part, FROM_THE_WIRE[advanced.record.state], advanced.applied)
        elif entered:
            self._parts.stay_prepared(part, advanced)
        else:
            self._parts.stay_open(part)
        return advanced

    async def _run(self, part: Part, asked: Asked, *, begins: bool) -> Advanced:
        first = asked.operations[0] if asked.operations else None
        if asked.step is Step.STAY_OPEN and first is not None:
            known = part.answers.find(first)
            if known is not None:
                return Advanced([known], self._epoch, known.sequence)
        try:
            advanced = await self._engine.advance(
                Advance(
                    part.header,
                    begins,
                    asked.operations,
                    asked.step,
                    asked.control,
                    asked.events,
                    asked.decision,
                )
            )
        except HubError as failure:
            if first is not None:
                part.answers.keep_failure(first, failure)
            raise
        part.answers.keep(asked.operations, advanced.results)
        return advanced

    async def _after_failure(self, part: Part, failure: BaseException, *, begins: bool) -> None:
        """The part is still open, or gone; if it was there before, that is written down."""
        if self._engine.is_open and part.state is State.OPEN and isinstance(failure, HubError):
            self._parts.stay_open(part)
            return
        if self._engine.is_open:
            await self._engine.roll_back()
        self._parts.leave(part, State.ROLLED_BACK)
        if not begins and isinstance(failure, HubError):
            self._end_soon(Resolution(part.header, commit=False, error=failure))
