"""Clients that ping while nothing is under way keep their connection."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from messagehub.serving import process
from messagehub.serving.health import LIVENESS, HealthBoard

# gRPC does not ping more often.
PINGS_EACH_MS = 1000
# A server that does not want them closes the connection after the third.
IDLE_SECONDS = 4.0
PINGING = (
    ("grpc.keepalive_time_ms", PINGS_EACH_MS),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


async def state_after_idleness() -> grpc.ChannelConnectivity:
    server = process.make_server(
        message_bytes_max=1024, default_timeout=1.0, concurrent_streams_max=10
    )
    health_pb2_grpc.add_HealthServicer_to_server(HealthBoard(), server)
    address = process.bind(server, "127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address, options=PINGING) as channel:
            await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=LIVENESS), wait_for_ready=True
            )
            await asyncio.sleep(IDLE_SECONDS)
            return channel.get_state()
    finally:
        await server.stop(None)


@pytest.fixture
def _often_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interval that a server allows, made as short as the one of the test's client."""
    options = dict(process._OPTIONS)
    options["grpc.http2.min_ping_interval_without_data_ms"] = PINGS_EACH_MS // 2
    monkeypatch.setattr(process, "_OPTIONS", tuple(options.items()))


@pytest.mark.usefixtures("_often_allowed")
async def test_an_idle_connection_that_is_kept_alive_stays() -> None:
    assert await state_after_idleness() is grpc.ChannelConnectivity.READY


async def test_the_intervals_of_the_channels_are_above_what_servers_allow() -> None:
    from hub.config import HubConfig
    from messagehub import channel

    allowed = dict(process._OPTIONS)["grpc.http2.min_ping_interval_without_data_ms"]
    assert dict(channel._OPTIONS)["grpc.keepalive_time_ms"] > allowed
    assert HubConfig().keepalive_seconds * 1000 > allowed
