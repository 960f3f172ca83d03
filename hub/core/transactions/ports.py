"""What the hub asks of the databases that take part in transactions."""

from collections.abc import Sequence
from typing import Protocol

from hub.core.transactions.transaction import Advance, Advanced, Record, Resolution, Resolved


class Participants(Protocol):
    """The databases as participants. Every call takes at most `seconds` and raises a `HubError`.

    An error that may be the connection's own says nothing about what was done.
    """

    async def advance(self, advance: Advance, *, seconds: float) -> Advanced:
        """Begins a part, runs its operations, takes it a step on; sent again it is done once.

        `TransactionConflict` if the database was not free in time, `TransactionNotFound` or
        `TransactionExpired` for a part that is not there and may not begin.
        """

    async def resolve(self, resolution: Resolution, *, seconds: float) -> Resolved:
        """Ends a part and tells how it ended in truth; what was committed stays so.

        `TransactionNotFound` for a commit of what is not prepared, and from a home that cannot
        know any more.
        """

    async def look_up(
        self, database: str, transaction_id: str, *, request_id: str = "", seconds: float
    ) -> Record | None:
        """Tells what a database knows, by one of both names; changes nothing."""

    async def list(
        self, database: str, *, ended: bool, limit: int, seconds: float
    ) -> Sequence[Record]:
        """Gives what holds a database and, if asked, the newest that `ended` there."""

    async def hold_commits(
        self,
        database: str,
        holder: str,
        *,
        wait_seconds: float,
        lease_seconds: float,
        seconds: float,
    ) -> None:
        """Waits until nothing is prepared, then lets nothing be; `TransactionConflict` if late."""

    async def release_commits(self, database: str, holder: str, *, seconds: float) -> bool:
        """Lets transactions be prepared again; False if the lease was over before."""
