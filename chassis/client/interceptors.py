"""Interceptors that give each call of a channel its deadline, its token, its trace and its request id."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from google.protobuf.message import Message
from grpc import aio
from typing_extensions import override

from chassis.client.hedging import hedged, is_read
from chassis.context import current_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chassis.client.policy import CallPolicy, Observation

    Token = str | Callable[[], str]

# A call ends this long before the deadline of the call being served, so that its caller learns the reason.
_MARGIN_S: Final = 0.1
# Three years, as `grpc-timeout` has eight digits. gRPC takes infinity for a deadline that has passed.
_LONGEST_S: Final = 99_999_999.0

_Request = TypeVar("_Request")


def with_request_id(request: _Request) -> _Request:
    """Return the request with a new `request_id`, if its type has that field and it is empty.

    Returns a copy, because sending the same object twice on purpose makes two requests.
    """
    if not isinstance(request, Message) or "request_id" not in request.DESCRIPTOR.fields_by_name:
        return request
    if getattr(request, "request_id", None):
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    setattr(copy, "request_id", str(uuid.uuid4()))  # noqa: B010  the field is not on Message
    return copy


class AioUnaryDefaults(aio.UnaryUnaryClientInterceptor):
    """Gives a unary call its deadline, token, trace and request id; observes it, and hedges it if it is a read."""

    def __init__(self, policy: CallPolicy, token: Token | None) -> None:
        self._policy = policy
        self._token = token

    @override
    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        method: bytes | str = client_call_details.method
        observer = self._policy.observer
        observation = observer.begin(method.decode() if isinstance(method, bytes) else method) if observer else None
        given = list(client_call_details.metadata or ())
        if observation and observation.traceparent:
            given.append(("traceparent", observation.traceparent))
        timeout_s = timeout_within_call(client_call_details.timeout, self._policy)
        metadata = with_metadata(given, self._token)

        def send(timeout_s: float) -> Awaitable[Any]:
            # The details are a named tuple, which grpcio's types do not say.
            details = client_call_details._replace(timeout=timeout_s, metadata=aio.Metadata(*metadata))
            return cast("Awaitable[Any]", continuation(details, with_request_id(request)))

        hedge_after_s = self._policy.hedge_after_s
        if hedge_after_s is None or not is_read(method):
            calling = send(timeout_s)
        else:
            calling = hedged(send, timeout_s=timeout_s, after_s=hedge_after_s)
        return await (calling if observation is None else _observed(calling, observation))


class AioStreamDefaults(aio.UnaryStreamClientInterceptor):
    """Gives a stream its token and trace. It gets no deadline: a stream has one only if its caller names one."""

    def __init__(self, token: Token | None) -> None:
        self._token = token

    @override
    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        named_s = client_call_details.timeout
        timeout_s = None if named_s is None else finite_timeout(named_s)
        metadata = aio.Metadata(*with_metadata(client_call_details.metadata, self._token))
        return await continuation(client_call_details._replace(timeout=timeout_s, metadata=metadata), request)


def timeout_within_call(given_s: float | None, policy: CallPolicy) -> float:
    """Return the timeout of a call, by default the policy's; within a call being served it ends before that one."""
    timeout_s = finite_timeout(policy.timeout_s if given_s is None else given_s)
    serving = current_call()
    if serving is None:
        return timeout_s
    return max(min(timeout_s, serving.time_left_s() - _MARGIN_S), 0)


def finite_timeout(timeout_s: float) -> float:
    """Return the timeout, or the longest that gRPC can have."""
    return min(timeout_s, _LONGEST_S)


def with_metadata(given: Any, token: Token | None) -> list[tuple[str, str | bytes]]:
    """Return the metadata of a call with the channel's token, and with the id and the trace of the call being served.

    Metadata that the call names itself is kept.
    """
    metadata = list(given or ())
    additions: dict[str, str] = {}
    if token is not None:
        additions["authorization"] = f"Bearer {token if isinstance(token, str) else token()}"
    serving = current_call()
    if serving is not None:
        # All calls of one request have the same id and trace, from the edge to the last service.
        additions |= {"x-request-id": serving.request_id, "traceparent": serving.traceparent}
    present = {key for key, _ in metadata}
    return metadata + [(key, value) for key, value in additions.items() if value and key not in present]


async def _observed(calling: Awaitable[Any], observation: Observation) -> Any:
    """Return the call after it has ended and its end is recorded."""
    code = "CANCELLED"
    call = None
    try:
        call = await calling
        code = (await call.code()).name
    except asyncio.CancelledError:
        if call is not None:
            call.cancel()  # cancelling the wait for its code does not cancel the call
        raise
    finally:
        observation.end(code)
    return call
