"""Ends what nobody ends: parts that are prepared, and whose coordinator is gone.

Storage servers say in their watch which transaction waits in a database for too long. Every hub
then asks the home. Its word is the same for all, so that hubs do not have to agree who asks:

    home says                      the part is
    committed, with this part      committed
    rolled back                    rolled back
    nothing, or still running      left alone for a while, in which a live coordinator may go on;
                                   then the home is made to decide: rolled back, for ever
    that it cannot know any more   left in doubt: an operator has to say
"""

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context

from hub.core.status import HubState
from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.transaction import Header, PartState, Record, Resolution
from hub.core.transactions.verdicts import may_be_repeated
from messagehub.errors import HubError, TransactionExpired

_log = logging.getLogger(__name__)


class Resolver:
    """Follows the status, between the first call of `follow` and `stop`.

    `is_live` tells whether this hub itself still works on a transaction.
    """

    def __init__(self, surroundings: Surroundings, *, is_live: Callable[[str], bool]) -> None:
        self._around = surroundings
        self._is_live = is_live
        # By database: a database is prepared for one transaction at a time.
        self._in_doubt: dict[str, Record] = {}
        self._resolving: dict[str, asyncio.Task[None]] = {}
        # Transactions whose home cannot say.
        self._stuck: set[str] = set()
        self._stopped = False

    def follow(self, state: HubState) -> None:
        """Hears how the databases stand, of every change."""
        if self._stopped:
            return
        self._in_doubt = {
            one.database: one.in_doubt for one in state.databases if one.in_doubt is not None
        }
        self._stuck &= {record.header.transaction_id for record in self._in_doubt.values()}
        for database in self._in_doubt.keys() - self._resolving.keys():
            # Not in the context of whoever told of it: its correlation id is not ours.
            task = asyncio.get_running_loop().create_task(
                self._keep_resolving(database), name=f"resolver-{database}", context=Context()
            )
            self._resolving[database] = task

    def is_stuck(self, transaction_id: str) -> bool:
        """True for a transaction whose home said that it cannot say how it ended."""
        return transaction_id in self._stuck

    async def stop(self) -> None:
        """Ends the resolving; other hubs, or this one when it is back, go on."""
        self._stopped = True
        resolving = list(self._resolving.values())
        for task in resolving:
            task.cancel()
        await asyncio.gather(*resolving, return_exceptions=True)

    async def _keep_resolving(self, database: str) -> None:
        around = self._around
        backoff = around.backoff()
        known, since = "", around.clock()
        try:
            while (record := self._in_doubt.get(database)) is not None:
                name = record.header.transaction_id
                if name != known:
                    known, since = name, around.clock()
                    backoff.reset()
                if not self._is_live(name):
                    abandoned = around.clock() - since >= around.limits.abandoned_seconds
                    await self._resolve_once(database, record, abandoned=abandoned)
                await around.sleep(backoff.next())
        except Exception:  # noqa: BLE001 - a defect in one must not stop the others
            _log.exception("resolving failed by a defect", extra={"database": database})
        finally:
            del self._resolving[database]

    async def _resolve_once(self, database: str, record: Record, *, abandoned: bool) -> None:
        try:
            decided = await self._decision(record, abandoned=abandoned)
            if decided is None or not self._fits(database, record, decided):
                return
            commit = decided.state is PartState.COMMITTED
            await self._around.participants.resolve(
                Resolution(database, commit, record.header, decided.error),
                seconds=self._around.limits.answer_seconds,
            )
        except HubError as failure:
            # It is tried again, ever more rarely; what is in doubt shows in the status.
            level = logging.DEBUG if may_be_repeated(failure) else logging.WARNING
            _log.log(
                level, "a transaction stays in doubt", extra=_fields(database, record, failure)
            )
        else:
            _log.info("resolved", extra=_fields(database, record) | {"committed": commit})

    async def _decision(self, record: Record, *, abandoned: bool) -> Record | None:
        """Asks the home; None while a live coordinator may still lead it to decide."""
        header, around = record.header, self._around
        seconds = around.limits.answer_seconds
        known = await around.participants.look_up(
            header.home, header.transaction_id, seconds=seconds
        )
        if known is not None and known.state in (PartState.COMMITTED, PartState.ROLLED_BACK):
            return known
        if not abandoned:
            return None
        # The statements at the home may take their time, but not more than all of it.
        age_seconds = (around.now_us() - header.create_time_us) / 1_000_000
        if age_seconds < header.seconds and (
            known is not None or await self._others_run(record.header)
        ):
            return None
        error = TransactionExpired(
            "the transaction was not decided, and nobody went on with it: it was rolled back"
        )
        try:
            resolved = await around.participants.resolve(
                Resolution(header.home, commit=False, header=header, error=error), seconds=seconds
            )
        except HubError as failure:
            if not may_be_repeated(failure):
                self._stuck.add(header.transaction_id)
            raise
        self._stuck.discard(header.transaction_id)
        ended = resolved.record.state in (PartState.COMMITTED, PartState.ROLLED_BACK)
        return resolved.record if ended else None

    async def _others_run(self, header: Header) -> bool:
        """True if statements run at another participant; the home begins when all are prepared.

        They end with the connection of their coordinator, so while they run it lives.
        """
        seconds = self._around.limits.answer_seconds
        for database in header.others:
            try:
                known = await self._around.participants.look_up(
                    database, header.transaction_id, seconds=seconds
                )
            except HubError:
                continue
            if known is not None and known.state is PartState.OPEN:
                return True
        return False

    def _fits(self, database: str, record: Record, decided: Record) -> bool:
        """Whether a decision is about the part as it is there now."""
        if decided.state is PartState.ROLLED_BACK:
            return True
        fits = any(
            part.database == database and part.sequence == record.sequence
            for part in decided.participants
        )
        if not fits:
            self._stuck.add(record.header.transaction_id)
            _log.error(
                "the home committed a transaction that this part does not belong to",
                extra=_fields(database, record),
            )
        return fits


def _fields(database: str, record: Record, failure: HubError | None = None) -> dict[str, str]:
    fields = {"database": database, "transaction_id": record.header.transaction_id}
    if failure is not None:
        fields |= {"reason": failure.reason, "detail": failure.message}
    return fields
