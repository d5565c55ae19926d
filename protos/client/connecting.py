"""Channels whose calls log in by themselves and fail with ShopError."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from shop.user.v1.session_service_pb2_grpc import SessionServiceStub

from chassis.client import channel as channels
from chassis.client.policy import DEFAULT_POLICY, CallPolicy
from protos.client.interceptors import AioCalls, AioStreams, SyncCalls
from protos.client.login import AioSession, Login, SyncSession

if TYPE_CHECKING:
    import grpc
    from grpc import aio

Token: TypeAlias = str | Callable[[], str] | Login


def connect(
    target: str,
    *,
    token: Token | None = None,
    policy: CallPolicy = DEFAULT_POLICY,
    credentials: grpc.ChannelCredentials | None = None,
) -> aio.Channel:
    """Return a channel for typed stubs under asyncio. Close it, or use it in `async with`.

    A call that fails raises ShopError. Every call has a deadline, 10 s unless it names one; a stream has one only if it
    names one. If the server is UNAVAILABLE, a call is tried again, three times in all. A write without a `request_id`
    gets one, so that its tries take effect once; to repeat a call after an error, set the request_id yourself.

    Args:
        target: `host:port`, or any gRPC target: `dns:///host:port`, `ipv4:10.0.0.1:50051,10.0.0.2:50051`.
        token: the access token, a function that returns it, or a Login, which gets and renews it. Logging in is a call
            of its own, with a deadline of its own.
        policy: deadlines and retries.
        credentials: for TLS, such as `grpc.ssl_channel_credentials()`; without them the channel is in clear text.
    """
    session = AioSession(token) if isinstance(token, Login) else None
    channel = channels.connect(
        target,
        policy=policy,
        credentials=credentials,
        token=None if isinstance(token, Login) else token,
        around=[AioCalls(session), AioStreams(session)],
    )
    if session is not None:
        session.stub = SessionServiceStub(channel)
    return channel


def connect_sync(
    target: str,
    *,
    token: Token | None = None,
    policy: CallPolicy = DEFAULT_POLICY,
    credentials: grpc.ChannelCredentials | None = None,
) -> grpc.Channel:
    """Return a channel as connect() does, for code without asyncio."""
    session = SyncSession(token) if isinstance(token, Login) else None
    channel = channels.connect_sync(
        target,
        policy=policy,
        credentials=credentials,
        token=None if isinstance(token, Login) else token,
        around=[SyncCalls(session)],
    )
    if session is not None:
        session.stub = SessionServiceStub(channel)
    return channel
