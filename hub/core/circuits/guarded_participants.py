"""The participants of transactions behind the circuits of their databases."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hub.core.circuits.circuits import Circuits
from hub.core.transactions.ports import Participants
from hub.core.transactions.transaction import Advance, Advanced, Record, Resolution, Resolved
from messagehub.errors import HubError


class GuardedParticipants:
    """The port `Participants` over another; also raises `CircuitOpen`, before anything is sent.

    Nothing is sent again here: what that would mean only the one who asks knows. `answer_seconds`
    is how long a storage server may say nothing before that counts against the database.
    """

    def __init__(
        self,
        participants: Participants,
        circuits: Circuits,
        *,
        answer_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._participants = participants
        self._breakers = circuits.by_database
        self._answer_seconds = answer_seconds
        self._clock = clock

    async def advance(self, advance: Advance, *, seconds: float) -> Advanced:
        """Takes a part on; see the port. Statements may take their time, silence says nothing."""
        quick = not advance.work.operations
        with self._settled(advance.database, seconds if quick else 0.0):
            return await self._participants.advance(advance, seconds=seconds)

    async def resolve(self, resolution: Resolution, *, seconds: float) -> Resolved:
        """Ends a part; see the port."""
        with self._settled(resolution.database, seconds):
            return await self._participants.resolve(resolution, seconds=seconds)

    async def look_up(
        self, database: str, transaction_id: str, *, request_id: str = "", seconds: float
    ) -> Record | None:
        """Tells what a database knows; see the port."""
        with self._settled(database, seconds):
            return await self._participants.look_up(
                database, transaction_id, request_id=request_id, seconds=seconds
            )

    async def list(
        self, database: str, *, ended: bool, limit: int, seconds: float
    ) -> Sequence[Record]:
        """Gives the transactions of a database; see the port."""
        with self._settled(database, seconds):
            return await self._participants.list(
                database, ended=ended, limit=limit, seconds=seconds
            )

    async def hold_commits(
        self,
        database: str,
        holder: str,
        *,
        wait_seconds: float,
        lease_seconds: float,
        seconds: float,
    ) -> None:
        """Holds commits back; see the port."""
        with self._settled(database, seconds):
            await self._participants.hold_commits(
                database,
                holder,
                wait_seconds=wait_seconds,
                lease_seconds=lease_seconds,
                seconds=seconds,
            )

    async def release_commits(self, database: str, holder: str, *, seconds: float) -> bool:
        """Lets commits go on; see the port."""
        with self._settled(database, seconds):
            return await self._participants.release_commits(database, holder, seconds=seconds)

    @contextmanager
    def _settled(self, database: str, seconds: float) -> Iterator[None]:
        passage = self._breakers[database].admit()
        deadline = self._clock() + seconds
        try:
            yield
        except HubError as error:
            silent = seconds >= self._answer_seconds and self._clock() >= deadline
            passage.failed(error, silent=silent)
            raise
        else:
            passage.succeeded()
        finally:
            passage.withdraw()
