"""What happens around every unary call, once, in one order.

From the outside in, each with what breaks without it there:

1. context: the call's ids and deadline, first, because everything inside reads them;
2. the log line: outside the errors, so that it has the code that was answered;
3. errors: inside the log line and outside the rest, so that whatever fails inside has one way out. Bytes that are no
   message come here too: grpc.aio would answer them with the decoder's exception;
4. the deadline: a call without one gets the service's, so that nothing runs for ever;
5. access: before validation, so that strangers learn nothing about what would be valid;
6. validation: last, so that a servicer sees only requests that keep the contract.

They are folded into one wrapper, made once for each method: three interceptors that wrap each call cost 7 µs a call.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
import structlog
from grpc import aio
from typing_extensions import override

from chassis.context import Call, enter
from chassis.errors import DeadlineExceeded, DomainError, MalformedRequest
from chassis.interceptors.errors import reject
from chassis.interceptors.validation import require_valid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from google.protobuf.message import Message

    from chassis.interceptors.access import AccessControl

    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = aio.ServicerContext[Any, Any]

log = structlog.get_logger(__name__)


# The edge's limit for a body. Decoding takes several times a message's size in memory.
MAX_REQUEST_BYTES: Final = 10 * 1024 * 1024


class Interceptors(aio.ServerInterceptor):
    """The wrapper around every unary method. Of streams (health, reflection) only the peer is checked.

    Args:
        access: decides who may call what.
        max_call_s: what a call may take when its caller names no deadline.
    """

    def __init__(self, access: AccessControl, *, max_call_s: float) -> None:
        self._access = access
        self._max_call_s = max_call_s
        self._wrapped: dict[str, Handler] = {}

    @override
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        wrap = self._wrap if handler.unary_unary else self._wrap_stream
        self._wrapped[method] = wrapped = wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        # grpcio's types know only sync servicers here.
        behaviour = cast("Callable[[Message, Context], Awaitable[Message]]", handler.unary_unary)
        decode = cast("Callable[[bytes], Message]", handler.request_deserializer)
        max_call_s = self._max_call_s
        admit = self._access.admission_to(method)

        def safely_decoded(data: bytes) -> Message | DomainError:
            if len(data) > MAX_REQUEST_BYTES:
                return MalformedRequest(f"The request is over {MAX_REQUEST_BYTES} bytes as a message. Send less.")
            try:
                return decode(data)
            except Exception:  # noqa: BLE001  the decoder's exceptions are its own; all mean the same
                return MalformedRequest()

        async def answer(request: Message | DomainError, context: Context) -> Message:
            started = time.monotonic()
            call = _call_of(method, context, started=started, max_call_s=max_call_s)
            enter(call)
            try:
                async with asyncio.timeout(call.time_left_s()):
                    await admit(call, context)
                    if isinstance(request, DomainError):
                        raise request  # noqa: TRY301  the way out of every error is one
                    require_valid(request)
                    return await behaviour(request, context)
            except asyncio.CancelledError:
                call.code = "CANCELLED"
                raise
            except TimeoutError:
                await reject(DeadlineExceeded(), context, call)
            except Exception as error:  # noqa: BLE001  nothing may leave but what reject() answers
                await reject(error, context, call)
            finally:
                _log_line(call, duration_s=time.monotonic() - started)

        return grpc.unary_unary_rpc_method_handler(answer, safely_decoded, handler.response_serializer)

    def _wrap_stream(self, method: str, handler: Handler) -> Handler:
        # grpcio's types know only sync servicers here.
        behaviour: Any = handler.unary_stream or handler.stream_stream

        async def require_allowed_peer(context: Context) -> None:
            try:
                self._access.require_allowed_peer(context)
            except DomainError as error:
                await reject(error, context, Call(method=method, deadline=0))

        async def watch(request: Any, context: Any) -> Any:
            await require_allowed_peer(context)
            await behaviour(request, context)

        async def converse(requests: Any, context: Any) -> Any:
            await require_allowed_peer(context)
            async for answer in behaviour(requests, context):
                yield answer

        decode, encode = handler.request_deserializer, handler.response_serializer
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(watch, decode, encode)
        return grpc.stream_stream_rpc_method_handler(converse, decode, encode)


def _call_of(method: str, context: Context, *, started: float, max_call_s: float) -> Call:
    metadata = dict(cast("Iterable[tuple[str, str | bytes]]", context.invocation_metadata() or ()))
    # None when the caller named no deadline, whatever grpcio's types say.
    time_left_s = cast("float | None", context.time_remaining())
    return Call(
        method=method,
        deadline=started + (max_call_s if time_left_s is None else min(time_left_s, max_call_s)),
        request_id=str(metadata.get("x-request-id", "")),
        idempotency_key=str(metadata.get("idempotency-key", "")),
        traceparent=str(metadata.get("traceparent", "")),
        authorization=str(metadata.get("authorization", "")),
    )


def _log_line(call: Call, *, duration_s: float) -> None:
    fields: dict[str, object] = {"method": call.method, "code": call.code}
    if call.caller.subject:
        fields["caller"] = call.caller.subject
    if call.reason:
        fields["reason"] = call.reason
    # Every replica is asked for its health once a second: that would be most of the log.
    write = log.debug if call.method.startswith("/grpc.health.") else log.info
    write("rpc.handled", **fields, duration_ms=round(duration_s * 1000, 3))
