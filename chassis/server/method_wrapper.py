"""What happens around every unary call, once, in one order.

From the outside in, each with what breaks without it there:

1. context: the call's ids and deadline, first, because everything inside reads them;
2. telemetry: the log line, the metrics and, of a traced call, the span; outside the errors, so that they have the code
   that was answered;
3. errors: inside the telemetry and outside the rest, so that whatever fails inside has one way out;
4. the deadline: a call without one gets the service's, so that nothing runs for ever;
5. access: before the request is received, so that strangers learn nothing about what would be valid and a large message
   of theirs takes no memory;
6. the request: its size, its decoding, the number of its elements, its rules. A servicer sees only requests that keep
   the contract, and whatever a caller sends costs no more than a valid request;
7. of a call for a page, a place among the few that are made at a time: last, so that a call that will be refused takes
   none.

They are folded into one wrapper, made once for each method: three interceptors that wrap each call cost 7 µs a call.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
import structlog
from grpc import aio

from chassis.concurrency.limiter import CapacityLimiter
from chassis.context import Call, set_current_call
from chassis.errors import DeadlineExceeded, DomainError
from chassis.server import stream_wrapper
from chassis.server.receiving import Receiver
from chassis.server.status import reject
from chassis.telemetry import tracing
from chassis.telemetry.metrics import CallMetrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from google.protobuf.message import Message

    from chassis.auth.access import AccessControl

    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = aio.ServicerContext[Any, Any]
    Behaviour = Callable[[Message, Context], Awaitable[Message]]
    Handled = Callable[[Context, Call], Awaitable[Message]]

log = structlog.get_logger(__name__)

# Calls of one list method at a time, as many as the shared pool has connections. gRPC takes one new call per turn of
# the loop, and each page that is made lengthens the turns: with hundreds at once even refusing would take seconds.
LISTS_AT_ONCE: Final = 4
# Calls of one list method that wait. A large page takes some 10 ms of CPU, so a hundred are a second of work.
MAX_LISTS_WAITING: Final = 100
# After this time the edge asks another replica too.
MAX_LIST_WAIT_S: Final = 1.0


class MethodWrapper:
    """The wrapper around every method. Of streams that are gRPC's own (health, reflection) only the peer is checked.

    Not an interceptor as grpc.aio has them: those are asked at each call which handler to take, for 4 µs.

    Args:
        access: decides who may call what.
        max_call_s: what a call may take when its caller names no deadline.
        max_stream_s: how long a stream may last.
    """

    def __init__(self, access: AccessControl, *, max_call_s: float, max_stream_s: float) -> None:
        self._access = access
        self._max_call_s = max_call_s
        self._max_stream_s = max_stream_s

    def wrapped(self, method: str, handler: Handler) -> Handler:
        """Return the handler with all that happens around a call of it; `method` is `/package.Service/Method`."""
        if handler.unary_unary:
            return self._wrap(method, handler)
        return (
            self._wrap_foreign_stream(method, handler)
            if method.startswith("/grpc.")
            else self._wrap_stream(method, handler)
        )

    def _wrap(self, method: str, handler: Handler) -> Handler:
        # grpcio's types know only sync servicers here.
        behaviour = cast("Behaviour", handler.unary_unary)
        admit = self._access.admission_to(method)
        receiver = Receiver(handler)
        if receiver.is_list:
            limiter = CapacityLimiter(LISTS_AT_ONCE, max_waiting=MAX_LISTS_WAITING, max_wait_s=MAX_LIST_WAIT_S)
            behaviour = _limited(behaviour, limiter)

        async def handled(context: Context, call: Call) -> Message:
            await admit(call, context)
            request = await receiver.receive(context, if_match=call.if_match)
            return await behaviour(request, context)

        answer = self._observed(method, handled)
        return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)

    def _observed(self, method: str, handled: Handled) -> Callable[[object, Context], object]:
        max_call_s = self._max_call_s
        calls = CallMetrics(method)
        # Every replica is asked for its health once a second: that would be most of the log.
        write_line = log.debug if method.startswith("/grpc.health.") else log.info

        async def answer(_requests: object, context: Context) -> Message:
            started = time.monotonic()
            call = _call_of(method, context, started)
            # gRPC itself cancels a call at its caller's deadline: a timer of ours, 4 µs, is for who named none.
            ends_by_itself = call.deadline <= started + max_call_s
            call.deadline = min(call.deadline, started + max_call_s)
            set_current_call(call)
            span = tracing.enter_call(call) if tracing.is_sampled(call.traceparent) else None
            calls.active += 1
            try:
                if ends_by_itself:
                    return await handled(context, call)
                async with asyncio.timeout(max_call_s):
                    return await handled(context, call)
            except asyncio.CancelledError:
                call.code = "CANCELLED" if call.time_left_s() > 0 else "DEADLINE_EXCEEDED"
                raise
            except TimeoutError:
                await reject(DeadlineExceeded(), context, call)
            except Exception as error:  # noqa: BLE001  nothing may leave but what reject() answers
                await reject(error, context, call)
            finally:
                duration_s = time.monotonic() - started
                calls.active -= 1
                calls.ended(call.code, duration_s=duration_s, trace_id=call.traceparent[3:35] if span else "")
                if span:
                    tracing.end_call(span, call)
                write_line("rpc.handled", **_fields(call), duration_ms=round(duration_s * 1000, 3))

        return answer

    def _wrap_stream(self, method: str, handler: Handler) -> Handler:
        around = stream_wrapper.StreamPolicy(
            admit=self._access.admission_to(method),
            call_of=_call_of,
            fields=_fields,
            max_stream_s=self._max_stream_s,
        )
        received = self._received(handler)
        # It decodes nothing: what it is given has been received.
        served = stream_wrapper.wrapped(method, handler, _no_decoder, around=around)
        serve = cast("Callable[[Message | DomainError, Context], Awaitable[None]]", served.unary_stream)

        async def answer(_requests: object, context: Context) -> None:
            await serve(await received(context), context)

        return grpc.stream_stream_rpc_method_handler(answer, None, handler.response_serializer)

    def _received(self, handler: Handler) -> Callable[[Context], Awaitable[Message | DomainError]]:
        """Return what receives the request of a stream, or why it is refused. It waits as long as a call may take."""
        receiver = Receiver(handler)

        async def received(context: Context) -> Message | DomainError:
            try:
                async with asyncio.timeout(self._max_call_s):
                    return await receiver.receive(context)
            except TimeoutError:
                return DeadlineExceeded()
            except DomainError as error:
                return error

        return received

    def _wrap_foreign_stream(self, method: str, handler: Handler) -> Handler:
        async def require_allowed_peer(context: Context) -> None:
            try:
                self._access.require_allowed_peer(context)
            except DomainError as error:
                await reject(error, context, Call(method=method, deadline=0))

        if handler.stream_stream:
            converse: Any = handler.stream_stream

            async def answers(requests: Any, context: Any) -> Any:
                await require_allowed_peer(context)
                async for answer in converse(requests, context):
                    yield answer

            return grpc.stream_stream_rpc_method_handler(
                answers, handler.request_deserializer, handler.response_serializer
            )

        watch: Any = handler.unary_stream
        received = self._received(handler)

        async def answer(_requests: object, context: Context) -> None:
            await require_allowed_peer(context)
            request = await received(context)
            if isinstance(request, DomainError):
                await reject(request, context, Call(method=method, deadline=0))
            await watch(request, context)

        return grpc.stream_stream_rpc_method_handler(answer, None, handler.response_serializer)


class HandlerCollector:
    """What generated code adds servicers to, before they are wrapped and served."""

    def __init__(self) -> None:
        self._handlers: dict[str, Mapping[str, Handler]] = {}

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """Do nothing: generated code also registers each of these handlers by name."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """Remember the handlers of a service."""
        self._handlers[service_name] = method_handlers

    def serve_on(self, server: aio.Server, interceptors: MethodWrapper) -> None:
        """Have the server serve them all, wrapped."""
        for service, handlers in self._handlers.items():
            wrapped = {name: interceptors.wrapped(f"/{service}/{name}", each) for name, each in handlers.items()}
            server.add_registered_method_handlers(service, wrapped)


def _limited(behaviour: Behaviour, limiter: CapacityLimiter) -> Behaviour:
    async def limited(request: Message, context: Context) -> Message:
        async with limiter:
            return await behaviour(request, context)

    return limited


def _no_decoder(_data: bytes) -> Message:
    raise AssertionError


def _call_of(method: str, context: Context, now: float) -> Call:
    # None when the caller named no deadline, whatever grpcio's types say.
    time_left_s = cast("float | None", context.time_remaining())
    call = Call(method, deadline=math.inf if time_left_s is None else now + time_left_s)
    for key, value in cast("Iterable[tuple[str, str]]", context.invocation_metadata() or ()):
        if key == "x-request-id":
            call.request_id = value
        elif key == "traceparent":
            call.traceparent = tracing.valid_traceparent(value)
        elif key == "authorization":
            call.authorization = value
        elif key == "idempotency-key":
            call.idempotency_key = value
        elif key == "if-match":
            call.if_match = value
    return call


def _fields(call: Call) -> dict[str, object]:
    fields: dict[str, object] = {"method": call.method, "code": call.code}
    if call.caller.subject:
        fields["caller"] = call.caller.subject
    if call.reason:
        fields["reason"] = call.reason
    return fields
