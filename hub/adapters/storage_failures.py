"""What a failed call to a storage server means."""

from typing import Final

import grpc

from messagehub.errors import Cancelled, HubError, InternalError, StorageUnavailable
from messagehub.status import DETAILS_TRAILER, from_rpc_error

_BROKEN: Final = (StorageUnavailable, InternalError, Cancelled)


def decoded(failure: grpc.aio.AioRpcError, *, retry_seconds: float) -> HubError:
    """Gives the error of a storage server, or `StorageUnavailable` for a broken connection."""
    error = from_rpc_error(failure)
    # The storage server always sends details. A status without any was made by gRPC itself;
    # INTERNAL is what a write gets when its stream breaks under it, CANCELLED what a call gets
    # that reaches a server as it closes its last connections.
    bare = DETAILS_TRAILER not in (failure.trailing_metadata() or ())
    if bare and isinstance(error, _BROKEN):
        return StorageUnavailable(
            f"the connection to the storage server broke: call again ({error.message})",
            retry_after=retry_seconds,
        )
    return error
