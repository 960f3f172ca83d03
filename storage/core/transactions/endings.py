"""Writing down that a transaction is rolled back, so that it can never begin here any more."""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from messagehub.errors import InternalError
from messagehub.storage.v1.participant_service_pb2 import (
    ParticipantState,
    TransactionHeader,
    TransactionRecord,
)
from storage.core.operation import Applied, Operation, Outcome, ask
from storage.core.transactions.engine_part import Ending
from storage.core.transactions.part import Resolution

# Writing down that a transaction is over has nobody's deadline.
ENDING_SECONDS: Final = 30.0


class Ended(NamedTuple):
    """The record of a transaction, and that of its request id where it belongs to another one."""

    record: TransactionRecord
    replayed: TransactionRecord


def ended(record: TransactionRecord) -> Ended:
    """The end of a transaction whose request id says nothing more."""
    return Ended(record, TransactionRecord())


def rolled_back_record(header: TransactionHeader) -> TransactionRecord:
    """What is said of a transaction that is rolled back."""
    return TransactionRecord(header=header, state=ParticipantState.PARTICIPANT_STATE_ROLLED_BACK)


class Endings:
    """Writes ends: through the lane, or while somebody holds it for this.

    `submit` queues an operation for the lane, `apply` runs operations at once, `committed` hears
    of what was written, `clock` is the loop's.
    """

    def __init__(
        self,
        submit: Callable[[Operation], None],
        apply: Callable[[list[Operation]], Awaitable[Applied]],
        committed: Callable[[Applied], None],
        clock: Callable[[], float],
    ) -> None:
        self._submit = submit
        self._apply = apply
        self._committed = committed
        self._clock = clock

    async def write(self, resolution: Resolution) -> Ended:
        """Writes an end when the lane is free; raises the `HubError` that prevents it."""
        return _told(resolution, await ask(self._submit, self._operation(resolution)))

    async def write_now(self, resolution: Resolution) -> Ended:
        """Writes an end; whoever calls holds the lane."""
        applied = await self._apply([self._operation(resolution)])
        self._committed(applied)
        return _told(resolution, applied.outcomes[0])

    def _operation(self, resolution: Resolution) -> Operation:
        header = resolution.header
        record = rolled_back_record(header)
        record.forced = resolution.forced
        return Operation(
            source_service=header.source_service,
            correlation_id=header.correlation_id,
            request_id="",
            deadline=self._clock() + ENDING_SECONDS,
            deliver=lambda _: None,
            transaction=Ending(
                record, resolution.error, resolution.request_id, resolution.fingerprint
            ),
        )


def _told(resolution: Resolution, outcome: Outcome) -> Ended:
    if outcome.error is not None:
        raise outcome.error
    if outcome.advanced is None or outcome.advanced.record is None:
        raise InternalError("the end of a transaction was written without a record")
    record = outcome.advanced.record
    if record.header.transaction_id == resolution.header.transaction_id:
        return ended(record)
    return Ended(rolled_back_record(resolution.header), record)
