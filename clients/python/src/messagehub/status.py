"""`HubError` to `google.rpc.Status` and back, by the table in `messagehub.errors`.

The servers and the client use the same two functions. gRPC sends the details in a trailer, and
refuses trailers over a soft limit of 8 KiB at random (`grpc.max_metadata_size`), so everything
here is cut to stay below 4 KiB, or left out where half of it would be worth nothing.
"""

from typing import Final, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from messagehub.errors import (
    BY_REASON,
    Cancelled,
    DeadlineExceeded,
    HubError,
    InternalError,
    MessageTooLarge,
    NotBuiltYet,
    Retry,
    StorageUnavailable,
)

DOMAIN: Final = "messagehub.v1"
DETAILS_TRAILER: Final = "grpc-status-details-bin"
MESSAGE_BYTES_MAX: Final = 1024
VALUE_BYTES_MAX: Final = 256
KEY_BYTES_MAX: Final = 64
FIELDS_MAX: Final = 3
METADATA_MAX: Final = 4
DETAILS_BYTES_MAX: Final = 4096
# A cursor over many databases is long, and a cut cursor is no cursor: it gets what room is left
# beside all else, or is left out.
WHOLE_VALUES: Final = frozenset({"oldest_cursor"})
# What tags and lengths of protobuf add to one entry of metadata, at most.
ENTRY_BYTES: Final = 32

# What a status without our details means: it was made by gRPC itself, on the way or at the far end.
_BARE_CODES: Final = {
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: StorageUnavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: MessageTooLarge,
    grpc.StatusCode.UNIMPLEMENTED: NotBuiltYet,
}


def _cut(text: str, limit_bytes: int) -> str:
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    return encoded[: limit_bytes - 3].decode("utf-8", "ignore") + "…"


def to_status(error: HubError) -> status_pb2.Status:
    """Encodes an error: its code, its message and at most 4 KiB of details."""
    status = status_pb2.Status(
        code=code_pb2.Code.Value(error.code), message=_cut(error.message, MESSAGE_BYTES_MAX)
    )
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    metadata = list(error.metadata.items())[:METADATA_MAX]
    for key, value in metadata:
        if key not in WHOLE_VALUES:
            info.metadata[_cut(key, KEY_BYTES_MAX)] = _cut(value, VALUE_BYTES_MAX)
    status.details.add().Pack(info)
    _add_details(status, error)
    for key, value in metadata:
        whole = value.encode("utf-8", "replace")
        room = DETAILS_BYTES_MAX - status.ByteSize() - len(key) - ENTRY_BYTES
        if key in WHOLE_VALUES and len(whole) <= room:
            info.metadata[key] = whole.decode()
            status.details[0].Pack(info)
    return status


def _add_details(status: status_pb2.Status, error: HubError) -> None:
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(max(0, round(error.retry_after * 1000)))
        status.details.add().Pack(retry)
    shown = list(error.fields.items())[:FIELDS_MAX]
    if shown and error.retry is Retry.AFTER_FIX:
        precondition = error_details_pb2.PreconditionFailure()
        for subject, description in shown:
            precondition.violations.add(
                type=error.reason,
                subject=_cut(subject, VALUE_BYTES_MAX),
                description=_cut(description, VALUE_BYTES_MAX),
            )
        status.details.add().Pack(precondition)
    elif shown:
        bad = error_details_pb2.BadRequest()
        for field, description in shown:
            bad.field_violations.add(
                field=_cut(field, VALUE_BYTES_MAX), description=_cut(description, VALUE_BYTES_MAX)
            )
        status.details.add().Pack(bad)


def _read_detail(error: HubError, detail: AnyMessage) -> None:
    retry = error_details_pb2.RetryInfo()
    bad = error_details_pb2.BadRequest()
    precondition = error_details_pb2.PreconditionFailure()
    if detail.Unpack(retry):
        error.retry_after = retry.retry_delay.ToMilliseconds() / 1000
    elif detail.Unpack(bad):
        error.fields |= {v.field: v.description for v in bad.field_violations}
    elif detail.Unpack(precondition):
        error.fields |= {v.subject: v.description for v in precondition.violations}


def from_status(status: status_pb2.Status) -> HubError:
    """Decodes a status; one with a reason that this client does not know is an `InternalError`."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            break
    error = BY_REASON.get(info.reason, InternalError)(status.message, metadata=info.metadata)
    for detail in status.details:
        _read_detail(error, detail)
    return error


def from_rpc_error(failure: grpc.aio.AioRpcError) -> HubError:
    """Decodes a failed call, also one that gRPC itself refused or cut."""
    status = rpc_status.from_call(cast("grpc.Call", failure))
    if status is not None:
        return from_status(status)
    kind = _BARE_CODES.get(failure.code(), InternalError)
    return kind(failure.details() or f"the call failed with {failure.code().name}")


def trailers(error: HubError) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata that carries the details of an error."""
    return ((DETAILS_TRAILER, to_status(error).SerializeToString()),)
