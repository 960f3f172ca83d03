"""Stands between the hub and a storage server, and loses answers: it was done, and nobody hears."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final, NoReturn, Self

import grpc

from messagehub.storage.v1.storage_service_pb2 import ExchangeResponse

_UNBOUNDED: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),
)
# What gRPC itself adds to a call.
_TRANSPORT: Final = ("grpc-", "user-agent", ":")


class LosingRelay(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC has no types for it
    """Passes every RPC on as bytes, both ways, until it is told to lose answers.

    An answer is lost when the storage server has given it: the caller sees its call break, as when
    a connection does, and nothing that says what became of it.
    """

    def __init__(self, target: str) -> None:
        self.address = ""
        self.lost: Counter[str] = Counter()
        self._to_lose: Counter[str] = Counter()
        self._target = target

    def lose(self, method: str, answers: int = 1) -> None:
        """Loses the next answers to a method, which is named without its service."""
        self._to_lose[method] += answers

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._target, options=_UNBOUNDED)
        self._server = grpc.aio.server(options=_UNBOUNDED)
        self._server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)
        await self._channel.close()

    def service(self, call: Any) -> Any:
        """Gives the handler of any method; on the wire a unary call is a stream of one message."""
        method: str = call.method

        async def carry(requests: Any, context: Any) -> AsyncIterator[bytes]:
            async for answer in self._carry(method, requests, context):
                yield answer

        return grpc.stream_stream_rpc_method_handler(carry)

    async def _carry(self, method: str, requests: Any, context: Any) -> AsyncIterator[bytes]:
        name = method.rpartition("/")[2]
        call = self._channel.stream_stream(method)(
            requests,
            timeout=context.time_remaining(),
            metadata=[
                (key, value)
                for key, value in context.invocation_metadata()
                if not key.startswith(_TRANSPORT)
            ],
        )
        try:
            async for answer in call:
                if self._is_lost(name, answer):
                    await self._break(context)
                yield answer
        except grpc.aio.AioRpcError as failure:
            await context.abort(
                failure.code(), failure.details() or "", tuple(failure.trailing_metadata() or ())
            )
        finally:
            call.cancel()

    def _is_lost(self, name: str, answer: bytes) -> bool:
        if not self._to_lose[name]:
            return False
        if name == "Exchange" and not ExchangeResponse.FromString(answer).outcomes:
            return False
        self._to_lose[name] -= 1
        self.lost[name] += 1
        return True

    @staticmethod
    async def _break(context: Any) -> NoReturn:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was reset")
        raise AssertionError("abort does not return")
