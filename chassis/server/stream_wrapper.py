"""What happens around every stream that a service answers with: the same as around a unary call, in the same order.

Two things are different. A stream that ends by itself says why in its last message too, in the field `end`: over REST
the status of the call has gone out before. And it does not outlive the access token that it was opened with.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
import structlog
from google.protobuf import descriptor_pool, message_factory

from chassis.context import Call, set_current_call
from chassis.errors import DeadlineExceeded, DomainError, TokenExpired
from chassis.server.if_match import take_if_match
from chassis.server.status import as_domain_error, reject, status_of
from chassis.telemetry import tracing
from chassis.telemetry.metrics import StreamMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from google.protobuf.message import Message
    from grpc import aio

    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = aio.ServicerContext[Any, Any]
    Behaviour = Callable[[Message, Context], AsyncGenerator[Message, None]]
    Decode = Callable[[bytes], Message | DomainError]

log = structlog.get_logger(__name__)

# The field of a stream's messages that says why it ends: a google.rpc.Status.
_END: Final = "end"


class NoEnd(Exception):
    """The messages of a stream have no field for the reason that it ends with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPolicy:
    """What a stream has in common with unary calls.

    Attributes:
        admit: lets a call in, or raises.
        call_of: makes the call of its method, its context and the time now.
        fields: of the log line.
        max_stream_s: how long a stream may last.
    """

    admit: Callable[[Call, Context], Awaitable[None]]
    call_of: Callable[[str, Context, float], Call]
    fields: Callable[[Call], Mapping[str, object]]
    max_stream_s: float


def wrapped(method: str, handler: Handler, decode: Decode, *, around: StreamPolicy) -> Handler:
    """Return the handler with all that happens around a stream of it; `method` is `/package.Service/Method`.

    Raises:
        NoEnd: its messages cannot say why it ends.
    """
    # grpcio's types know only sync servicers here.
    behaviour = cast("Behaviour", handler.unary_stream)
    streams = StreamMetrics(method)
    reply = _reply_of(method)

    async def handled(request: Message | DomainError, call: Call, stream: _Stream) -> None:
        await around.admit(call, stream.context)
        if isinstance(request, DomainError):
            raise request
        if call.if_match is not None:
            take_if_match(request, call.if_match)
        messages = behaviour(request, stream.context)
        await _within_its_life(stream, messages, call, max_s=around.max_stream_s)

    async def answer(request: Message | DomainError, context: Context) -> None:
        started = time.monotonic()
        call = around.call_of(method, context, started)
        set_current_call(call)
        span = tracing.enter_call(call) if tracing.is_sampled(call.traceparent) else None
        stream = _Stream(context, reply)
        streams.active += 1
        try:
            await handled(request, call, stream)
        except asyncio.CancelledError:
            call.code = "CANCELLED" if call.time_left_s() > 0 else "DEADLINE_EXCEEDED"
            raise
        except Exception as error:  # noqa: BLE001  nothing may leave but what reject() answers
            refusal = as_domain_error(error, call)
            await stream.end(refusal)
            await reject(refusal, context, call)
        finally:
            streams.active -= 1
            streams.ended(call.code)
            if span:
                tracing.end_call(span, call)
            duration_s = time.monotonic() - started
            log.info(
                "rpc.handled", **around.fields(call), messages=stream.sent, duration_ms=round(duration_s * 1000, 3)
            )

    return grpc.unary_stream_rpc_method_handler(answer, decode, handler.response_serializer)


async def _within_its_life(
    stream: _Stream, messages: AsyncGenerator[Message, None], call: Call, *, max_s: float
) -> None:
    """Send the messages for as long as the stream may last.

    Raises:
        TokenExpired: the token is no longer good.
        DeadlineExceeded: it has lasted long enough.
    """
    token_left_s = call.caller.expires_at_s - time.time()
    left_s = min(max_s, token_left_s)
    call.deadline = min(call.deadline, time.monotonic() + left_s)
    life = asyncio.timeout(left_s)
    try:
        async with life, aclosing(messages):
            async for message in messages:
                await stream.send(message)
    except TimeoutError:
        if not life.expired():
            raise
        raise TokenExpired if token_left_s <= max_s else DeadlineExceeded from None


class _Stream:
    """What is sent to one caller.

    Attributes:
        context: gRPC's.
        sent: how many messages.
    """

    __slots__ = ("_is_sending", "_reply", "context", "sent")

    def __init__(self, context: Context, reply: type[Message]) -> None:
        self.context = context
        self._reply = reply
        self._is_sending = False
        self.sent = 0

    async def send(self, message: Message) -> None:
        """Return once the message is on its way."""
        self._is_sending = True
        await self.context.write(message)
        self._is_sending = False
        self.sent += 1

    async def end(self, error: DomainError) -> None:
        """Tell why it ends, if its caller has been told anything: otherwise the status does, over REST too.

        Not if the caller takes nothing: a message that is stuck would keep this one waiting.
        """
        if self.sent and not self._is_sending:
            await self.context.write(self._reply(**{_END: status_of(error)}))


def _reply_of(method: str) -> type[Message]:
    name = method[1:].replace("/", ".")
    reply = descriptor_pool.Default().FindMethodByName(name).output_type
    end = reply.fields_by_name.get(_END)
    if end is None or end.message_type is None or end.message_type.full_name != "google.rpc.Status":
        raise NoEnd(f"{reply.full_name} has no field `google.rpc.Status end`")
    return message_factory.GetMessageClass(reply)
