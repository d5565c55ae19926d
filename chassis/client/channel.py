"""Channels to a gRPC service, for typed stubs: with deadlines, retries and safe writes.

    from chassis.client import connect
    from shop.user.v1.user_service_pb2_grpc import UserServiceStub

    async with connect("localhost:8080") as channel:
        user = await UserServiceStub(channel).GetUser(GetUserRequest(id=...))

Needs nothing but grpcio and protobuf, so that it can be installed beside anything.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status
from typing_extensions import override

from chassis.client.hedging import SICK, hedged, is_read
from chassis.context import current_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Token = str | Callable[[], str]

# The inner call gives up this long before our own caller does, so that the caller hears why.
_MARGIN_S: Final = 0.1

_Request = TypeVar("_Request")


class Observation(Protocol):
    """One call, being observed.

    Attributes:
        traceparent: what to send, or empty.
    """

    traceparent: str

    def end(self, code: str) -> None:
        """Take note of how it ended: the name of its status."""


class Observer(Protocol):
    """Observes calls, for metrics and traces."""

    def begin(self, method: str) -> Observation:
        """Take note of a call that begins."""


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How a channel makes its calls.

    Attributes:
        timeout_s: the deadline of a call that names none.
        max_attempts: how often a call is tried in all, when the server is UNAVAILABLE. 1 to 5.
        hedge_after_s: after how long without an answer a read is sent to the next replica as well; the first answer
            counts. Three tries at most, within the call's deadline. Never, without a number; writes and streams never.
        observer: is told of every call under asyncio; of none without one.
    """

    timeout_s: float = 10
    max_attempts: int = 3
    hedge_after_s: float | None = None
    observer: Observer | None = None

    def service_config(self) -> str:
        """Return the gRPC service config, as JSON."""
        config: dict[str, object] = {
            # Every replica gets its share; one long-lived connection would pin all calls to one.
            "loadBalancingConfig": [{"round_robin": {}}],
            # When more than about a tenth of the calls fail, retries stop: they would keep a sick service down.
            "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
        }
        if self.max_attempts > 1:
            retry_policy = {
                "maxAttempts": self.max_attempts,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            }
            config["methodConfig"] = [{"name": [{}], "retryPolicy": retry_policy}]
        return json.dumps(config)


DEFAULT_POLICY: Final = CallPolicy()


def connect(
    target: str,
    *,
    policy: CallPolicy = DEFAULT_POLICY,
    credentials: grpc.ChannelCredentials | None = None,
    server_name: str = "",
    token: Token | None = None,
) -> aio.Channel:
    """Return a channel for typed stubs under asyncio. Close it, or use it in `async with`.

    Every call has a deadline; within a call that is being served, never a later one than its caller's. A call is tried
    again when the server is UNAVAILABLE; a write gets a `request_id` if it has none, so that its tries take effect
    once. Give the request_id yourself to repeat a call after an error. A stream has a deadline only if it names one.

    Args:
        target: `host:port`, or any gRPC target: `dns:///host:port`, `ipv4:10.0.0.1:50051,10.0.0.2:50051`.
        policy: deadlines and retries.
        credentials: of TLS; without, the channel is in clear text.
        server_name: the DNS name that the server's certificate must hold, where it is not the target's host.
        token: the access token of whoever calls, or what returns it for each call; a call may name its own.
    """
    interceptors: list[aio.ClientInterceptor] = [_AioDefaults(policy, token), _AioStreamDefaults(token)]
    options = _options(policy)
    if server_name:
        options.append(("grpc.default_authority", server_name))
    if credentials is None:
        return aio.insecure_channel(target, options=options, interceptors=interceptors)
    return aio.secure_channel(target, credentials, options=options, interceptors=interceptors)


def connect_sync(
    target: str,
    *,
    policy: CallPolicy = DEFAULT_POLICY,
    credentials: grpc.ChannelCredentials | None = None,
    token: Token | None = None,
) -> grpc.Channel:
    """Return a channel as connect() does, for code without asyncio."""
    options = _options(policy)
    if credentials is None:
        channel = grpc.insecure_channel(target, options=options)
    else:
        channel = grpc.secure_channel(target, credentials, options=options)
    return grpc.intercept_channel(channel, _SyncDefaults(policy, token))


def _options(policy: CallPolicy) -> list[tuple[str, Any]]:
    return [
        ("grpc.service_config", policy.service_config()),
        ("grpc.service_config_disable_resolution", 1),
        # A replica that is back must be found before the next one of a rollout is gone, 3 s later (DRAIN_S); the
        # default is up to 2 minutes.
        ("grpc.max_reconnect_backoff_ms", 1000),
        # So must one that comes back at another address, as containers do; the default is to ask DNS every 30 s.
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 5_000),
    ]


def reason_of(error: grpc.RpcError) -> str:
    """Return the reason that a service gave, such as `EMAIL_TAKEN`; empty when the call never reached one.

    The reasons are the enums `ErrorReason` of the contract.
    """
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))
    except ValueError:  # details that contradict the status: not from a service of ours
        return ""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def with_request_id(request: _Request) -> _Request:
    """Return the request with a request_id of its own, if it can have one and has none.

    A copy: the same object sent twice on purpose is two requests.
    """
    if not isinstance(request, Message) or "request_id" not in request.DESCRIPTOR.fields_by_name:
        return request
    if getattr(request, "request_id", None):
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    setattr(copy, "request_id", str(uuid.uuid4()))  # noqa: B010  the field is not on Message
    return copy


def _timeout_s(named_s: float | None, policy: CallPolicy) -> float:
    timeout_s = policy.timeout_s if named_s is None else named_s
    serving = current_call()
    if serving is None:
        return timeout_s
    return max(min(timeout_s, serving.time_left_s() - _MARGIN_S), 0)


def _metadata(named: Any, token: Token | None) -> list[tuple[str, str | bytes]]:
    metadata = list(named or ())
    additions: dict[str, str] = {}
    if token is not None:
        additions["authorization"] = f"Bearer {token if isinstance(token, str) else token()}"
    serving = current_call()
    if serving is not None:
        # One id and one trace from the edge to the last service.
        additions |= {"x-request-id": serving.request_id, "traceparent": serving.traceparent}
    present = {key for key, _ in metadata}
    return metadata + [(key, value) for key, value in additions.items() if value and key not in present]


class _AioDefaults(aio.UnaryUnaryClientInterceptor):
    def __init__(self, policy: CallPolicy, token: Token | None) -> None:
        self._policy = policy
        self._token = token

    @override
    async def intercept_unary_unary(
        self,
        continuation: Callable[..., Any],
        client_call_details: aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        method = cast("bytes | str", client_call_details.method)
        observer = self._policy.observer
        observed = observer.begin(method.decode() if isinstance(method, bytes) else method) if observer else None
        named = list(cast("Any", client_call_details.metadata) or ())
        if observed and observed.traceparent:
            named.append(("traceparent", observed.traceparent))
        timeout_s = _timeout_s(client_call_details.timeout, self._policy)
        metadata = _metadata(named, self._token)

        def send(timeout_s: float) -> Awaitable[Any]:
            details = _details(client_call_details, timeout_s=timeout_s, metadata=metadata)
            return cast("Awaitable[Any]", continuation(details, with_request_id(request)))

        hedge_after_s = self._policy.hedge_after_s
        if hedge_after_s is None or not is_read(client_call_details.method):
            calling = send(timeout_s)
        else:
            calling = hedged(send, timeout_s=timeout_s, after_s=hedge_after_s)
        return await (calling if observed is None else _observed(calling, observed))


class _AioStreamDefaults(aio.UnaryStreamClientInterceptor):
    """Says who calls. A stream has no deadline but the one that it is given."""

    def __init__(self, token: Token | None) -> None:
        self._token = token

    @override
    async def intercept_unary_stream(
        self,
        continuation: Callable[..., Any],
        client_call_details: aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        given = client_call_details
        details = _details(given, timeout_s=given.timeout, metadata=_metadata(given.metadata, self._token))
        return await continuation(details, request)


def _details(
    given: aio.ClientCallDetails, *, timeout_s: float | None, metadata: Sequence[tuple[str, str | bytes]]
) -> aio.ClientCallDetails:
    return aio.ClientCallDetails(
        method=given.method,
        timeout=timeout_s,
        metadata=aio.Metadata(*metadata),
        credentials=given.credentials,
        wait_for_ready=given.wait_for_ready,
    )


async def _observed(calling: Awaitable[Any], observed: Observation) -> Any:
    """Return the call once it has ended and that is taken note of."""
    code = "CANCELLED"
    call = None
    try:
        call = await calling
        code = (await call.code()).name
    except asyncio.CancelledError:
        if call is not None:
            call.cancel()  # who waits only for its code does not end it by leaving
        raise
    finally:
        observed.end(code)
    return call


@dataclass
class _SyncDetails(grpc.ClientCallDetails):
    method: Any
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _SyncDefaults(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    def __init__(self, policy: CallPolicy, token: Token | None) -> None:
        self._policy = policy
        self._token = token

    @override
    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        timeout_s = _timeout_s(client_call_details.timeout, self._policy)
        return continuation(self._details(client_call_details, timeout_s=timeout_s), with_request_id(request))

    @override
    def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        return continuation(self._details(client_call_details, timeout_s=client_call_details.timeout), request)

    def _details(self, given: Any, *, timeout_s: float | None) -> _SyncDetails:
        return _SyncDetails(
            method=given.method,
            timeout=timeout_s,
            metadata=_metadata(given.metadata, self._token),
            credentials=given.credentials,
            wait_for_ready=given.wait_for_ready,
            compression=given.compression,
        )


def is_dependency_failure(error: Exception) -> bool:
    """Return whether the error says that the server is sick, rather than that the call was wrong."""
    if isinstance(error, (asyncio.TimeoutError, OSError)):
        return True
    return isinstance(error, grpc.RpcError) and error.code() in SICK
