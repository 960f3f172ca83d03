"""How far the events of a named subscription were handled, and telling the hub so."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from messagehub.errors import InvalidRequest, SubscriptionNotFound
from messagehub.v1 import event_service_pb2

if TYPE_CHECKING:
    from messagehub.events import Event

__all__ = ["Acknowledgements", "Lag"]

_NOTHING: Final = ("", ())

Send: TypeAlias = Callable[[str, Iterable[str]], Awaitable[None]]
List: TypeAlias = Callable[[], Awaitable[event_service_pb2.ListSubscriptionsResponse]]


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a named subscription is behind: events that are not acknowledged, also those that a
    filter holds back, and how many seconds the oldest of them has been waiting.
    """

    events: int
    seconds: float


class Acknowledgements:
    """What of a stream was handed out and what of that the hub remembers; used by one stream.

    `automatic` says that the stream acknowledges by itself. A cursor stands between messages.
    Inside of one, the ids of events stand for what was handed out; the events of a transaction
    are acknowledged together with their message, because they must not be split.
    """

    def __init__(self, name: str, send: Send, ask: List, *, automatic: bool) -> None:
        if not name:
            raise InvalidRequest(
                "only a named subscription is acknowledged: give its name too",
                fields={"subscription": "is empty"},
            )
        self.name = name
        self.automatic = automatic
        self._send = send
        self._ask = ask
        self._inside: dict[str, str] = {}
        self._told: tuple[str, tuple[str, ...]] = _NOTHING

    def begin(self, cursor: str) -> None:
        """Takes the cursor that the stream began at: what is before it is not this stream's."""
        self._told = (cursor, ())

    def hand_out(self, event: "Event", *, ends_message: bool) -> None:
        """Takes an event that is handed out."""
        if ends_message:
            self._inside.clear()
        elif not event.transaction_id:
            self._inside[event.subject] = event.id

    async def tell(self, cursor: str) -> None:
        """Acknowledges what was handed out.

        `cursor` stands before it or right after; empty = before everything that there is.
        """
        handled = (cursor, tuple(self._inside.values()))
        if handled not in (_NOTHING, self._told):
            await self._send(*handled)
            self._told = handled

    async def lag(self) -> Lag:
        """Asks how far the subscription is behind."""
        for found in (await self._ask()).subscriptions:
            if found.subscription == self.name:
                return Lag(found.lag_events, found.lag_duration.ToMicroseconds() / 1_000_000)
        raise SubscriptionNotFound(f"the hub knows no subscription {self.name}")
