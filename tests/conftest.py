"""The servers that tests share.

Two ways to a real hub with a real storage server behind it, both over gRPC on a free port:

- `grpc_stub` (pytest-grpc's fixtures): a synchronous generated stub, as a service without asyncio
  uses it. pytest-grpc can only start a synchronous server, so `grpc_server` and `grpc_addr` are
  replaced here: the servers run on a loop in a thread of their own.
- `hub_channel` and the stubs on it: `grpc.aio` on the session's loop, for streams and cancellation.

The servers live as long as the test module; a module that needs other settings overrides
`hub_settings` or `storage_settings`. Tests use tables of their own (`table`).
"""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio

from messagehub.v1 import (
    event_service_pb2_grpc,
    hub_service_pb2_grpc,
    storage_service_pb2_grpc,
    transaction_service_pb2_grpc,
)
from tests.support.leaks import LeakCheck
from tests.support.loop_thread import LoopThread

if TYPE_CHECKING:
    from tests.support.servers import Servers

# Above the hub's own limit, so that it is the hub that refuses.
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)

# Whoever runs the tests in the background may ignore Ctrl-C, and every process that a test starts
# would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    """Fails the module's teardown on pending tasks and on exceptions that nobody handled."""
    check = LeakCheck(asyncio.get_running_loop())
    yield
    await check.verify()


@pytest.fixture(scope="module")
def hub_settings() -> dict[str, Any]:
    return {}


@pytest.fixture(scope="module")
def storage_settings() -> dict[str, Any]:
    return {}


@pytest.fixture
def table() -> str:
    """A table name that no other test uses."""
    return f"t_{uuid.uuid4().hex}"


# Synchronous stubs: pytest-grpc's own fixtures give `grpc_stub`.


@pytest.fixture(scope="module")
def grpc_server(
    tmp_path_factory: pytest.TempPathFactory,
    hub_settings: dict[str, Any],
    storage_settings: dict[str, Any],
) -> Iterator["Servers"]:
    from tests.support.servers import running_servers  # unit tests need no server

    thread = LoopThread()
    try:
        servers = running_servers(
            tmp_path_factory.mktemp("servers"), hub=hub_settings, storage=storage_settings
        )
        started = thread.run(servers.__aenter__())
        try:
            yield started
        finally:
            thread.run(servers.__aexit__(None, None, None))
    finally:
        thread.close()


@pytest.fixture(scope="module")
def grpc_addr(grpc_server: "Servers") -> str:
    return grpc_server.hub.address


@pytest.fixture(scope="module")
def grpc_channel(grpc_create_channel: Any) -> Iterator[grpc.Channel]:
    with grpc_create_channel(options=CHANNEL_OPTIONS) as channel:
        yield channel


@pytest.fixture(scope="module")
def grpc_stub_cls() -> Any:
    return storage_service_pb2_grpc.StorageServiceStub


# Asynchronous stubs on the session's loop.


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def servers(
    tmp_path_factory: pytest.TempPathFactory,
    hub_settings: dict[str, Any],
    storage_settings: dict[str, Any],
) -> AsyncIterator["Servers"]:
    from tests.support.servers import running_servers  # unit tests need no server

    directory = tmp_path_factory.mktemp("servers")
    async with running_servers(directory, hub=hub_settings, storage=storage_settings) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hub_channel(servers: "Servers") -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(servers.hub.address, options=CHANNEL_OPTIONS) as channel:
        yield channel


@pytest.fixture(scope="module")
def storage_stub(hub_channel: grpc.aio.Channel) -> Any:
    return storage_service_pb2_grpc.StorageServiceStub(hub_channel)


@pytest.fixture(scope="module")
def transaction_stub(hub_channel: grpc.aio.Channel) -> Any:
    return transaction_service_pb2_grpc.TransactionServiceStub(hub_channel)


@pytest.fixture(scope="module")
def transactions(transaction_stub: Any, storage_stub: Any) -> Any:
    """The transactions of the service `character`."""
    from tests.support.transaction_calls import TransactionCalls

    return TransactionCalls(transaction_stub, storage_stub)


@pytest.fixture(scope="module")
def event_stub(hub_channel: grpc.aio.Channel) -> Any:
    return event_service_pb2_grpc.EventServiceStub(hub_channel)


@pytest.fixture(scope="module")
def hub_stub(hub_channel: grpc.aio.Channel) -> Any:
    return hub_service_pb2_grpc.HubServiceStub(hub_channel)
