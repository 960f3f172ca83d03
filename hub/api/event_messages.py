"""Batches as messages on the wire, made once for all subscribers that get the same."""

from collections import OrderedDict
from typing import Final

from hub.core.events.subscription import Batch
from messagehub.v1.event_pb2 import Event
from messagehub.v1.event_service_pb2 import SubscribeResponse

# Subscribers that keep up get the same batch right after one another.
KEPT_MAX: Final = 4


class EventMessages:
    """Makes the messages of batches and keeps the last few."""

    def __init__(self) -> None:
        # By cursor and events. These are compared by identity, and the keys keep them alive.
        self._kept: OrderedDict[tuple[str, tuple[object, ...]], SubscribeResponse] = OrderedDict()

    def message(self, batch: Batch) -> SubscribeResponse:
        """Gives the message of a batch; nobody may change it."""
        if not batch.events:
            return SubscribeResponse(cursor=batch.cursor)
        key = (batch.cursor, tuple(batch.events))
        message = self._kept.get(key)
        if message is None:
            message = SubscribeResponse(
                events=[Event.FromString(event.payload) for event in batch.events],
                cursor=batch.cursor,
            )
            self._kept[key] = message
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        return message
