"""The way to the decision: all participants but the home are prepared, then the home decides."""

from hub.core.transactions.attempt import Attempt
from hub.core.transactions.states import Happening
from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.together import all_or_first_failure
from hub.core.transactions.transaction import (
    Advance,
    Advanced,
    Decision,
    PreparedPart,
    Step,
)
from hub.core.transactions.verdicts import leaves_unknown
from messagehub.errors import HubError, ResultTooLarge


class TwoPhaseCommit:
    """Takes an attempt to its decision."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings

    async def run(self, attempt: Attempt, *, deadline: float, in_order: bool) -> Advanced:
        """Gives the home's answer, after which the attempt is committed or replayed.

        `in_order` = participants are prepared one after the other, which cannot end in a circle of
        transactions that wait for each other. After an error the attempt's phase tells whether the
        home may have decided.
        """
        others = attempt.header.others
        if others:
            self._around.reached("coordinator.before_prepare")
            attempt.happens(Happening.PREPARE)
            if in_order:
                for database in others:
                    await self._prepare(attempt, database, deadline)
            else:
                await all_or_first_failure(
                    self._prepare(attempt, database, deadline) for database in others
                )
            self._check_results(attempt)
            self._around.reached("coordinator.all_prepared")
        return await self._decide(attempt, deadline)

    async def _prepare(self, attempt: Attempt, database: str, deadline: float) -> None:
        answer = await self._advance(attempt, database, Step.PREPARE, deadline)
        if not attempt.prepared:
            self._around.reached("coordinator.after_one_prepare")
        attempt.prepared.append(PreparedPart(database, answer.epoch, answer.sequence))
        attempt.results += [result._replace(sequence=answer.sequence) for result in answer.results]

    async def _decide(self, attempt: Attempt, deadline: float) -> Advanced:
        decision = Decision(
            request_id=attempt.request_id,
            fingerprint=attempt.fingerprint,
            participants=tuple(sorted(attempt.prepared)),
            results=tuple(sorted(attempt.results, key=lambda result: result.place)),
        )
        attempt.happens(Happening.DECIDE)
        home = attempt.header.home
        try:
            answer = await self._advance(attempt, home, Step.COMMIT, deadline, decision)
        except HubError as failure:
            if not leaves_unknown(failure):
                attempt.happens(Happening.NOT_DECIDED)
            raise
        if answer.replayed:
            attempt.happens(Happening.HOME_ROLLED_BACK)
            return answer
        attempt.happens(Happening.HOME_COMMITTED)
        attempt.results += [result._replace(sequence=answer.sequence) for result in answer.results]
        attempt.results.sort(key=lambda result: result.place)
        self._around.reached("coordinator.decided")
        return answer

    async def _advance(
        self,
        attempt: Attempt,
        database: str,
        step: Step,
        deadline: float,
        decision: Decision | None = None,
    ) -> Advanced:
        header = attempt.header
        seconds = max(0.0, deadline - self._around.clock())
        work = attempt.work(database)
        attempt.begun.add(database)
        try:
            return await self._around.participants.advance(
                Advance(
                    database=database,
                    transaction_id=header.transaction_id,
                    correlation_id=header.correlation_id,
                    header=header if attempt.begins else None,
                    work=work,
                    step=step,
                    # So that a wait that is in vain is answered in the caller's time.
                    wait_seconds=min(self._around.limits.wait_seconds, seconds / 2),
                    decision=decision,
                ),
                seconds=seconds,
            )
        except HubError as failure:
            if len(work.operations) == 1 and "operation" not in failure.metadata:
                failure.metadata["operation"] = str(work.operations[0].place)
            raise

    def _check_results(self, attempt: Attempt) -> None:
        size_of, bytes_max = self._around.size_of, self._around.limits.results_bytes_max
        size = sum(size_of(result.result) for result in attempt.results)
        if size > bytes_max:
            raise ResultTooLarge(
                f"the rows of the transaction have {size} bytes, the limit is {bytes_max}: "
                "nothing was changed; read less, or read with Query",
                metadata={"limit_bytes": str(bytes_max)},
            )
