"""The channel to a hub: how it is opened, and what its failures mean."""

from typing import Final, cast

import grpc

from messagehub.errors import HubError, StorageUnavailable
from messagehub.status import DETAILS_TRAILER, from_rpc_error

__all__ = ["DEFAULT_TARGET", "MESSAGE_BYTES_MAX", "decode", "open_channel"]

DEFAULT_TARGET: Final = "127.0.0.1:50051"
# Far above what a hub sends or takes, so that it is the hub that refuses and names its limit.
MESSAGE_BYTES_MAX: Final = 128 * 1024 * 1024

# Several addresses behind one name share the calls. There is no retry policy: the client retries
# by itself, where it knows the request id and the error table.
_SERVICE_CONFIG: Final = '{"loadBalancingConfig": [{"round_robin": {}}]}'

# A server that closes its last connections cancels what reaches it at that moment. A caller that
# cancels by itself never sees this code, it sees asyncio's own exception.
_NOBODY_ANSWERED: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

# A dead peer is noticed within 40 seconds. While a hub is away, a new connection is tried at least
# every 2 seconds, so that no call fails for long after it came back.
_OPTIONS: Final = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_channelz", 0),
)


def open_channel(target: str, *, message_bytes_max: int = MESSAGE_BYTES_MAX) -> grpc.aio.Channel:
    """Opens a channel to `HOST:PORT`; it connects with its first call, and again when cut."""
    return grpc.aio.insecure_channel(
        target,
        options=[
            *_OPTIONS,
            ("grpc.max_send_message_length", message_bytes_max),
            ("grpc.max_receive_message_length", message_bytes_max),
        ],
    )


def decode(failure: grpc.aio.AioRpcError | grpc.Call, target: str) -> HubError:
    """Gives the error of a failed call, asynchronous or not.

    One that gRPC made because nobody answered at `target`, or because the hub ended meanwhile, is
    a `StorageUnavailable` whose metadata has the `target`.
    """
    answered = DETAILS_TRAILER in dict(failure.trailing_metadata() or ())
    if failure.code() in _NOBODY_ANSWERED and not answered:
        return StorageUnavailable(
            f"the hub at {target} cannot be reached: {failure.details()}",
            metadata={"target": target},
        )
    return from_rpc_error(cast("grpc.aio.AioRpcError", failure))
