"""The hub and the storage server in this process, on free ports, over a data directory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from hub.config import HubConfig
from hub.server import HubServer
from storage.config import StorageConfig
from storage.server import StorageServer
from tests.support.health import wait_until_serving

ANY_PORT: Final = "127.0.0.1:0"


@dataclass(frozen=True)
class Servers:
    """Both servers, started and ready."""

    hub: HubServer
    storage: StorageServer
    data_dir: Path


@asynccontextmanager
async def running_servers(
    directory: Path,
    *,
    hub: dict[str, Any] | None = None,
    storage: dict[str, Any] | None = None,
) -> AsyncIterator[Servers]:
    """Starts both servers on the running loop and waits until the hub is ready.

    `hub` and `storage` override settings by their names in `HubConfig` and `StorageConfig`.
    """
    data_dir = directory / "data"
    storage_server = StorageServer(
        StorageConfig(listen=ANY_PORT, data_dir=str(data_dir), **(storage or {}))
    )
    await storage_server.start()
    try:
        # As by default, both in one directory.
        settings = {"data_dir": str(data_dir)} | (hub or {})
        async with running_hub(storage_server.address, **settings) as hub_server:
            yield Servers(hub_server, storage_server, data_dir)
    finally:
        await storage_server.stop()


@asynccontextmanager
async def running_hub(storage: str, **settings: Any) -> AsyncIterator[HubServer]:
    """Starts a hub on the running loop, for the storage server at an address.

    Without a `data_dir` it gets one of its own, which goes with it.
    """
    with TemporaryDirectory() as directory:
        config = {"listen": ANY_PORT, "data_dir": directory} | settings
        hub = HubServer(HubConfig(storage=storage, **config))
        await hub.start()
        try:
            await wait_until_serving(hub.address)
            yield hub
        finally:
            await hub.stop()
