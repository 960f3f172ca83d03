"""Reading several databases at one moment.

While commits are held back in all of them, no transaction over several of them is half way. A
snapshot of each is pinned then, and commits go on; what is read from the snapshots afterwards
belongs together, however long that takes.
"""

from collections.abc import Callable, Mapping, Sequence

from hub.core.transactions.locks import LockTable
from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.together import all_or_first_failure, each
from hub.core.transactions.transaction import (
    Advance,
    Advanced,
    Header,
    PartResult,
    Resolution,
    Step,
    Work,
)
from hub.core.transactions.verdicts import Verdict, judge
from messagehub.errors import HubError, ResultTooLarge, TransactionConflict


class Cuts:
    """Pins snapshots and lets them go; `commits` are this hub's own locks on commits."""

    def __init__(self, surroundings: Surroundings, *, commits: LockTable) -> None:
        self._around = surroundings
        self._commits = commits

    async def pin(self, make_header: Callable[[], Header], *, deadline: float) -> Header:
        """Pins a snapshot of each database and gives the header that has them.

        Raises `TransactionConflict` if commits could not be held back in time.
        """
        backoff = self._around.backoff()
        while True:
            header = make_header()
            try:
                await self._pin_once(header, deadline)
            except HubError as failure:
                self.release(header)
                delay = backoff.next()
                if (
                    judge(failure) is not Verdict.CONFLICT
                    or self._around.clock() + delay >= deadline
                ):
                    raise
            except BaseException:
                self.release(header)
                raise
            else:
                return header
            await self._around.sleep(delay)

    async def read(
        self, make_header: Callable[[], Header], work: Mapping[str, Work], seconds: float
    ) -> tuple[Header, Sequence[PartResult]]:
        """Reads everything at one moment and gives the results in their order."""
        deadline = self._around.clock() + seconds
        header = await self.pin(make_header, deadline=deadline)
        try:
            answers = await all_or_first_failure(
                self._read(header, database, work[database], deadline) for database in work
            )
        finally:
            self.release(header)
        results = [
            result._replace(sequence=answer.sequence)
            for answer in answers
            for result in answer.results
        ]
        self._check_size(results)
        return header, sorted(results, key=lambda result: result.place)

    def release(self, header: Header) -> None:
        """Lets the snapshots go, in the background; one that hears nothing expires."""

        async def let_go() -> None:
            await each(
                self._around.participants.resolve(
                    Resolution(database, commit=False, header=header),
                    seconds=self._around.limits.answer_seconds,
                )
                for database in header.databases
            )

        self._around.background.start(let_go(), name="transaction-snapshots")

    async def _pin_once(self, header: Header, deadline: float) -> None:
        if len(header.databases) == 1:
            await self._advance(header, header.home, Work(), deadline)
            return
        seconds = max(0.0, deadline - self._around.clock())
        locks = await self._commits.take(header.databases, seconds=seconds, shared=True)
        try:
            await self._pin_held(header, deadline)
        finally:
            locks.release_all()

    async def _pin_held(self, header: Header, deadline: float) -> None:
        holder = header.transaction_id
        limits, participants = self._around.limits, self._around.participants
        seconds = max(0.0, deadline - self._around.clock())
        # Shorter than transactions wait, so that where both wait for each other the read gives way.
        wait_seconds = min(limits.wait_seconds, seconds) / 2
        try:
            await all_or_first_failure(
                participants.hold_commits(
                    database,
                    holder,
                    wait_seconds=wait_seconds,
                    lease_seconds=limits.lease_seconds,
                    seconds=seconds,
                )
                for database in header.databases
            )
            await all_or_first_failure(
                self._advance(header, database, Work(), deadline) for database in header.databases
            )
        except BaseException:
            self._around.background.start(self._let_commits_go(header), name="transaction-commits")
            raise
        held = await self._let_commits_go(header)
        if not all(one is True for one in held):
            raise TransactionConflict(
                "commits could not be held back for as long as it took to pin the snapshots: "
                "run the whole transaction again"
            )

    async def _let_commits_go(self, header: Header) -> list[bool | HubError]:
        participants, limits = self._around.participants, self._around.limits
        return await each(
            participants.release_commits(
                database, header.transaction_id, seconds=limits.answer_seconds
            )
            for database in header.databases
        )

    async def _read(self, header: Header, database: str, work: Work, deadline: float) -> Advanced:
        return await self._advance(header, database, work, deadline, begins=False)

    async def _advance(
        self, header: Header, database: str, work: Work, deadline: float, *, begins: bool = True
    ) -> Advanced:
        seconds = max(0.0, deadline - self._around.clock())
        return await self._around.participants.advance(
            Advance(
                database=database,
                transaction_id=header.transaction_id,
                correlation_id=header.correlation_id,
                header=header if begins else None,
                work=work,
                step=Step.STAY_OPEN,
                wait_seconds=min(self._around.limits.wait_seconds, seconds / 2),
            ),
            seconds=seconds,
        )

    def _check_size(self, results: Sequence[PartResult]) -> None:
        bytes_max = self._around.limits.results_bytes_max
        size = sum(self._around.size_of(result.result) for result in results)
        if size > bytes_max:
            raise ResultTooLarge(
                f"the rows of the transaction have {size} bytes, the limit is {bytes_max}: read "
                "less, or in several steps of an interactive transaction",
                metadata={"limit_bytes": str(bytes_max)},
            )
