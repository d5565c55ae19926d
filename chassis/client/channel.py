"""Channels to a gRPC service, for typed stubs: with deadlines, retries and safe writes.

    from chassis.client import connect
    from shop.user.v1.user_service_pb2_grpc import UserServiceStub

    async with connect("localhost:8080") as channel:
        user = await UserServiceStub(channel).GetUser(GetUserRequest(id=...))

Needs only grpcio and protobuf, so that the client wheel can be installed beside any other package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpc import aio

from chassis.client.interceptors import AioStreamDefaults, AioUnaryDefaults
from chassis.client.policy import DEFAULT_POLICY, CallPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from chassis.client.interceptors import Token


def connect(  # noqa: PLR0913  each has a default, and a call names what it changes
    target: str,
    *,
    policy: CallPolicy = DEFAULT_POLICY,
    credentials: grpc.ChannelCredentials | None = None,
    server_name: str = "",
    token: Token | None = None,
    around: Sequence[aio.ClientInterceptor] = (),
) -> aio.Channel:
    """Return a channel for typed stubs under asyncio. Close it, or use it in `async with`.

    Every call has a deadline; inside a call that is being served it ends before that call's deadline. If the server is
    UNAVAILABLE and does not say when to come again, a call is tried again. A write without a `request_id` gets one, so
    that its tries take effect once; to repeat a call after an error, set the request_id yourself. A stream has a
    deadline only if it names one.

    Args:
        target: `host:port`, or any gRPC target: `dns:///host:port`, `ipv4:10.0.0.1:50051,10.0.0.2:50051`.
        policy: deadlines and retries.
        credentials: for TLS; without them the channel is in clear text.
        server_name: the DNS name that the server's certificate must hold, if that is not the target's host.
        token: the access token, or a function that returns it for each call; a call may name another one.
        around: interceptors outside of the channel's own.
    """
    interceptors = [*around, AioUnaryDefaults(policy, token), AioStreamDefaults(token)]
    options = options_of(policy)
    if server_name:
        options.append(("grpc.default_authority", server_name))
    if credentials is None:
        return aio.insecure_channel(target, options=options, interceptors=interceptors)
    return aio.secure_channel(target, credentials, options=options, interceptors=interceptors)


def options_of(policy: CallPolicy) -> list[tuple[str, Any]]:
    """Return the options of a channel."""
    return [
        ("grpc.service_config", policy.service_config()),
        ("grpc.service_config_disable_resolution", 1),
        # During a rollout the next replica stops 3 s after the last one is back (DRAIN_S): the client must have
        # reconnected to that one by then. The default backoff grows up to 2 minutes.
        ("grpc.max_reconnect_backoff_ms", 1000),
        # A container that comes back may have another address; by default DNS is asked at most every 30 s.
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 5_000),
    ]
