"""An operator ends a transaction whose home cannot tell any more how it ended."""

import logging
from typing import Final

from hub.core.transactions.inquiries import Inquiries
from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.together import each
from hub.core.transactions.transaction import (
    PartState,
    Record,
    Resolution,
    Standing,
    State,
)
from messagehub.errors import Cancelled, HubError, StorageUnavailable

# Look, end, look again.
STEPS: Final = 3

_log = logging.getLogger(__name__)


class Forcing:
    """Forces the prepared parts of a transaction, and only those that are in doubt."""

    def __init__(self, surroundings: Surroundings, inquiries: Inquiries) -> None:
        self._around = surroundings
        self._inquiries = inquiries

    async def force(self, standing: Standing, *, commit: bool, by: str, seconds: float) -> Standing:
        """Ends what is prepared in every database that can be asked; gives how it stands then.

        Nothing is forced where the home still says how it ended, or may yet decide by itself.
        Raises `StorageUnavailable` if no prepared part could be reached.
        """
        if standing.state is not State.IN_DOUBT:
            return standing
        header, participants = standing.header, self._around.participants
        seconds /= STEPS
        records = await each(
            participants.look_up(name, header.transaction_id, seconds=seconds)
            for name in header.others
        )
        prepared = [
            name
            for name, record in zip(header.others, records, strict=True)
            if isinstance(record, Record) and record.state is PartState.PREPARED
        ]
        error = None if commit else Cancelled(f"an operator rolled it back, as {by}")
        answers = await each(
            participants.resolve(
                Resolution(name, commit, header, error, forced=True), seconds=seconds
            )
            for name in prepared
        )
        forced = [
            name
            for name, answer in zip(prepared, answers, strict=True)
            if not isinstance(answer, HubError)
        ]
        _log.warning(
            "an operator ended a transaction in doubt",
            extra={
                "transaction_id": header.transaction_id,
                "by": by,
                "commit": commit,
                "databases": forced,
            },
        )
        if not forced:
            raise StorageUnavailable(
                f"no prepared part of {header.transaction_id} could be reached: nothing was forced"
            )
        return await self._inquiries.get(header.transaction_id, seconds)
