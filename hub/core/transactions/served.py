"""The interactive transactions that a hub serves: those it began, and those it was asked for."""

from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

from hub.core.transactions import standings
from hub.core.transactions.attempt import Attempt
from hub.core.transactions.open_transaction import OpenTransaction
from hub.core.transactions.remembered import Remembered
from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.transaction import Header, Record, Standing, home_of
from messagehub.errors import QueueFull, TransactionNotFound

MICROSECONDS: Final = 1_000_000


class Served:
    """By transaction id; `keep` looks after each one for as long as it is here."""

    def __init__(
        self,
        surroundings: Surroundings,
        remembered: Remembered,
        *,
        databases: Collection[str],
        keep: Callable[[OpenTransaction], Coroutine[Any, Any, None]],
    ) -> None:
        self._around = surroundings
        self._remembered = remembered
        self._databases = databases
        self._keep = keep
        self._open: dict[str, OpenTransaction] = {}
        self.opening = 0

    def all(self) -> list[OpenTransaction]:
        """Every one that is here."""
        return list(self._open.values())

    def get(self, transaction_id: str) -> OpenTransaction | None:
        """Gives one that is here."""
        return self._open.get(transaction_id)

    def check_room(self) -> None:
        """Raises `QueueFull` if no more may be open here."""
        limits = self._around.limits
        if len(self._open) + self.opening >= limits.open_max:
            raise QueueFull(
                f"{limits.open_max} transactions are open: end one first, or call again later",
                retry_after=limits.busy_seconds,
            )

    def add(self, attempt: Attempt, *, begun_here: bool) -> OpenTransaction:
        """From now on it is here, until `drop`."""
        header = attempt.header
        age_seconds = max(0.0, (self._around.now_us() - header.create_time_us) / MICROSECONDS)
        one = OpenTransaction(
            attempt,
            clock=self._around.clock,
            seconds_left=header.seconds - age_seconds,
            begun_here=begun_here,
        )
        self._open[header.transaction_id] = one
        one.keeper = self._around.background.start(self._keep(one), name="transaction-keeper")
        return one

    def forget(self, one: OpenTransaction) -> None:
        """Somebody else serves it: the next call asks its home."""
        one.attempt.release_all()
        self.drop(one)

    def drop(self, one: OpenTransaction) -> None:
        """It is not here any more."""
        self._open.pop(one.header.transaction_id, None)
        if one.keeper is not None:
            one.keeper.cancel()

    async def find(
        self, transaction_id: str, source_service: str, seconds: float
    ) -> OpenTransaction | Standing:
        """Gives a transaction of a service: open, or how it ended.

        One that another hub began is looked up at its home, and served from now on. Raises
        `TransactionNotFound`, also for a transaction of another service.
        """
        known = self._open.get(transaction_id) or self._remembered.get(transaction_id)
        if known is None:
            if home_of(transaction_id) not in self._databases:
                raise _not_found(transaction_id)
            known = await self._look_up(transaction_id, source_service, seconds)
        _check_owner(known.header, source_service)
        return known

    async def _look_up(
        self, transaction_id: str, source_service: str, seconds: float
    ) -> OpenTransaction | Standing:
        record = await find_record(self._around, transaction_id, seconds)
        if record is None:
            raise _not_found(transaction_id)
        _check_owner(record.header, source_service)
        # Another call may have found it meanwhile.
        known = standings.end(record) or self._open.get(transaction_id)
        if known is not None:
            return known
        self.check_room()
        return self.add(Attempt(record.header, begins=False), begun_here=False)


async def find_record(around: Surroundings, transaction_id: str, seconds: float) -> Record | None:
    """Gives what the home of a transaction knows of it."""
    home = home_of(transaction_id)
    record = await around.participants.look_up(home, transaction_id, seconds=seconds)
    if record is not None:
        return record
    # One that only reads leaves no record, but may be open.
    for one in await around.participants.list(home, ended=False, limit=0, seconds=seconds):
        if one.header.transaction_id == transaction_id:
            return one
    return None


def _check_owner(header: Header, source_service: str) -> None:
    if header.source_service != source_service:
        raise _not_found(header.transaction_id)


def _not_found(transaction_id: str) -> TransactionNotFound:
    return TransactionNotFound(
        f"the service has no transaction {transaction_id}: it never was, is older than what is "
        "kept, or was lost with its storage server and changed nothing",
        metadata={"transaction_id": transaction_id},
    )
