"""Looks after open transactions: none is forgotten, none outlives its limits."""

import logging
from collections.abc import Callable

from hub.core.transactions.open_parts import OpenParts
from hub.core.transactions.open_transaction import OpenTransaction
from hub.core.transactions.served import find_record
from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.transaction import PartState
from messagehub.errors import HubError, TransactionExpired

_log = logging.getLogger(__name__)


class Keeper:
    """One task for each transaction; `end` is told of those that are over."""

    def __init__(
        self,
        surroundings: Surroundings,
        parts: OpenParts,
        *,
        end: Callable[[OpenTransaction, HubError], None],
    ) -> None:
        self._around = surroundings
        self._parts = parts
        self._end = end

    async def keep(self, one: OpenTransaction) -> None:
        """Returns when the transaction is led to its end."""
        while one.ending is None:
            await self._around.sleep(one.check_seconds)
            if one.is_over:
                self._end(one, too_late())
            elif one.is_busy:
                await self._parts.touch(one)
            elif one.is_idle:
                await self._check_idle(one)

    async def _check_idle(self, one: OpenTransaction) -> None:
        """Another hub may use it: only its home knows whether it is idle."""
        name = one.header.transaction_id
        try:
            record = await find_record(self._around, name, self._around.limits.answer_seconds)
        except HubError as failure:
            _log.info(
                "could not look after a transaction",
                extra={"transaction_id": name, "reason": failure.reason},
            )
            return
        if record is not None and record.state is PartState.OPEN:
            one.used_elsewhere()
        elif not one.is_busy:
            self._end(
                one,
                TransactionExpired("no call came in its idle time, set a longer idle_timeout"),
            )


def too_late() -> TransactionExpired:
    """The total limit is over."""
    return TransactionExpired("it was open for longer than it may (transaction_seconds_max)")
