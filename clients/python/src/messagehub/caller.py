"""What the parts of the client need of the whole: who calls, and how a call is made."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import grpc

from messagehub.errors import HubError
from messagehub.retries import may_retry

__all__ = ["Caller"]


class Caller(Protocol):
    """The client, for the classes that it is made of."""

    service: str

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel to the hub."""

    async def call(
        self,
        start: Callable[[float], Awaitable[Any]],
        *,
        timeout: float | None = None,
        again: Callable[[HubError], bool] = may_retry,
    ) -> Any:
        """Makes a call with deadline, retries and errors."""
