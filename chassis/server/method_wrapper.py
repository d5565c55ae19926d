"""The steps around every unary call, in their order.

From the outside in, each with the reason for its place:

1. context: sets the call's ids and deadline; first, because every other step reads them;
2. telemetry: the log line, the metrics and, if the call is traced, the span; outside the errors, so that it sees the
   status code of the answer;
3. errors: turns every exception into a status; outside the following steps, so that all failures leave one way;
4. deadline: a call without a deadline gets the service's, so that none runs for ever;
5. access: before the request is read, so that a caller without access learns nothing about valid requests and cannot
   make the service hold a large message in memory;
6. request: checks its size, decodes it, checks the number of its elements and its rules. A servicer sees only requests
   that keep the contract, and no request costs more than a valid one;
7. limit: few calls of one list method run at a time; last, so that a call that is refused anyway takes no place.

One wrapper per method holds all steps: three interceptors around each call would cost 7 µs a call.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
import structlog
from grpc import aio

from chassis.concurrency.limiter import CapacityLimiter
from chassis.context import Call, set_current_call
from chassis.errors import DeadlineExceeded, DomainError
from chassis.server.call_facts import call_of, log_fields
from chassis.server.receiving import Receiver
from chassis.server.status import reject, take_code_of_abort
from chassis.server.stream_wrapper import wrap_stream
from chassis.telemetry import tracing
from chassis.telemetry.metrics.calls import CallMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from google.protobuf.message import Message

    from chassis.auth.access import AccessControl

    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = aio.ServicerContext[Any, Any]
    Requests = AsyncIterator[bytes]
    Behaviour = Callable[[Message, Context], Awaitable[Message]]
    Handle = Callable[[Context, Call], Awaitable[Message]]

log = structlog.get_logger(__name__)

# Calls of one list method at a time; the shared pool has a connection more. gRPC takes one new call per turn of the
# loop, and each page that is made lengthens the turns: with hundreds at once even refusing would take seconds.
LISTS_AT_ONCE: Final = 4
# Calls of one list method that wait. A large page takes some 10 ms of CPU, so a hundred are a second of work.
MAX_LISTS_WAITING: Final = 100
# After this time the edge asks another replica too.
MAX_LIST_WAIT_S: Final = 1.0


class MethodWrapper:
    """Wraps the handlers of all methods. For gRPC's own streams (health, reflection) it checks only the peer.

    Not a grpc.aio interceptor: that would be asked for the handler at each call, for 4 µs.

    Args:
        access: the access rules.
        max_call_s: the deadline, in seconds, of a call whose caller names none.
        max_stream_s: the longest time, in seconds, that a stream may last.
    """

    def __init__(self, access: AccessControl, *, max_call_s: float, max_stream_s: float) -> None:
        self._access = access
        self._max_call_s = max_call_s
        self._max_stream_s = max_stream_s

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Return the handler with all steps around it; `method` is `/package.Service/Method`."""
        if handler.unary_unary:
            return self._wrap_unary(method, handler)
        wrap_stream = self._wrap_grpc_stream if method.startswith("/grpc.") else self._wrap_stream
        return wrap_stream(method, handler)

    def _wrap_unary(self, method: str, handler: Handler) -> Handler:
        # grpcio's types know only sync servicers here.
        behaviour = cast("Behaviour", handler.unary_unary)
        admit = self._access.admission_to(method)
        receiver = Receiver(handler)
        if receiver.is_list:
            limiter = CapacityLimiter(LISTS_AT_ONCE, max_waiting=MAX_LISTS_WAITING, max_wait_s=MAX_LIST_WAIT_S)
            behaviour = _limited(behaviour, limiter)

        async def handle(context: Context, call: Call) -> Message:
            await admit(call, context)
            request = await receiver.receive(context, if_match=call.if_match)
            if receiver.deprecated is not None:
                call.deprecated = receiver.deprecated(request)
            return await behaviour(request, context)

        return grpc.stream_unary_rpc_method_handler(self._observe(method, handle), None, handler.response_serializer)

    def _observe(self, method: str, handle: Handle) -> Callable[[object, Context], object]:
        """Return `handle` with the steps context, telemetry, errors and deadline around it."""
        max_call_s = self._max_call_s
        calls = CallMetrics(method)
        # Every replica gets a health check per second; at level INFO those would be most of the log.
        write_line = log.debug if method.startswith("/grpc.health.") else log.info

        async def serve(_requests: object, context: Context) -> Message:
            started = time.monotonic()
            call = call_of(method, context, started)
            # gRPC cancels a call at its caller's deadline. Only a call without one needs a timer here, for 4 µs.
            ends_by_itself = call.deadline <= started + max_call_s
            call.deadline = min(call.deadline, started + max_call_s)
            set_current_call(call)
            span = tracing.enter_call(call) if tracing.is_sampled(call.traceparent) else None
            calls.active += 1
            try:
                if ends_by_itself:
                    return await handle(context, call)
                async with asyncio.timeout(max_call_s):
                    return await handle(context, call)
            except asyncio.CancelledError:
                call.code = "CANCELLED" if call.time_left_s() > 0 else "DEADLINE_EXCEEDED"
                raise
            except TimeoutError:
                await reject(DeadlineExceeded(), context, call)
            except aio.AbortError:
                take_code_of_abort(context, call)
                raise
            except Exception as error:  # noqa: BLE001  a caller may see only what reject() answers
                await reject(error, context, call)
            finally:
                duration_s = time.monotonic() - started
                calls.active -= 1
                calls.ended(call.code, duration_s=duration_s, trace_id=call.traceparent[3:35] if span else "")
                if span:
                    tracing.end_call(span, call)
                write_line("rpc.handled", **log_fields(call), duration_ms=round(duration_s * 1000, 3))

        return serve

    def _wrap_stream(self, method: str, handler: Handler) -> Handler:
        receiver = Receiver(handler)
        admit = self._access.admission_to(method)
        stream = wrap_stream(method, handler, admit, max_s=self._max_stream_s, deprecated=receiver.deprecated)

        async def serve(_requests: object, context: Context) -> None:
            await stream(await self._received(receiver, context), context)

        return grpc.stream_stream_rpc_method_handler(serve, None, handler.response_serializer)

    async def _received(self, receiver: Receiver, context: Context) -> Message | DomainError:
        """Return the request of a stream, or the error if it is refused or takes longer than a call may."""
        try:
            async with asyncio.timeout(self._max_call_s):
                return await receiver.receive(context)
        except TimeoutError:
            return DeadlineExceeded()
        except DomainError as error:
            return error

    def _wrap_grpc_stream(self, method: str, handler: Handler) -> Handler:
        receiver = Receiver(handler)

        async def watch(_requests: Requests, context: Context) -> None:
            request = await self._received(receiver, context)
            if isinstance(request, DomainError):
                raise request
            await cast("Any", handler.unary_stream)(request, context)

        async def converse(requests: Requests, context: Context) -> None:
            decoded = (receiver.decode(data) async for data in requests)
            async for answer in cast("Any", handler.stream_stream)(decoded, context):
                await context.write(answer)

        behaviour = converse if handler.stream_stream else watch

        async def serve(requests: Requests, context: Context) -> None:
            try:
                self._access.require_allowed_peer(context)
                await behaviour(requests, context)
            except aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  a caller may see only what reject() answers
                await reject(error, context, Call(method=method, deadline=0))

        return grpc.stream_stream_rpc_method_handler(cast("Any", serve), None, handler.response_serializer)


class HandlerCollector:
    """Collects the handlers that generated code adds to it, so that they can be wrapped before they are served."""

    def __init__(self) -> None:
        self._handlers: dict[str, Mapping[str, Handler]] = {}

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """Do nothing: generated code also registers each of these handlers by name."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """Keep the handlers of a service."""
        self._handlers[service_name] = method_handlers

    def serve_on(self, server: aio.Server, wrapper: MethodWrapper) -> None:
        """Add all handlers to the server, each of them wrapped."""
        for service, handlers in self._handlers.items():
            wrapped = {name: wrapper.wrap(f"/{service}/{name}", each) for name, each in handlers.items()}
            server.add_registered_method_handlers(service, wrapped)


def _limited(behaviour: Behaviour, limiter: CapacityLimiter) -> Behaviour:
    async def limited(request: Message, context: Context) -> Message:
        await limiter.acquire()
        try:
            return await behaviour(request, context)
        finally:
            limiter.release()

    return limited
