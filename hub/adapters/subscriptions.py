"""The named subscriptions of a storage server, behind the port of the core."""

from collections.abc import Awaitable, Sequence
from typing import Final, TypeVar

import grpc

from hub.core.events.journal import Position, Start
from hub.core.subscriptions.subscription_store import Hold, Kept, Name, Opened, Opening
from messagehub.errors import HubError, StorageUnavailable
from messagehub.serving import logs
from messagehub.status import from_rpc_error, from_status
from messagehub.storage.v1 import storage_service_pb2 as storage
from messagehub.storage.v1 import storage_service_pb2_grpc as storage_grpc

MILLISECONDS: Final = 1000
MICROSECONDS: Final = 1_000_000

Answer = TypeVar("Answer")


class StorageSubscriptions:
    """The port `SubscriptionStore` of `hub.core.subscriptions`, over one storage server.

    `retry_seconds` is what a caller is told to wait when the storage server cannot be reached.
    """

    def __init__(self, channel: grpc.aio.Channel, *, retry_seconds: float) -> None:
        self._stub = storage_grpc.StorageServiceStub(channel)
        self._retry_seconds = retry_seconds

    async def open(self, database: str, opening: Opening, *, seconds: float) -> Opened:
        """Begins a stream; see the port."""
        request = storage.OpenSubscriptionRequest(
            database=database,
            source_service=opening.name.service,
            correlation_id=logs.correlation_id.get(),
            subscription=opening.name.name,
            databases=opening.databases,
            holder=opening.holder,
            consumer=opening.consumer,
            lease_ms=_milliseconds(opening.lease_seconds),
        )
        if isinstance(opening.begin, Position):
            request.position.CopyFrom(_wire(opening.begin))
        elif opening.begin is Start.EARLIEST:
            request.earliest = True
        else:
            request.latest = True
        answer = await self._answer(self._stub.OpenSubscription(request, timeout=seconds))
        position = Position(answer.position.epoch, answer.position.sequence)
        return Opened(position, frozenset(answer.databases))

    async def hold(
        self, database: str, holds: Sequence[Hold], *, lease_seconds: float, seconds: float
    ) -> Sequence[HubError | None]:
        """Prolongs leases, or gives them up; see the port."""
        request = storage.HoldSubscriptionsRequest(
            database=database,
            correlation_id=logs.correlation_id.get(),
            holds=[
                storage.SubscriptionHold(
                    source_service=hold.name.service,
                    subscription=hold.name.name,
                    holder=hold.holder,
                )
                for hold in holds
            ],
            lease_ms=_milliseconds(lease_seconds),
        )
        answer = await self._answer(self._stub.HoldSubscriptions(request, timeout=seconds))
        return [from_status(outcome) if outcome.code else None for outcome in answer.outcomes]

    async def acknowledge(
        self, database: str, name: Name, position: Position, *, seconds: float
    ) -> None:
        """Moves the position on; see the port."""
        request = storage.AcknowledgeSubscriptionRequest(
            database=database,
            source_service=name.service,
            correlation_id=logs.correlation_id.get(),
            subscription=name.name,
            position=_wire(position),
        )
        await self._answer(self._stub.AcknowledgeSubscription(request, timeout=seconds))

    async def find(self, database: str, service: str, name: str, *, seconds: float) -> list[Kept]:
        """Tells how subscriptions stand; see the port."""
        request = storage.ListSubscriptionsRequest(
            database=database,
            source_service=service,
            correlation_id=logs.correlation_id.get(),
            subscription=name,
        )
        answer = await self._answer(self._stub.ListSubscriptions(request, timeout=seconds))
        return [_kept(state) for state in answer.states]

    async def delete(self, database: str, name: Name, *, seconds: float) -> None:
        """Forgets a subscription; see the port."""
        request = storage.DeleteSubscriptionRequest(
            database=database,
            source_service=name.service,
            correlation_id=logs.correlation_id.get(),
            subscription=name.name,
        )
        await self._answer(self._stub.DeleteSubscription(request, timeout=seconds))

    async def _answer(self, call: Awaitable[Answer]) -> Answer:
        try:
            return await call
        except grpc.aio.AioRpcError as failure:
            error = from_rpc_error(failure)
            if isinstance(error, StorageUnavailable) and error.retry_after is None:
                error.retry_after = self._retry_seconds
            raise error from failure


def _milliseconds(seconds: float) -> int:
    return round(seconds * MILLISECONDS)


def _wire(position: Position) -> storage.SubscriptionPosition:
    return storage.SubscriptionPosition(epoch=position.epoch, sequence=position.sequence)


def _kept(state: storage.SubscriptionState) -> Kept:
    return Kept(
        name=state.subscription,
        databases=frozenset(state.databases),
        position=Position(state.epoch, state.sequence),
        oldest_sequence=state.oldest_sequence,
        newest_sequence=state.newest_sequence,
        lag_seconds=state.lag_us / MICROSECONDS,
        acknowledged_us=state.acknowledged_us,
        cut_off_us=state.cut_off_us,
        consumer=state.consumer,
        lease_seconds=state.lease_ms / MILLISECONDS,
    )
