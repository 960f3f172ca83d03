"""Databases pinned at one moment for a backup, as consistent reads pin them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from hub.core.backups.ports import Cut
from hub.core.transactions.cuts import Cuts
from hub.core.transactions.surroundings import Surroundings
from hub.core.transactions.transaction import Header

SOURCE = "hub"


class PinnedCuts:
    """The port `Snapshots`; a cut that is not there after `seconds` fails with the conflict."""

    def __init__(self, surroundings: Surroundings, cuts: Cuts, *, seconds: float) -> None:
        self._around = surroundings
        self._cuts = cuts
        self._seconds = seconds

    @asynccontextmanager
    async def pinned(self, databases: Sequence[str], *, correlation_id: str) -> AsyncIterator[Cut]:
        """Pins a snapshot of each; see the port."""
        limits = self._around.limits

        def make_header() -> Header:
            return self._around.header(
                tuple(sorted(databases)),
                source_service=SOURCE,
                correlation_id=correlation_id,
                read_only=True,
                idle_seconds=limits.idle_seconds_max,
                seconds=limits.seconds_max,
            )

        header = await self._cuts.pin(make_header, deadline=self._around.clock() + self._seconds)
        try:
            yield Cut(header.transaction_id, header.create_time_us)
        finally:
            self._cuts.release(header)
