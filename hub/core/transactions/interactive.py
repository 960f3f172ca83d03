"""Transactions that stay open between calls.

What a hub remembers of one is a cache: a call for a transaction that it does not know looks it up
at its home and goes on, so any hub serves any call. Calls of one transaction take turns. An end is
led by a task of its own, home first, whether or not its caller waits for it.
"""

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Mapping
from typing import Any

from hub.core.transactions import standings
from hub.core.transactions.attempt import Attempt
from hub.core.transactions.beginning import Beginning
from hub.core.transactions.cuts import Cuts
from hub.core.transactions.finishing import Finishing, unknown
from hub.core.transactions.keeper import Keeper, too_late
from hub.core.transactions.limits import ANSWER_SHARE, WORKING_SHARE
from hub.core.transactions.live_attempts import LiveAttempts
from hub.core.transactions.locks import LockTable
from hub.core.transactions.open_parts import OpenParts
from hub.core.transactions.open_transaction import SLACK, OpenTransaction
from hub.core.transactions.remembered import Remembered
from hub.core.transactions.served import Served
from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.transaction import (
    Advanced,
    Header,
    PartOperation,
    Standing,
    State,
    Work,
)
from hub.core.transactions.two_phase_commit import TwoPhaseCommit
from hub.core.transactions.verdicts import Verdict, judge
from messagehub.errors import (
    Cancelled,
    HubError,
    InvalidRequest,
    OperationNotCancellable,
    TransactionConflict,
    TransactionExpired,
    TransactionNotFound,
)


class Interactive:
    """Begins, uses and ends interactive transactions; `databases` are all of the hub's."""

    def __init__(
        self,
        surroundings: Surroundings,
        live: LiveAttempts,
        finishing: Finishing,
        remembered: Remembered,
        cuts: Cuts,
        *,
        databases: Collection[str],
        lanes: LockTable,
        commits: LockTable,
    ) -> None:
        self._around = surroundings
        self._live = live
        self._finishing = finishing
        self._cuts = cuts
        self._commits = commits
        self._beginning = Beginning(surroundings, live, lanes=lanes)
        self._two_phases = TwoPhaseCommit(surroundings)
        self._parts = OpenParts(surroundings)
        keeper = Keeper(surroundings, self._parts, end=self._expire)
        self._served = Served(surroundings, remembered, databases=databases, keep=keeper.keep)

    async def begin(
        self,
        databases: Iterable[str],
        *,
        source_service: str,
        correlation_id: str,
        read_only: bool,
        idle_seconds: float,
        seconds: float,
    ) -> Header:
        """Opens a transaction over databases; raises `TransactionConflict` if one is taken."""
        self._served.check_room()
        names = tuple(sorted(set(databases)))

        def make_header() -> Header:
            return self._around.header(
                names,
                source_service=source_service,
                correlation_id=correlation_id,
                read_only=read_only,
                idle_seconds=idle_seconds * SLACK,
                seconds=self._around.limits.seconds_max,
            )

        self._served.opening += 1
        try:
            if read_only:
                deadline = self._around.clock() + seconds * WORKING_SHARE
                header = await self._cuts.pin(make_header, deadline=deadline)
                attempt = Attempt(header, begins=False)
            else:
                attempt = await self._beginning.begin(make_header, seconds * WORKING_SHARE)
        finally:
            self._served.opening -= 1
        self._served.add(attempt, begun_here=True)
        return attempt.header

    async def execute(
        self,
        transaction_id: str,
        source_service: str,
        database: str,
        operation: PartOperation,
        *,
        correlation_id: str,
        seconds: float,
    ) -> Advanced:
        """Runs one statement in a transaction; one that fails undoes only itself.

        Raises `TransactionExpired` if the transaction is over, `TransactionNotFound` if it is not
        this service's.
        """
        deadline = self._around.clock() + seconds * WORKING_SHARE
        one = await self._open(transaction_id, source_service, seconds)
        if database not in one.header.databases:
            what = f"must be one of the transaction's: {', '.join(one.header.databases)}"
            raise InvalidRequest(f"database {what}", fields={"database": what})
        async with one.turn(deadline):
            self._check_open(one)
            answers = await self._parts.run(
                one,
                database,
                Work((operation,)),
                correlation_id=correlation_id,
                deadline=deadline,
            )
        for answer in answers:
            if isinstance(answer, TransactionExpired | TransactionNotFound):
                self._expire(one, answer)
                raise standings.expired(transaction_id, answer)
        answer = answers[0]
        if isinstance(answer, TransactionConflict):
            # Another hub is about to commit it, or has done that.
            self._served.forget(one)
            raise unknown(one.header)
        if isinstance(answer, HubError):
            raise answer
        return answer

    async def commit(
        self,
        transaction_id: str,
        source_service: str,
        events: Mapping[str, Work],
        *,
        seconds: float,
    ) -> Standing:
        """Commits; asked again, the answer is the same.

        Raises why it was rolled back instead, `StorageUnavailable` if nobody knows in the caller's
        time.
        """
        deadline = self._around.clock() + seconds * WORKING_SHARE
        ended = await self._served.find(transaction_id, source_service, seconds)
        if isinstance(ended, OpenTransaction):
            one = ended
            for database in set(events).difference(one.header.databases):
                what = f"has {database}, which is not in the transaction"
                raise InvalidRequest(f"events {what}", fields={"events": what})
            async with one.turn(deadline):
                if one.ending is None:
                    one.commits = True
                    self._start_end(one, self._commit(one, events, deadline))
            ended = await self._end(one, seconds)
        if ended.state is State.COMMITTED:
            return ended
        if ended.error is not None and judge(ended.error) is Verdict.FINAL:
            raise ended.error
        raise standings.expired(transaction_id, ended.error)

    async def roll_back(
        self, transaction_id: str, source_service: str, *, seconds: float
    ) -> Standing:
        """Rolls back; asked again, the answer is the same.

        Raises `OperationNotCancellable` if it is committed.
        """
        ended = await self._served.find(transaction_id, source_service, seconds)
        if isinstance(ended, OpenTransaction):
            one = ended
            if one.ending is None:
                why = Cancelled("the service rolled it back")
                self._start_end(one, self._roll_back(one, why))
            ended = await self._end(one, seconds)
        if ended.state is State.COMMITTED:
            raise OperationNotCancellable(
                f"the transaction {transaction_id} is committed and stays so",
                metadata={"transaction_id": transaction_id},
            )
        return ended

    def close(self, reason: HubError) -> None:
        """Begins to roll back what this hub began; others go on with what they began."""
        for one in self._served.all():
            if one.begun_here:
                self._expire(one, reason)
            elif one.ending is None:
                self._served.forget(one)

    async def _open(
        self, transaction_id: str, source_service: str, seconds: float
    ) -> OpenTransaction:
        found = await self._served.find(transaction_id, source_service, seconds)
        if isinstance(found, Standing):
            raise standings.over(found)
        return found

    def _check_open(self, one: OpenTransaction) -> None:
        if one.ending is not None:
            name = one.header.transaction_id
            raise standings.committed(name) if one.commits else standings.expired(name, None)
        if one.is_over:
            raise standings.expired(one.header.transaction_id, too_late())

    # Ending.

    async def _end(self, one: OpenTransaction, seconds: float) -> Standing:
        """Waits for an end that somebody leads to, for as long as the caller does."""
        if one.ending is None:
            raise unknown(one.header)
        try:
            async with asyncio.timeout(seconds * ANSWER_SHARE):
                return await asyncio.shield(one.ending)
        except TimeoutError:
            raise unknown(one.header) from None

    def _expire(self, one: OpenTransaction, why: HubError) -> None:
        if one.ending is None:
            self._start_end(one, self._roll_back(one, why))

    def _start_end(self, one: OpenTransaction, work: Coroutine[Any, Any, Standing]) -> None:
        one.ending = self._around.background.start(work, name="transaction-finish")
        # Whatever comes of it, the next call asks the home.
        one.ending.add_done_callback(lambda _: self._served.drop(one))

    async def _commit(
        self, one: OpenTransaction, events: Mapping[str, Work], deadline: float
    ) -> Standing:
        attempt = one.attempt
        if one.header.read_only:
            self._cuts.release(one.header)
            return self._finishing.ended_reading(one.header, State.COMMITTED, None)
        self._live.add(attempt)
        attempt.plan(events)
        try:
            if one.header.others:
                seconds = max(0.0, deadline - self._around.clock())
                attempt.hold(await self._commits.take(one.header.databases, seconds=seconds))
            await self._two_phases.run(attempt, deadline=deadline, in_order=False)
        except HubError as failure:
            return await self._finishing.give_up(attempt, failure, deadline=deadline)
        return await self._finishing.committed(attempt, deadline=deadline)

    async def _roll_back(self, one: OpenTransaction, why: HubError) -> Standing:
        if one.header.read_only:
            self._cuts.release(one.header)
            return self._finishing.ended_reading(one.header, State.ROLLED_BACK, why)
        self._live.add(one.attempt)
        # Nobody waits for what is rolled back to be seen.
        now = self._around.clock()
        return await self._finishing.give_up(one.attempt, why, deadline=now)
