"""The part of the composition root that connects to the storage servers."""

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hub.adapters.backups import StorageBackups
from hub.adapters.exchange import Exchange
from hub.adapters.failover_events import FailoverEvents
from hub.adapters.participants import StorageParticipants
from hub.adapters.storage_gateway import StorageGateway, open_channel
from hub.adapters.subscriptions import StorageSubscriptions
from hub.adapters.tail import StorageJournal
from hub.config import HubConfig
from hub.core.announcements import Announcements
from hub.core.backoff import Backoff
from hub.core.routing.placed import (
    Placed,
    PlacedCalls,
    PlacedJournal,
    PlacedParticipants,
    PlacedSubscriptions,
    StorageServer,
)
from hub.core.routing.placement import Placement
from hub.core.status import StatusBoard

if TYPE_CHECKING:
    import grpc


class StorageConnections:
    """One connection to each storage server, between `start` and `stop`.

    `operations_of`, `calls`, `journal`, `subscriptions` and `participants` go to the one that has
    the database at the moment; the status board learns which that is and how it stands.
    """

    def __init__(self, config: HubConfig, *, databases: Sequence[str], status: StatusBoard) -> None:
        self._config = config
        self._placement = Placement(
            {name: config.servers_of(name) for name in databases}, show=status.show
        )
        self._gateways: list[StorageGateway] = []
        self._channels: dict[str, grpc.aio.Channel] = {}
        servers = {address: self._connection(address) for address in self._placement.addresses}
        placed = Placed(self._placement, servers)
        self.operations_of = placed.operations
        self.calls = PlacedCalls(placed)
        self.journal = PlacedJournal(placed)
        self.subscriptions = PlacedSubscriptions(placed)
        self.participants = PlacedParticipants(placed)
        self.backups = StorageBackups(
            self._placement,
            self._channels,
            work_seconds=config.backup_seconds_max,
            answer_seconds=config.storage_answer_seconds,
            retry_seconds=config.reconnect_seconds_max,
        )

    def announce_to(self, announcements: Announcements) -> None:
        """From now on, every failover becomes an event in its database's journal."""
        self._placement.listen(FailoverEvents(announcements).tell)

    def start(self) -> None:
        """Begins to connect, and to connect again, until `stop`."""
        for gateway in self._gateways:
            gateway.start()

    async def stop(self) -> None:
        """Ends every session and closes the channels."""
        await asyncio.gather(*(gateway.stop() for gateway in self._gateways))

    def _connection(self, address: str) -> StorageServer:
        config = self._config
        channel = self._channels[address] = open_channel(config, address)
        exchange = Exchange(config)
        gateway = StorageGateway(
            config,
            channel,
            address=address,
            exchange=exchange,
            placement=self._placement,
            backoff=Backoff(
                seconds_min=config.reconnect_seconds_min,
                seconds_max=config.reconnect_seconds_max,
                random=random.random,
            ),
        )
        self._gateways.append(gateway)
        return StorageServer(
            exchange,
            gateway,
            StorageJournal(
                channel,
                silence_seconds_max=config.tail_silence_seconds_max,
                retry_seconds=config.reconnect_seconds_max,
            ),
            StorageSubscriptions(channel, retry_seconds=config.reconnect_seconds_max),
            StorageParticipants(channel, retry_seconds=config.reconnect_seconds_max),
        )
