"""Events as CloudEvents 1.0 in their JSON format, as a dict, and back.

Attributes map by name: `id`, `source`, `type`, `subject`, `time` and `datacontenttype`; the
extensions are `correlationid`, `transactionid` and `sequence` (text, as CloudEvents integers
have 32 bits only). What is empty in the event is absent.

A typed payload becomes its protobuf JSON, of `application/json`. The bytes that a service
published become JSON where `datacontenttype` says that they are JSON, text where it says text,
and base64 otherwise or where they are not what it says. On the way back everything is as it was,
except for white space, escapes and number notation inside of published JSON.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

import google.rpc.error_details_pb2  # noqa: F401 - protobuf JSON finds error details by name
from google.protobuf import json_format

from messagehub.errors import InvalidRequest
from messagehub.v1.event_pb2 import Event

__all__ = ["from_cloudevent", "to_cloudevent"]

SPECIFICATION_VERSION: Final = "1.0"
PROTOBUF: Final = "application/protobuf"
JSON: Final = "application/json"

# The attributes of text, and the fields of an event that hold them.
_TEXTS: Final = {
    "id": "id",
    "source": "source",
    "type": "type",
    "subject": "subject",
    "correlationid": "correlation_id",
    "transactionid": "transaction_id",
}
_REQUIRED: Final = ("id", "source", "type")
_KNOWN: Final = {
    *_TEXTS,
    *("specversion", "time", "sequence", "datacontenttype", "data", "data_base64"),
}
# Which field holds the payload of a type of the hub.
_TYPED: Final = {
    "storage.operation_completed": "operation_completed",
    "storage.operation_failed": "operation_failed",
    "storage.operation_request": "operation_request",
    "storage.schema_updated": "schema_updated",
    "storage.schema_request": "schema_request",
    "schema.update_requested": "schema_updated",
    "schema.update_started": "schema_updated",
    "schema.update_completed": "schema_updated",
    "schema.update_failed": "schema_updated",
    "storage.backup_completed": "backup_finished",
    "storage.backup_failed": "backup_finished",
    "storage.backup_request": "backup_request",
    "storage.circuit_opened": "circuit_changed",
    "storage.circuit_half_opened": "circuit_changed",
    "storage.circuit_closed": "circuit_changed",
    "storage.failed_over": "failed_over",
    "transaction.committed": "transaction_finished",
    "transaction.rolled_back": "transaction_finished",
}
_CUSTOM: Final = "custom"


def to_cloudevent(event: Event) -> dict[str, Any]:
    """Gives the CloudEvent of an event, ready for `json.dumps`."""
    cloudevent: dict[str, Any] = {"specversion": SPECIFICATION_VERSION}
    for attribute, field in _TEXTS.items():
        if text := getattr(event, field):
            cloudevent[attribute] = text
    if event.HasField("time"):
        cloudevent["time"] = event.time.ToJsonString()
    if event.sequence:
        cloudevent["sequence"] = str(event.sequence)
    kind = event.WhichOneof("data")
    if kind == _CUSTOM or kind is None:
        if event.data_content_type:
            cloudevent["datacontenttype"] = event.data_content_type
        if kind is not None:
            cloudevent |= _published(event.custom, event.data_content_type)
    else:
        cloudevent |= _typed(getattr(event, kind))
    return cloudevent


def from_cloudevent(cloudevent: Mapping[str, Any]) -> Event:
    """Gives the event of a CloudEvent; raises `InvalidRequest` for one that no event can hold."""
    _check(cloudevent)
    event = Event(**{field: cloudevent.get(name, "") for name, field in _TEXTS.items()})
    if "time" in cloudevent:
        try:
            event.time.FromJsonString(cloudevent["time"])
        except (ValueError, AttributeError, TypeError) as failure:
            raise _invalid("time", "is not a time as in RFC 3339") from failure
    if "sequence" in cloudevent:
        event.sequence = _sequence(cloudevent["sequence"])
    event.data_content_type = cloudevent.get("datacontenttype", "")
    if "data" in cloudevent or "data_base64" in cloudevent:
        field = _TYPED.get(event.type)
        if field is None:
            event.custom = _bytes(cloudevent, event.data_content_type)
        else:
            _read_typed(getattr(event, field), cloudevent)
            event.data_content_type = PROTOBUF
    return event


def _typed(payload: Any) -> dict[str, Any]:
    try:
        data = json_format.MessageToDict(payload)
    except TypeError:  # an error detail of a type that this process does not know
        encoded = base64.b64encode(payload.SerializeToString()).decode()
        return {"datacontenttype": PROTOBUF, "data_base64": encoded}
    return {"datacontenttype": JSON, "data": data}


def _read_typed(payload: Any, cloudevent: Mapping[str, Any]) -> None:
    payload.SetInParent()
    try:
        if "data_base64" in cloudevent:
            payload.ParseFromString(_decoded(cloudevent["data_base64"]))
        else:
            json_format.ParseDict(cloudevent["data"], payload)
    except (json_format.ParseError, TypeError, ValueError) as failure:
        name = payload.DESCRIPTOR.full_name
        raise _invalid("data", f"is not the {name} that its type asks for") from failure


def _published(content: bytes, content_type: str) -> dict[str, Any]:
    try:
        if _is_json(content_type):
            return {"data": json.loads(content, parse_constant=_refuse_constant)}
        if content_type.startswith("text/"):
            return {"data": content.decode()}
    except (ValueError, RecursionError):  # not what its type says; base64 carries anything
        pass
    return {"data_base64": base64.b64encode(content).decode()}


def _bytes(cloudevent: Mapping[str, Any], content_type: str) -> bytes:
    if "data_base64" in cloudevent:
        return _decoded(cloudevent["data_base64"])
    data = cloudevent["data"]
    # Without a content type, the JSON format says that data is JSON.
    if not content_type or _is_json(content_type):
        try:
            return json.dumps(data, allow_nan=False, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as failure:
            raise _invalid("data", "cannot be written as JSON") from failure
    if not isinstance(data, str):
        raise _invalid("data", "must be text where datacontenttype is not JSON")
    return data.encode()


def _check(cloudevent: Mapping[str, Any]) -> None:
    if cloudevent.get("specversion") != SPECIFICATION_VERSION:
        raise _invalid("specversion", f"must be {SPECIFICATION_VERSION}")
    for name in _REQUIRED:
        if not cloudevent.get(name):
            raise _invalid(name, "is required")
    for name, value in cloudevent.items():
        if name not in _KNOWN:
            raise _invalid(name, "has no place in an event of the hub: leave it out")
        if (name in _TEXTS or name == "datacontenttype") and not isinstance(value, str):
            raise _invalid(name, "must be text")
    if "data" in cloudevent and "data_base64" in cloudevent:
        raise _invalid("data_base64", "must not be given together with data")


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == JSON or media_type.endswith("+json")


def _sequence(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        number = int(value[:20])
        if number < 1 << 63:
            return number
    raise _invalid("sequence", "must be the decimal text of a 64-bit number")


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as failure:
        raise _invalid("data_base64", "is not base64") from failure


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _invalid(attribute: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{attribute} {what}", fields={attribute: what})
