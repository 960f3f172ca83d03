"""What is checked in a subscription and in an event draft before anything else happens."""

from typing import Final

from hub.core.events import event_types
from hub.core.events.event_filter import EventFilter
from messagehub.errors import InvalidRequest, MessageTooLarge
from messagehub.v1.event_pb2 import EventDraft
from messagehub.v1.event_service_pb2 import SubscribeRequest

FILTER_VALUES_MAX: Final = 128
TEXT_CHARACTERS_MAX: Final = 128


def event_filter_of(request: SubscribeRequest) -> EventFilter:
    """Gives the filter of a subscription; raises `InvalidRequest` for one that cannot match."""
    for field, values in (
        ("event_types", request.event_types),
        ("sources", request.sources),
        ("databases", request.databases),
    ):
        if len(values) > FILTER_VALUES_MAX:
            what = f"has {len(values)} values, the limit is {FILTER_VALUES_MAX}"
            raise InvalidRequest(f"{field} {what}", fields={field: what})
    for index, pattern in enumerate(request.event_types):
        event_types.check_pattern(pattern, f"event_types[{index}]")
    for index, source in enumerate(request.sources):
        if not source:
            what = "is empty: leave sources out for any"
            raise InvalidRequest(f"sources[{index}] {what}", fields={f"sources[{index}]": what})
        _check_text(source, f"sources[{index}]")
    return EventFilter(request.event_types, request.sources, request.correlation_id)


def check_start(request: SubscribeRequest) -> None:
    """Raises `InvalidRequest` for a start that is named and then denied."""
    start = request.WhichOneof("start")
    if (start == "earliest" and not request.earliest) or (start == "latest" and not request.latest):
        raise InvalidRequest(
            f"{start} must be true where it is given: leave it out for another start",
            fields={start: "must be true where it is given"},
        )


def check_draft(draft: EventDraft, *, event_bytes_max: int) -> None:
    """Raises unless a service may publish the event."""
    event_types.check_published(draft.type)
    kind = draft.WhichOneof("data")
    if kind not in (None, "custom"):
        what = f"goes with the type storage.{kind} only: use custom"
        raise InvalidRequest(f"event.{kind} {what}", fields={f"event.{kind}": what})
    _check_text(draft.data_content_type, "event.data_content_type")
    if len(draft.custom) > event_bytes_max:
        raise MessageTooLarge(
            f"event.custom has {len(draft.custom)} bytes, the limit is {event_bytes_max}: "
            "publish a reference to the data, not the data",
            metadata={"limit_bytes": str(event_bytes_max)},
        )


def _check_text(text: str, field: str) -> None:
    if len(text) > TEXT_CHARACTERS_MAX or not text.isprintable():
        what = f"must be at most {TEXT_CHARACTERS_MAX} printable characters"
        raise InvalidRequest(f"{field} {what}", fields={field: what})
