"""Channels whose calls log in by themselves and fail with ShopError."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, cast

import grpc

from chassis.client import channel as channels
from chassis.client.policy import DEFAULT_POLICY, CallPolicy
from protos.client.closing import AioClosing, SyncClosing
from protos.client.credentials import Login
from protos.client.interceptors import AioCalls, AioStreams, SyncCalls, SyncDefaults

if TYPE_CHECKING:
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
    names one. If the shop is UNAVAILABLE and does not say when to come back, a call is tried again, three times in all;
    while many calls fail, it is not. A write without a `request_id` gets one, so that its tries take effect once; to
    repeat a call after an error, set the request_id yourself.

    Args:
        target: `host:port`, or any gRPC target: `dns:///host:port`, `ipv4:10.0.0.1:50051,10.0.0.2:50051`.
        token: the access token, a function that returns it, or a Login, which gets and renews it. Logging in is a call
            of its own, with a deadline of its own.
        policy: deadlines and retries.
        credentials: for TLS, such as `grpc.ssl_channel_credentials()`; without them the channel is in clear text.
    """
    session = None
    if isinstance(token, Login):
        from protos.client.login import AioSession  # noqa: PLC0415  needs the contract of sessions

        session = AioSession(token)
    closing = AioClosing()
    channel = channels.connect(
        target,
        policy=policy,
        credentials=credentials,
        token=None if isinstance(token, Login) else token,
        around=[AioCalls(session, closing), AioStreams(session, closing)],
    )
    closing.of(channel)
    if session is not None:
        session.open_on(channel)
    return channel


def connect_sync(
    target: str,
    *,
    token: Token | None = None,
    policy: CallPolicy = DEFAULT_POLICY,
    credentials: grpc.ChannelCredentials | None = None,
) -> grpc.Channel:
    """Return a channel as connect() does, for code without asyncio."""
    session = None
    if isinstance(token, Login):
        from protos.client.login import SyncSession  # noqa: PLC0415  needs the contract of sessions

        session = SyncSession(token)
    options = channels.options_of(policy)
    if credentials is None:
        plain = grpc.insecure_channel(target, options=options)
    else:
        plain = grpc.secure_channel(target, credentials, options=options)
    defaults = SyncDefaults(policy, None if isinstance(token, Login) else token)
    refusing = cast("grpc.Channel", SyncClosing(plain))
    channel = grpc.intercept_channel(refusing, SyncCalls(session), defaults)
    if session is not None:
        session.open_on(channel)
    return channel
