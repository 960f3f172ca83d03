"""Batches as messages on the wire, put together from the bytes that the journals gave.

A `SubscribeResponse` is its events, each after its tag and its length, and its cursor. The events
are bytes already: nothing is decoded, and fields that this hub does not know pass unchanged.
The encoding is that of protobuf.dev/programming-guides/encoding.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from hub.core.events.subscription import Batch
from messagehub.v1.event_service_pb2 import SubscribeResponse

LENGTH_DELIMITED: Final = 2
_EVENT_TAG: Final = SubscribeResponse.EVENTS_FIELD_NUMBER << 3 | LENGTH_DELIMITED
# Subscribers that keep up get the same batch right after one another.
KEPT_MAX: Final = 4


class EventMessages:
    """Encodes the messages of batches and keeps the last few, so that many get the same bytes."""

    def __init__(self) -> None:
        # By cursor and events. These are compared by identity, and the keys keep them alive.
        self._kept: OrderedDict[tuple[str, tuple[object, ...]], bytes] = OrderedDict()

    def encode(self, batch: Batch) -> bytes:
        """Gives the serialized `SubscribeResponse` of a batch."""
        if not batch.events:
            return SubscribeResponse(cursor=batch.cursor).SerializeToString()
        key = (batch.cursor, tuple(batch.events))
        message = self._kept.get(key)
        if message is None:
            message = self._kept[key] = b"".join(_pieces(batch))
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        return message


def _pieces(batch: Batch) -> Iterator[bytes]:
    for event in batch.events:
        yield _head(event.size)
        yield event.payload
    yield SubscribeResponse(cursor=batch.cursor).SerializeToString()


def _head(size: int) -> bytes:
    """The tag of an event and its length: seven bits a byte, the eighth says that more follow."""
    head = bytearray((_EVENT_TAG,))
    while size > 0x7F:  # noqa: PLR2004 - see above
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)
