"""The life of a server's process: start, serve until SIGTERM or Ctrl-C, drain, stop."""

import asyncio
import logging
import signal
from collections.abc import Sequence
from typing import Final, Protocol

import grpc
from grpc_reflection.v1alpha import reflection

from messagehub.serving.drain import Drain
from messagehub.serving.interceptor import TRANSPORT_HEADROOM_BYTES, CallInterceptor
from messagehub.serving.supervision import follow_supervisor, tell_supervisor

_log = logging.getLogger(__name__)

# A second process on the same port must fail, not silently share the traffic
# (`grpc.so_reuseport` is 1 by default). The keepalive bounds let clients ping every 10 s, also when
# no call is under way; without them a server allows a ping every 5 minutes, and every 2 hours while
# there is none, and closes the connection with "too_many_pings" after a few more (grpc
# doc/keepalive.md).
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.enable_channelz", 0),
)


class Service(Protocol):
    """What `serve` runs."""

    @property
    def address(self) -> str:
        """Where it listens, once it has started."""

    async def start(self) -> None:
        """Begins to serve."""

    async def stop(self) -> None:
        """Drains and ends; bounded by the service's own limits."""


def make_server(
    *,
    message_bytes_max: int,
    default_timeout: float,
    concurrent_streams_max: int,
    drain: Drain | None = None,
) -> grpc.aio.Server:
    """A grpc.aio server with the interceptor and the limits that all our servers share.

    Every call belongs to `drain`, which is finished before the server is stopped.
    """
    transport_bytes_max = message_bytes_max + TRANSPORT_HEADROOM_BYTES
    return grpc.aio.server(
        interceptors=[
            CallInterceptor(
                message_bytes_max=message_bytes_max, default_timeout=default_timeout, drain=drain
            )
        ],
        options=[
            *_OPTIONS,
            ("grpc.max_receive_message_length", transport_bytes_max),
            ("grpc.max_send_message_length", transport_bytes_max),
            ("grpc.max_concurrent_streams", concurrent_streams_max),
        ],
    )


def bind(server: grpc.aio.Server, listen: str) -> str:
    """Binds `HOST:PORT` (port 0 = any free one) and gives the address that was bound."""
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as failure:
        raise OSError(f"cannot listen on {listen}: is the address in use?") from failure
    return f"{listen.rpartition(':')[0]}:{port}"


def enable_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Turns server reflection on, so that `buf curl` and grpcurl need no proto files."""
    reflection.enable_server_reflection([*services, reflection.SERVICE_NAME], server)


async def serve(service: Service) -> None:
    """Runs a service until SIGTERM or SIGINT, then stops it; a second signal changes nothing."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    follow_supervisor()
    await service.start()
    tell_supervisor(service.address)
    _log.info("serving", extra={"address": service.address})
    await ended.wait()
    _log.info("stopping")
    await service.stop()
    _log.info("stopped")
