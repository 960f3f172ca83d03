"""What a refused call says, read from the standard details as a stranger would read them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

DETAILS_TRAILER: Final = "grpc-status-details-bin"
DETAILS_BYTES_MAX: Final = 4096


class Refusal:
    """The code, the message and the details of one failed call."""

    code: str
    message: str
    reason: str
    domain: str
    metadata: dict[str, str]
    fields: dict[str, str]
    retry_seconds: float | None

    def read_call(self, failure: grpc.RpcError) -> None:
        """Fills in what a failed call answered; fails if the details break the contract."""
        call: Any = failure
        trailing = dict(call.trailing_metadata() or ())
        assert DETAILS_TRAILER in trailing, f"no details: {call.code()} {call.details()}"
        encoded = trailing[DETAILS_TRAILER]
        assert len(encoded) <= DETAILS_BYTES_MAX
        status = status_pb2.Status.FromString(encoded)
        self.read_status(status)
        assert call.code().value[0] == status.code
        assert call.details() == status.message

    def read_status(self, status: status_pb2.Status) -> None:
        """Fills in what a status says; each kind of detail may come once, `ErrorInfo` must."""
        kinds = [detail.type_url.rpartition(".")[2] for detail in status.details]
        assert kinds.count("ErrorInfo") == 1
        assert len(kinds) == len(set(kinds))
        self.code = next(c.name for c in grpc.StatusCode if c.value[0] == status.code)
        self.message = status.message
        self.fields = {}
        self.retry_seconds = None
        for detail in status.details:
            self._read_detail(detail)

    def _read_detail(self, detail: Any) -> None:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        precondition = error_details_pb2.PreconditionFailure()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            self.reason, self.domain = info.reason, info.domain
            self.metadata = dict(info.metadata)
        elif detail.Unpack(bad):
            self.fields = {v.field: v.description for v in bad.field_violations}
        elif detail.Unpack(precondition):
            self.fields = {v.subject: v.description for v in precondition.violations}
        elif detail.Unpack(retry):
            self.retry_seconds = retry.retry_delay.ToNanoseconds() / 1e9
        else:
            raise AssertionError(f"an unexpected kind of detail: {detail.type_url}")


@contextmanager
def refused(code: str, reason: str) -> Iterator[Refusal]:
    """Expects the block to be refused with this code and reason, and gives the refusal."""
    refusal = Refusal()
    with pytest.raises(grpc.RpcError) as caught:
        yield refusal
    refusal.read_call(caught.value)
    assert (refusal.code, refusal.reason) == (code, reason), refusal.message
    assert refusal.domain == "messagehub.v1"
    assert refusal.message


def refusal_of(status: status_pb2.Status) -> Refusal:
    """Reads the error of one operation of a batch."""
    refusal = Refusal()
    refusal.read_status(status)
    return refusal
