"""Client of the Message Hub.

    from messagehub import Hub

    async with Hub("127.0.0.1:50051", service="character") as hub:
        await hub.execute("INSERT INTO heroes (name) VALUES (?)", ["Ada"])

`messagehub.v1` holds the generated stubs; importing them does not import the client, because
`Hub` and its companions are looked up on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from messagehub.client import Hub, Result
    from messagehub.errors import HubError

__all__ = ["Hub", "HubError", "Result", "__version__"]
__version__ = "0.1.0"

_HOMES = {
    "Hub": "messagehub.client",
    "Result": "messagehub.client",
    "HubError": "messagehub.errors",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
