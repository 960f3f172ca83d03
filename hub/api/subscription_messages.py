"""Named subscriptions between the wire and the core."""

import re
from typing import Final

from hub.core.events import cursor
from hub.core.events.journal import Position
from hub.core.subscriptions.named_subscriptions import Summary
from hub.core.subscriptions.subscription_store import Name
from messagehub.errors import InvalidCursor, InvalidRequest
from messagehub.v1 import event_service_pb2 as messages

CONSUMER_CHARACTERS_MAX: Final = 128
EVENT_IDS_MAX: Final = 1_000

_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,62}").fullmatch
_EVENT_ID: Final = re.compile(r"([^/]+)/([^/]+)/([0-9]{1,18})").fullmatch


def name_of(source_service: str, subscription: str) -> Name:
    """Gives the name of a subscription; raises `InvalidRequest` for one that cannot be."""
    if not _NAME(subscription):
        what = "must be 1 to 63 characters of a-z, 0-9, '_', '.' and '-', beginning with a letter"
        raise InvalidRequest(f"subscription {what}", fields={"subscription": what})
    return Name(source_service, subscription)


def check_consumer(request: messages.SubscribeRequest) -> None:
    """Raises `InvalidRequest` for a consumer that cannot be, or that reads for no name."""
    consumer = request.consumer
    if len(consumer) > CONSUMER_CHARACTERS_MAX or not consumer.isprintable():
        what = f"must be at most {CONSUMER_CHARACTERS_MAX} printable characters"
    elif consumer and not request.subscription:
        what = "goes with a named subscription only: leave it empty, or name one"
    else:
        return
    raise InvalidRequest(f"consumer {what}", fields={"consumer": what})


def acknowledged(request: messages.AcknowledgeEventsRequest) -> dict[str, Position]:
    """Gives the positions that a cursor and event ids name together.

    Raises `InvalidRequest` or `InvalidCursor` for what names none.
    """
    if not request.cursor and not request.event_ids:
        what = "is required: a cursor of a SubscribeResponse, or the ids of events"
        raise InvalidRequest(f"cursor {what}", fields={"cursor": what})
    if len(request.event_ids) > EVENT_IDS_MAX:
        what = f"has {len(request.event_ids)} values, the limit is {EVENT_IDS_MAX}"
        raise InvalidRequest(f"event_ids {what}", fields={"event_ids": what})
    positions = cursor.decode(request.cursor) if request.cursor else {}
    for index, event_id in enumerate(request.event_ids):
        database, position = _place(event_id, f"event_ids[{index}]")
        known = positions.get(database, position)
        if known.epoch != position.epoch:
            what = f"is from another life of {database} than the rest"
            field = f"event_ids[{index}]"
            raise InvalidCursor(f"{field} {what}: leave it out", fields={field: what})
        positions[database] = max(known, position)
    return positions


def _place(event_id: str, field: str) -> tuple[str, Position]:
    parts = _EVENT_ID(event_id)
    if parts is None:
        what = "is not the id of an event of this hub"
        raise InvalidRequest(f"{field} {what}", fields={field: what})
    database, epoch, sequence = parts.groups()
    return database, Position(epoch, int(sequence))


def subscription_message(service: str, summary: Summary) -> messages.Subscription:
    """How a named subscription stands, for the wire."""
    message = messages.Subscription(
        subscription=summary.name,
        source_service=service,
        cursor=summary.cursor,
        lag_events=summary.lag_events,
        active=summary.active,
        databases=summary.databases,
        consumer=summary.consumer,
    )
    message.lag_duration.FromMicroseconds(round(summary.lag_seconds * 1_000_000))
    if summary.acknowledged_us:
        message.acknowledge_time.FromMicroseconds(summary.acknowledged_us)
    if summary.cut_off_us:
        message.cut_off_time.FromMicroseconds(summary.cut_off_us)
    return message
