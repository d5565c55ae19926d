"""The steps around every server stream: the same as around a unary call, in the same order.

There are two differences. A stream that ends with an error also sends it in its last message, in the field `end`,
because over REST the status has been sent before. And a stream ends when the access token that opened it expires.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
from google.protobuf import descriptor_pool, message_factory
from grpc import aio

from chassis.context import set_current_call
from chassis.errors import DeadlineExceeded, DomainError, TokenExpired
from chassis.server.call_facts import call_of, log_fields
from chassis.server.if_match import take_if_match
from chassis.server.status import as_domain_error, reject, status_of, take_code_of_abort
from chassis.telemetry import tracing
from chassis.telemetry.metrics.calls import StreamMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    import grpc
    from google.protobuf.message import Message

    from chassis.context import Call
    from chassis.server.deprecated_fields import DeprecatedFields

    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = aio.ServicerContext[Any, Any]
    Admit = Callable[[Call, Context], Awaitable[None]]
    Behaviour = Callable[[Message, Context], AsyncGenerator[Message, None]]

log = structlog.get_logger(__name__)

# The field of a stream's messages that holds the error with which it ends: a google.rpc.Status.
_END: Final = "end"

# How long the message that is being sent when the time is up may take. If it were cut off, the error could not follow.
_SENDING_S: Final = 1.0

# A stream ends this long before its caller's deadline, at which gRPC would end it without a reason.
_BEFORE_DEADLINE_S: Final = 0.02


class NoEndField(Exception):
    """The message type of a stream has no field `google.rpc.Status end`."""


def wrap_stream(
    method: str, handler: Handler, admit: Admit, *, max_s: float, deprecated: DeprecatedFields | None
) -> Callable[[Message | DomainError, Context], Awaitable[None]]:
    """Return the handler's behaviour with all steps around it.

    It takes the request, or the error with which the request is refused. `admit` sets the call's caller and owner, or
    raises if the caller has no access; a stream lasts `max_s` seconds at most.

    Raises:
        NoEndField: its messages have no field for the error with which it ends.
    """
    # grpcio's types know only sync servicers here.
    behaviour = cast("Behaviour", handler.unary_stream)
    streams = StreamMetrics(method)
    reply = _reply_type_of(method)

    async def handle(request: Message | DomainError, call: Call, stream: _ReplyStream) -> None:
        await admit(call, stream.context)
        if isinstance(request, DomainError):
            raise request
        if deprecated is not None:
            call.deprecated = deprecated(request)
        if call.if_match is not None:
            take_if_match(request, call.if_match)
        messages = behaviour(request, stream.context)
        await _send_until_expiry(stream, messages, call, max_s=max_s)

    async def serve(request: Message | DomainError, context: Context) -> None:
        started = time.monotonic()
        call = call_of(method, context, started)
        set_current_call(call)
        span = tracing.enter_call(call) if tracing.is_sampled(call.traceparent) else None
        stream = _ReplyStream(context, reply)
        streams.active += 1
        try:
            await handle(request, call, stream)
        except asyncio.CancelledError:
            call.code = "CANCELLED" if call.time_left_s() > 0 else "DEADLINE_EXCEEDED"
            raise
        except aio.AbortError:
            take_code_of_abort(context, call)
            raise
        except Exception as error:  # noqa: BLE001  a caller may see only what reject() answers
            refusal = as_domain_error(error, call)
            await stream.end(refusal)
            await reject(refusal, context, call)
        finally:
            streams.active -= 1
            streams.ended(call.code)
            if span:
                tracing.end_call(span, call)
            duration_s = time.monotonic() - started
            log.info("rpc.handled", **log_fields(call), messages=stream.sent, duration_ms=round(duration_s * 1000, 3))

    return serve


async def _send_until_expiry(
    stream: _ReplyStream, messages: AsyncGenerator[Message, None], call: Call, *, max_s: float
) -> None:
    """Send the messages until they end, the access token expires, or the time of the call is up.

    Raises:
        TokenExpired: the token has expired.
        DeadlineExceeded: `max_s` seconds have passed, or the caller's deadline has come.
    """
    token_left_s = call.caller.expires_at_s - time.time()
    left_s = min(max_s, token_left_s, call.time_left_s() - _BEFORE_DEADLINE_S)
    call.deadline = min(call.deadline, time.monotonic() + left_s)
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + left_s
    limit = asyncio.timeout_at(ends_at)
    try:
        async with limit, aclosing(messages):
            async for message in messages:
                limit.reschedule(ends_at + _SENDING_S)
                await stream.send(message)
                if loop.time() >= ends_at:
                    raise TimeoutError  # noqa: TRY301  handled as the timeout's own is
                limit.reschedule(ends_at)
    except TimeoutError:
        # Also if it expired early: uvloop rounds timers to milliseconds.
        if not limit.expired() and loop.time() < ends_at:
            raise
        raise TokenExpired if token_left_s == left_s else DeadlineExceeded from None


class _ReplyStream:
    """The messages that go to one caller."""

    def __init__(self, context: Context, reply: type[Message]) -> None:
        self.context = context
        self._reply = reply
        self._is_sending = False
        self.sent = 0

    async def send(self, message: Message) -> None:
        """Send the message; return once gRPC has taken it."""
        self._is_sending = True
        await self.context.write(message)
        self._is_sending = False
        self.sent += 1

    async def end(self, error: DomainError) -> None:
        """Send the error as the last message, unless none was sent before: then the status carries it, over REST too.

        If the caller does not read, so that an earlier message is still waiting, do not send: it would wait as well.
        """
        if self.sent and not self._is_sending:
            await self.context.write(self._reply(**{_END: status_of(error)}))


def _reply_type_of(method: str) -> type[Message]:
    name = method[1:].replace("/", ".")
    reply = descriptor_pool.Default().FindMethodByName(name).output_type
    end = reply.fields_by_name.get(_END)
    if end is None or end.message_type is None or end.message_type.full_name != "google.rpc.Status":
        raise NoEndField(f"{reply.full_name} has no field `google.rpc.Status end`")
    return message_factory.GetMessageClass(reply)
