"""Errors cross the wire whole, and stay small whatever is in them."""

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from messagehub import errors, status
from messagehub.errors import TABLE, HubError, Retry
from messagehub.status import DETAILS_BYTES_MAX


def every_kind() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)


@every_kind()
def test_an_error_comes_back_as_it_was(kind: type[HubError]) -> None:
    error = kind(
        "what happened: naïve ✓",
        retry_after=0.25,
        fields={"statement.query": "is empty", "database": "has no route"},
        metadata={"limit_bytes": "16777216", "constraint": "UNIQUE"},
    )
    back = status.from_status(
        status_pb2.Status.FromString(status.to_status(error).SerializeToString())
    )
    assert type(back) is kind
    assert back.message == error.message
    assert back.retry_after == error.retry_after
    assert back.fields == error.fields
    assert back.metadata == error.metadata


@every_kind()
def test_a_bare_error_carries_one_error_info_and_nothing_else(kind: type[HubError]) -> None:
    encoded = status.to_status(kind("x"))
    assert code_pb2.Code.Name(encoded.code) == TABLE[kind].code
    (detail,) = encoded.details
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (
        TABLE[kind].reason,
        "messagehub.v1",
        {},
    )
    back = status.from_status(encoded)
    assert (back.retry_after, back.fields, back.metadata) == (None, {}, {})


@every_kind()
def test_bad_fields_are_a_bad_request_and_bad_state_a_precondition(kind: type[HubError]) -> None:
    encoded = status.to_status(kind("x", fields={"database": "is wrong"}))
    bad = error_details_pb2.BadRequest()
    precondition = error_details_pb2.PreconditionFailure()
    if TABLE[kind].retry is Retry.AFTER_FIX:
        assert encoded.details[1].Unpack(precondition)
        (violation,) = precondition.violations
        assert (violation.type, violation.subject) == (TABLE[kind].reason, "database")
    else:
        assert encoded.details[1].Unpack(bad)
        assert bad.field_violations[0].field == "database"


ANY_TEXT = st.text(max_size=3000) | st.text(alphabet="\U0001f600\ud800\x00é", max_size=3000)


@given(
    kind=st.sampled_from(sorted(TABLE, key=lambda kind: kind.__name__)),
    message=ANY_TEXT,
    fields=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=12),
    values=st.lists(ANY_TEXT, max_size=8),
    cursor=ANY_TEXT,
    retry_after=st.none() | st.floats(min_value=0, max_value=1e9),
)
@example(
    kind=errors.InvalidRequest,
    message="é" * 10_000,
    fields={f"{n}" + "é" * 10_000: "é" * 10_000 for n in range(100)},
    values=["é" * 10_000] * 3,
    cursor="c" * 4000,
    retry_after=1e9,
)
def test_details_stay_below_4_kib_whatever_is_in_an_error(
    kind: type[HubError],
    message: str,
    fields: dict[str, str],
    values: list[str],
    cursor: str,
    retry_after: float | None,
) -> None:
    metadata = {f"fact_{number}": text for number, text in enumerate(values)}
    metadata = {"oldest_cursor": cursor} | metadata
    error = kind(message, retry_after=retry_after, fields=fields, metadata=metadata)
    ((trailer, encoded),) = status.trailers(error)
    assert trailer == "grpc-status-details-bin"
    assert len(encoded) <= DETAILS_BYTES_MAX
    back = status.from_status(status_pb2.Status.FromString(encoded))
    assert type(back) is kind
    whole = cursor.encode("utf-8", "replace").decode()
    assert back.metadata.get("oldest_cursor", whole) == whole, "a cut cursor is no cursor"


@pytest.mark.parametrize("kind", [errors.CursorExpired, errors.CursorEpochChanged])
def test_a_cursor_that_leaves_room_for_all_else_is_whole(kind: type[HubError]) -> None:
    error = kind("m" * 300, metadata={"database": "d" * 63, "oldest_cursor": "c" * 3300})
    encoded = status.to_status(error)
    assert encoded.ByteSize() <= DETAILS_BYTES_MAX
    assert status.from_status(encoded).metadata == error.metadata


def test_a_long_message_is_cut_between_characters_and_says_so() -> None:
    message = status.to_status(errors.InvalidStatement("é" * 5000)).message
    assert message.endswith("…")
    assert set(message[:-1]) == {"é"}
    assert len(message.encode()) <= status.MESSAGE_BYTES_MAX


def test_a_reason_of_a_newer_server_is_an_internal_error_with_its_text() -> None:
    newer = status_pb2.Status(code=code_pb2.ABORTED, message="what is this")
    newer.details.add().Pack(error_details_pb2.ErrorInfo(reason="FROM_THE_FUTURE"))
    back = status.from_status(newer)
    assert type(back) is errors.InternalError
    assert back.message == "what is this"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.StorageUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, errors.Cancelled),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.MessageTooLarge),
        (grpc.StatusCode.UNIMPLEMENTED, errors.NotBuiltYet),
        (grpc.StatusCode.UNKNOWN, errors.InternalError),
        (grpc.StatusCode.INTERNAL, errors.InternalError),
    ],
)
def test_a_failure_that_grpc_itself_made_has_a_class_too(
    code: grpc.StatusCode, kind: type[HubError]
) -> None:
    failure = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="gone")
    back = status.from_rpc_error(failure)
    assert type(back) is kind
    assert back.message == "gone"
