"""Named subscriptions between the wire and the core."""

from typing import Final

from messagehub.storage.v1 import storage_service_pb2 as wire
from storage.core.extent import Place
from storage.core.subscriptions import (
    Acknowledge,
    Delete,
    Edge,
    Hold,
    Open,
    Standing,
    Subscription,
)

MICROSECONDS_PER_MILLISECOND: Final = 1000


def opening(request: wire.OpenSubscriptionRequest) -> Open:
    """The beginning of a stream."""
    begin: Edge | Place = Edge.EARLIEST if request.earliest else Edge.LATEST
    if request.HasField("position"):
        begin = place(request.position)
    return Open(
        request.source_service,
        request.subscription,
        tuple(request.databases),
        begin,
        request.holder,
        request.consumer,
        request.lease_ms * MICROSECONDS_PER_MILLISECOND,
    )


def holdings(request: wire.HoldSubscriptionsRequest) -> list[Hold]:
    """The lives or the ends of streams."""
    lease_us = request.lease_ms * MICROSECONDS_PER_MILLISECOND
    return [
        Hold(hold.source_service, hold.subscription, hold.holder, lease_us)
        for hold in request.holds
    ]


def acknowledgement(request: wire.AcknowledgeSubscriptionRequest) -> Acknowledge:
    """What was handled."""
    return Acknowledge(request.source_service, request.subscription, place(request.position))


def deletion(request: wire.DeleteSubscriptionRequest) -> Delete:
    """What is not wanted any more."""
    return Delete(request.source_service, request.subscription)


def opened(kept: Subscription) -> wire.OpenSubscriptionResponse:
    """Where a stream goes on."""
    return wire.OpenSubscriptionResponse(
        position=wire.SubscriptionPosition(epoch=kept.place.epoch, sequence=kept.place.sequence),
        databases=kept.databases,
    )


def place(position: wire.SubscriptionPosition) -> Place:
    """A place in a journal."""
    return Place(position.epoch, position.sequence)


def state(standing: Standing) -> wire.SubscriptionState:
    """How a subscription stands, for the wire."""
    kept, journal = standing.kept, standing.journal
    left_us = kept.lease_left_us(journal.now_us)
    return wire.SubscriptionState(
        subscription=kept.name,
        databases=kept.databases,
        epoch=journal.epoch,
        sequence=kept.place.sequence,
        oldest_sequence=journal.oldest_sequence,
        newest_sequence=journal.newest_sequence,
        lag_us=standing.lag_us,
        acknowledged_us=kept.acknowledged_us,
        cut_off_us=kept.cut_off_us,
        consumer=kept.consumer if left_us else "",
        # Rounded up: a lease that still counts is never told as free.
        lease_ms=-(-left_us // MICROSECONDS_PER_MILLISECOND),
    )
