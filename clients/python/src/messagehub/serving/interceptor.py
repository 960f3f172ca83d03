"""The first hop of every call on both servers.

It does, in this order: check the size of the message, decode it, give it a correlation id, bound
its time, run the behaviour, and map what goes wrong to one status of the closed table. Behaviours
raise `HubError`; nothing else reaches a caller, and no stack trace does.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message

from messagehub.errors import (
    DeadlineExceeded,
    HubError,
    InternalError,
    InvalidRequest,
    MessageTooLarge,
    NotBuiltYet,
)
from messagehub.serving import logs
from messagehub.serving.drain import Drain
from messagehub.status import to_status, trailers

CORRELATION_ID_CHARACTERS_MAX: Final = 128
# Requests whose correlation id selects what they want to see; they are named for the log only.
FILTERED_BY_CORRELATION_ID: Final = frozenset({"messagehub.v1.SubscribeRequest"})
# gRPC's own limit stands this far above ours, so that a message a little too large gets our
# answer, which names the limit, and not the transport's.
TRANSPORT_HEADROOM_BYTES: Final = 64 * 1024 * 1024
# A server that drains goes on answering its probes.
HEALTH_METHODS: Final = "/grpc.health.v1.Health/"

_log = logging.getLogger(__name__)
_deadline: ContextVar[float] = ContextVar("deadline")

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler  # generic in its stubs only
Context = grpc.aio.ServicerContext[Any, Any]


def time_left() -> float:
    """Seconds that the current call may still take; never negative."""
    return max(0.0, _deadline.get() - asyncio.get_running_loop().time())


def check_correlation_id(given: str) -> None:
    """Raises `InvalidRequest` for what nobody could follow through a log."""
    if len(given) > CORRELATION_ID_CHARACTERS_MAX or not given.isprintable():
        raise InvalidRequest(
            f"correlation_id must be at most {CORRELATION_ID_CHARACTERS_MAX} printable characters",
            fields={"correlation_id": f"has {len(given)} characters, or unprintable ones"},
        )


def _name_call(request: Message) -> None:
    if "correlation_id" not in request.DESCRIPTOR.fields_by_name:
        return
    given: str = request.correlation_id  # type: ignore[attr-defined]
    check_correlation_id(given)
    if request.DESCRIPTOR.full_name in FILTERED_BY_CORRELATION_ID:
        given = uuid.uuid4().hex
    elif not given:
        given = request.correlation_id = uuid.uuid4().hex  # type: ignore[attr-defined]
    logs.correlation_id.set(given)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server once.

    `message_bytes_max` bounds a request message. `default_timeout` (seconds) bounds a unary call
    whose caller set no deadline. Streams are bounded by their callers and by the server's `drain`,
    which every call but those of the health service belongs to.
    """

    def __init__(
        self, *, message_bytes_max: int, default_timeout: float, drain: Drain | None = None
    ) -> None:
        self._message_bytes_max = message_bytes_max
        self._default_timeout = default_timeout
        self._drain = drain or Drain()
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Gives the wrapped handler of the method."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        decode = handler.request_deserializer
        bound, bound_stream = self._drain.bound, self._drain.bound_stream
        if method.startswith(HEALTH_METHODS):
            bound = bound_stream = _unbound
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, decode, bound(handler.unary_unary)),
                None,
                handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, decode, bound_stream(handler.unary_stream)),
                None,
                handler.response_serializer,
            )
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(
                self._collect(method, decode, bound(handler.stream_unary)),
                None,
                handler.response_serializer,
            )
        return grpc.stream_stream_rpc_method_handler(
            self._stream(method, decode, bound_stream(handler.stream_stream), many=True),
            None,
            handler.response_serializer,
        )

    def _unary(self, method: str, decode: Any, behaviour: Any) -> Any:
        async def call(raw: bytes, context: Context) -> Any:
            try:
                request = self._decode(raw, decode)
                remaining = context.time_remaining()
                if remaining is not None:
                    self._set_deadline(remaining)
                    return await behaviour(request, context)
                self._set_deadline(self._default_timeout)
                async with asyncio.timeout(self._default_timeout):
                    return await behaviour(request, context)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception as failure:  # noqa: BLE001 - the one place where everything is mapped
                await self._refuse(method, context, failure)

        return call

    def _stream(self, method: str, decode: Any, behaviour: Any, *, many: bool = False) -> Any:
        async def call(raw: Any, context: Context) -> AsyncIterator[Any]:
            try:
                remaining = context.time_remaining()
                self._set_deadline(float("inf") if remaining is None else remaining)
                request = self._decode_all(raw, decode) if many else self._decode(raw, decode)
                async for response in behaviour(request, context):
                    yield response
            except (asyncio.CancelledError, GeneratorExit, grpc.aio.AbortError):
                raise
            except Exception as failure:  # noqa: BLE001 - the one place where everything is mapped
                await self._refuse(method, context, failure)

        return call

    def _collect(self, method: str, decode: Any, behaviour: Any) -> Any:
        async def call(raw: AsyncIterator[bytes], context: Context) -> Any:
            try:
                remaining = context.time_remaining()
                self._set_deadline(self._default_timeout if remaining is None else remaining)
                async with asyncio.timeout(time_left()):
                    return await behaviour(self._decode_all(raw, decode), context)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception as failure:  # noqa: BLE001 - the one place where everything is mapped
                await self._read_to_end(raw)
                await self._refuse(method, context, failure)

        return call

    @staticmethod
    async def _read_to_end(raw: AsyncIterator[bytes]) -> None:
        """A refusal that meets a caller who still sends reaches it as a bare INTERNAL of gRPC."""
        try:
            async with asyncio.timeout(time_left()):
                async for _ in raw:
                    pass
        except TimeoutError:
            _log.info("the caller went on sending after it was refused")

    def _set_deadline(self, seconds: float) -> None:
        _deadline.set(asyncio.get_running_loop().time() + seconds)

    async def _decode_all(self, raw: AsyncIterator[bytes], decode: Any) -> AsyncIterator[Any]:
        first = True
        async for message in raw:
            yield self._decode(message, decode, names_call=first)
            first = False

    def _decode(self, raw: bytes, decode: Any, *, names_call: bool = True) -> Any:
        if len(raw) > self._message_bytes_max:
            raise MessageTooLarge(
                f"the message has {len(raw)} bytes, the limit is {self._message_bytes_max}: "
                "send less in one call, or raise message_bytes_max",
                metadata={"limit_bytes": str(self._message_bytes_max)},
            )
        try:
            request = decode(raw)
        except DecodeError as failure:
            raise InvalidRequest(
                "the message is not a valid protobuf message of this method: check that client "
                "and server use the same contract"
            ) from failure
        if names_call:
            _name_call(request)
        return request

    async def _refuse(self, method: str, context: Context, failure: Exception) -> NoReturn:
        error = _as_hub_error(failure)
        if isinstance(error, InternalError):
            _log.exception("call failed", exc_info=failure, extra={"method": method})
        else:
            _log.info(
                "call refused",
                extra={"method": method, "reason": error.reason, "detail": error.message},
            )
        code = next(code for code in grpc.StatusCode if code.name == error.code)
        await context.abort(code, to_status(error).message, trailers(error))


def _unbound(behaviour: Any) -> Any:
    return behaviour


def _as_hub_error(failure: Exception) -> HubError:
    if isinstance(failure, HubError):
        return failure
    if isinstance(failure, TimeoutError):
        return DeadlineExceeded("the call took longer than it may: set a deadline that fits it")
    if isinstance(failure, NotImplementedError):
        return NotBuiltYet("this RPC is part of the contract but not built yet")
    return InternalError(
        "the server failed in a way that it should not: its log has the correlation id "
        f"{logs.correlation_id.get() or '(none)'}"
    )
