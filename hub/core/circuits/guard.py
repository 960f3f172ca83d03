"""The way of every call to its database: through the circuit, and once more where that helps.

A call whose circuit is open is refused at once; nothing waits for it to close. A call that was
under way when something broke is sent again, within its time and the budget of its database. A
write keeps its request id, so one whose answer was lost is answered from the journal.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar

from hub.core.circuits.breaker import Passage
from hub.core.circuits.circuits import Circuits
from hub.core.circuits.evidence import Evidence, judge
from hub.core.circuits.retry import Attempts, RetryBudget, RetryLimits, may_pass
from hub.core.ports import (
    Adoption,
    Operation,
    Operations,
    Outcome,
    Page,
    Reading,
    Recorded,
    Rehearsal,
    Storage,
)
from messagehub.errors import CircuitOpen, DeadlineExceeded, HubError

Answer = TypeVar("Answer")

# gRPC rounds a deadline up by less than this on its way. It is less than the part of the time in
# which a storage server does not work any more.
EARLY_SHARE: Final = 0.015


class Guard:
    """The ports `Operations` and `Storage`, over those of the storage servers.

    `operations_of` gives the port of the storage server that has a database at this moment.
    `answer_seconds` is how long a storage server may say nothing to a call before that counts
    against the database. `clock` gives monotonic seconds, `random` numbers in [0, 1).
    """

    def __init__(
        self,
        circuits: Circuits,
        limits: RetryLimits,
        *,
        operations_of: Callable[[str], Operations],
        storage: Storage,
        answer_seconds: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
    ) -> None:
        self._breakers = circuits.by_database
        self._limits = limits
        self._operations_of = operations_of
        self._storage = storage
        self._answer_seconds = answer_seconds
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._budgets = {
            name: RetryBudget(limits, clock=clock, calls=breaker.count_calls)
            for name, breaker in self._breakers.items()
        }

    async def run(
        self, operations: Sequence[Operation], seconds: float
    ) -> Sequence[Outcome | HubError]:
        """Gives one outcome or error for each operation; see `hub.core.ports.Operations`.

        Operations of several databases are not sent again here: those of a sound one would wait
        for those of another. Nor is what comes from the inbox: its delivery does it, and must not
        use up the budget of those who wait for an answer.
        """
        deadline = self._clock() + seconds
        outcomes, shaken = await self._attempt(operations, seconds, deadline)
        waited_for = not operations[0].submitted
        if shaken and waited_for and len({one.database for one in operations}) == 1:
            return await self._run_again(operations, outcomes, deadline)
        return outcomes

    async def query(self, reading: Reading, seconds: float) -> AsyncGenerator[Page]:
        """Streams pages; see `hub.core.ports.Storage`. Sent again only before the first page."""

        async def begin(seconds: float) -> tuple[Page | None, AsyncGenerator[Page]]:
            pages = self._storage.query(reading, seconds)
            try:
                return await anext(pages, None), pages
            except BaseException:
                await pages.aclose()
                raise

        # It may take its time before its first page, so that its silence says nothing.
        first, pages = await self.repeat(reading.database, begin, seconds, silence_counts=False)
        async with aclosing(pages):
            if first is not None:
                yield first
            async for page in pages:
                yield page

    async def look_up(
        self, database: str, request_id: str, *, correlation_id: str, seconds: float
    ) -> Recorded | None:
        """Gives what became of a write; see `hub.core.ports.Storage`."""

        async def ask(seconds: float) -> Recorded | None:
            return await self._storage.look_up(
                database, request_id, correlation_id=correlation_id, seconds=seconds
            )

        return await self.repeat(database, ask, seconds)

    async def describe_schema(self, database: str, *, correlation_id: str, seconds: float) -> Any:
        """Tells the schema of a database; see `hub.core.ports.Storage`."""

        async def ask(seconds: float) -> Any:
            return await self._storage.describe_schema(
                database, correlation_id=correlation_id, seconds=seconds
            )

        return await self.repeat(database, ask, seconds)

    async def rehearse_schema(self, rehearsal: Rehearsal, seconds: float) -> Sequence[Any]:
        """Runs changes that leave nothing; see `hub.core.ports.Storage`."""

        async def run(seconds: float) -> Sequence[Any]:
            return await self._storage.rehearse_schema(rehearsal, seconds)

        return await self.repeat(rehearsal.database, run, seconds, silence_counts=False)

    async def adopt(self, adoption: Adoption, seconds: float) -> Sequence[str]:
        """Fills an empty database; see `hub.core.ports.Storage`. Never sent again."""
        passage = self._breakers[adoption.database].admit()
        try:
            tables = await self._storage.adopt(adoption, seconds)
        except HubError as error:
            # Other errors may come from the sender of the file.
            if judge(error) is Evidence.FAILURE:
                passage.failed(error)
            raise
        else:
            passage.succeeded()
        finally:
            passage.withdraw()
        return tables

    async def _attempt(
        self, operations: Sequence[Operation], seconds: float, deadline: float
    ) -> tuple[Sequence[Outcome | HubError], bool]:
        """Gives the outcomes, and whether there is a failure among them that may pass."""
        passages: list[Passage] = []
        refused: dict[int, CircuitOpen] = {}
        for place, operation in enumerate(operations):
            try:
                passages.append(self._breakers[operation.database].admit())
            except CircuitOpen as refusal:
                refused[place] = refusal
        if not refused:
            return await self._send(operations, passages, seconds, deadline)
        admitted = [one for place, one in enumerate(operations) if place not in refused]
        if not admitted:
            return list(refused.values()), False
        sent, shaken = await self._send(admitted, passages, seconds, deadline)
        outcomes = iter(sent)
        return [refused.get(place) or next(outcomes) for place in range(len(operations))], shaken

    async def _send(
        self,
        operations: Sequence[Operation],
        passages: Sequence[Passage],
        seconds: float,
        deadline: float,
    ) -> tuple[Sequence[Outcome | HubError], bool]:
        try:
            outcomes = await self._run_placed(operations, seconds)
        except BaseException as end:
            for passage in passages:
                self._leave(passage, end, deadline, seconds)
            raise
        shaken = False
        for passage, outcome in zip(passages, outcomes, strict=True):
            if isinstance(outcome, HubError):
                passage.failed(outcome, silent=self._was_silent(deadline, seconds))
                shaken = shaken or may_pass(outcome)
            else:
                passage.succeeded()
        return outcomes, shaken

    async def _run_placed(
        self, operations: Sequence[Operation], seconds: float
    ) -> Sequence[Outcome | HubError]:
        """Sends each operation to the storage server that has its database."""
        parts: dict[Operations, list[int]] = {}
        for place, operation in enumerate(operations):
            parts.setdefault(self._operations_of(operation.database), []).append(place)
        if len(parts) == 1:
            (only,) = parts
            return await only.run(operations, seconds)
        outcomes: dict[int, Outcome | HubError] = {}

        async def run_part(port: Operations, places: Sequence[int]) -> None:
            told = await port.run([operations[place] for place in places], seconds)
            outcomes.update(zip(places, told, strict=True))

        async with asyncio.TaskGroup() as running:
            for port, places in parts.items():
                running.create_task(run_part(port, places))
        return [outcomes[place] for place in range(len(operations))]

    async def _run_again(
        self,
        operations: Sequence[Operation],
        outcomes: Sequence[Outcome | HubError],
        deadline: float,
    ) -> Sequence[Outcome | HubError]:
        told = list(outcomes)
        attempts = self._attempts(operations[0].database, deadline)
        while (delay := attempts.delay()) is not None:
            failures = {
                place: outcome
                for place, outcome in enumerate(told)
                if isinstance(outcome, HubError) and may_pass(outcome) and attempts.budget.take()
            }
            if not failures:
                break
            await self._sleep(delay)
            again = [operations[place] for place in failures]
            latest, _ = await self._attempt(again, attempts.seconds_left, deadline)
            for (place, failure), outcome in zip(failures.items(), latest, strict=True):
                told[place] = attempts.told(failure, outcome)
        return told

    async def repeat(
        self,
        database: str,
        call: Callable[[float], Awaitable[Answer]],
        seconds: float,
        *,
        silence_counts: bool = True,
    ) -> Answer:
        """Gives the answer of a call that may be made twice; raises the `HubError` it ended with.

        `call` gets the seconds that are left. `silence_counts` = it should have said something by
        then.
        """
        deadline = self._clock() + seconds
        answer = await self.once(database, call, seconds, silence_counts=silence_counts)
        if not isinstance(answer, HubError):
            return answer
        failure: HubError = answer
        attempts = self._attempts(database, deadline)
        while (
            may_pass(failure) and (delay := attempts.delay()) is not None and attempts.budget.take()
        ):
            await self._sleep(delay)
            answer = await self.once(
                database, call, attempts.seconds_left, silence_counts=silence_counts
            )
            told = attempts.told(failure, answer)
            if not isinstance(told, HubError):
                return told
            failure = told
        raise failure

    async def once(
        self,
        database: str,
        call: Callable[[float], Awaitable[Answer]],
        seconds: float,
        *,
        silence_counts: bool = True,
    ) -> Answer | HubError:
        """Gives the answer of a call, or the `HubError` that it ended with."""
        try:
            passage = self._breakers[database].admit()
        except CircuitOpen as refusal:
            return refusal
        deadline = self._clock() + seconds
        try:
            answer = await call(seconds)
        except HubError as error:
            silent = silence_counts and self._was_silent(deadline, seconds)
            passage.failed(error, silent=silent)
            return error
        except BaseException as end:
            self._leave(passage, end, deadline, seconds if silence_counts else 0.0)
            raise
        passage.succeeded()
        return answer

    def _was_silent(self, deadline: float, seconds: float) -> bool:
        """True if a storage server said nothing in all of the time that it may take.

        A statement that takes too long it answers itself, before the time is over.
        """
        return seconds >= self._answer_seconds and self._clock() >= deadline

    def _leave(self, passage: Passage, end: BaseException, deadline: float, seconds: float) -> None:
        """A call ends without an outcome: somebody does not want it any more, or it had its time.

        Callers leave at their own deadline, which is a little before the one that is known here.
        """
        if isinstance(end, asyncio.CancelledError) and self._was_silent(
            deadline - seconds * EARLY_SHARE, seconds
        ):
            passage.failed(DeadlineExceeded("nothing was answered in time"), silent=True)
        else:
            passage.withdraw()

    def _attempts(self, database: str, deadline: float) -> Attempts:
        limits = self._limits
        # Before a storage server was ever heard of there is nothing to bridge.
        heard = self._breakers[database].healthy is not None
        return Attempts(
            limits,
            self._budgets[database],
            attempts_max=limits.attempts_max if heard else 1,
            deadline=deadline,
            clock=self._clock,
            random=self._random,
        )
