"""Named subscriptions behind the circuits of their databases."""

from collections.abc import Sequence

from hub.core.circuits.guard import Guard
from hub.core.events.journal import Position
from hub.core.subscriptions.subscription_store import (
    Hold,
    Kept,
    Name,
    Opened,
    Opening,
    SubscriptionStore,
)
from messagehub.errors import HubError


class GuardedSubscriptions:
    """The port `SubscriptionStore` over another; also raises `CircuitOpen`.

    What changes nothing when it comes twice is sent again as other calls are.
    """

    def __init__(self, store: SubscriptionStore, guard: Guard) -> None:
        self._store = store
        self._guard = guard

    async def open(self, database: str, opening: Opening, *, seconds: float) -> Opened:
        """Begins a stream; see the port."""

        async def call(seconds: float) -> Opened:
            return await self._store.open(database, opening, seconds=seconds)

        return await self._guard.repeat(database, call, seconds)

    async def hold(
        self, database: str, holds: Sequence[Hold], *, lease_seconds: float, seconds: float
    ) -> Sequence[HubError | None]:
        """Prolongs leases, or gives them up; see the port."""

        async def call(seconds: float) -> Sequence[HubError | None]:
            return await self._store.hold(
                database, holds, lease_seconds=lease_seconds, seconds=seconds
            )

        return await self._guard.repeat(database, call, seconds)

    async def acknowledge(
        self, database: str, name: Name, position: Position, *, seconds: float
    ) -> None:
        """Moves the position on; see the port."""

        async def call(seconds: float) -> None:
            await self._store.acknowledge(database, name, position, seconds=seconds)

        await self._guard.repeat(database, call, seconds)

    async def find(self, database: str, service: str, name: str, *, seconds: float) -> list[Kept]:
        """Tells how subscriptions stand; see the port."""

        async def call(seconds: float) -> list[Kept]:
            return await self._store.find(database, service, name, seconds=seconds)

        return await self._guard.repeat(database, call, seconds)

    async def delete(self, database: str, name: Name, *, seconds: float) -> None:
        """Forgets a subscription; see the port. Never sent again: a second one finds nothing."""

        async def call(seconds: float) -> None:
            await self._store.delete(database, name, seconds=seconds)

        if isinstance(failure := await self._guard.once(database, call, seconds), HubError):
            raise failure
