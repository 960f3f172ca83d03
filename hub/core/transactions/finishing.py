"""Ends an interactive transaction, the home first: any other hub may be ending it too."""

from hub.core.transactions import standings
from hub.core.transactions.attempt import Attempt
from hub.core.transactions.endings import Endings
from hub.core.transactions.live_attempts import LiveAttempts
from hub.core.transactions.remembered import Remembered
from hub.core.transactions.states import Happening
from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.transaction import Header, Resolution, Standing, State
from messagehub.errors import HubError, StorageUnavailable


class Finishing:
    """Leads an attempt to the end that the home says, whatever this hub wanted."""

    def __init__(
        self,
        surroundings: Surroundings,
        endings: Endings,
        live: LiveAttempts,
        remembered: Remembered,
    ) -> None:
        self._around = surroundings
        self._endings = endings
        self._live = live
        self._remembered = remembered

    async def committed(self, attempt: Attempt, *, deadline: float) -> Standing:
        """The home has committed: the others are told, in the background if need be."""
        heard = self._live.tell(attempt, attempt.header.others, commit=True)
        await self._live.show(heard, deadline=deadline)
        return self._ended(attempt.header, State.COMMITTED, None)

    async def give_up(self, attempt: Attempt, error: HubError, *, deadline: float) -> Standing:
        """Rolls back, unless the home has committed; the answer says which it is.

        Raises `StorageUnavailable` if the home does not say. The parts then end by their limits, or
        by the resolver.
        """
        header = attempt.header
        try:
            resolved = await self._endings.resolve(
                Resolution(header.home, commit=False, header=header, error=error),
                unanswered=attempt.release_all,
            )
        except HubError as silence:
            self._live.forget(attempt)
            raise unknown(header) from silence
        ended = standings.end(resolved.record)
        if ended is None:
            self._live.forget(attempt)
            raise unknown(header)
        if ended.state is State.COMMITTED:
            attempt.happens(Happening.HOME_COMMITTED)
            return await self.committed(attempt, deadline=deadline)
        attempt.happens(Happening.HOME_ROLLED_BACK)
        self._live.tell(attempt, header.others, commit=False, error=error)
        return self._ended(header, State.ROLLED_BACK, resolved.record.error or error)

    def ended_reading(self, header: Header, state: State, error: HubError | None) -> Standing:
        """A transaction that only reads has ended; nothing is recorded anywhere."""
        return self._ended(header, state, error)

    def _ended(self, header: Header, state: State, error: HubError | None) -> Standing:
        ended = Standing(header, state, self._around.now_us(), error)
        self._remembered.keep(ended)
        return ended


def unknown(header: Header) -> StorageUnavailable:
    """Nobody knows for now how a transaction ended."""
    name = header.transaction_id
    return StorageUnavailable(
        f"the home of the transaction, {header.home}, did not say how it ended: ask "
        f"GetTransaction for {name}, or send the same call again",
        metadata={"transaction_id": name},
    )
