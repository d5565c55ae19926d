"""Interceptors that send the token of a session, and turn errors of gRPC into ShopError."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio
from shop.system.v1.access_pb2 import access
from typing_extensions import override

from chassis.client.hedging import rpc_of
from chassis.client.interceptors import finite_timeout, timeout_within_call, with_metadata, with_request_id
from protos.client.deprecation import warn_if_deprecated
from protos.client.errors import REFUSED_TOKEN, ShopError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from chassis.client.interceptors import Token
    from chassis.client.policy import CallPolicy
    from protos.client.closing import AioClosing
    from protos.client.login import AioSession, SyncSession


@functools.cache
def _is_public(method: str | bytes) -> bool:
    """Return whether the rpc of this path is public in the contract, so that it needs no token."""
    rpc = rpc_of(method)
    return rpc is not None and bool(rpc.GetOptions().Extensions[access].public)


def _needs_token(details: Any) -> bool:
    return not _is_public(details.method) and all(key != "authorization" for key, _ in details.metadata or ())


def _is_refused(error: ShopError) -> bool:
    return error.code is grpc.StatusCode.UNAUTHENTICATED and error.reason in REFUSED_TOKEN


class AioCalls(aio.UnaryUnaryClientInterceptor):
    """Makes unary calls; if a token is refused, once more with another one.

    Args:
        session: gives the tokens; None if the channel has another source of them.
        closing: of the channel.
    """

    def __init__(self, session: AioSession | None, closing: AioClosing) -> None:
        self._session = session
        self._closing = closing

    @override
    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: aio.ClientCallDetails, request: Any
    ) -> Any:
        warn_if_deprecated(client_call_details.method)
        self._closing.require_open()
        try:
            return await self._called(continuation, client_call_details, request)
        except asyncio.CancelledError:
            self._closing.require_cancelled(times=1)  # interceptors run in a task of the call
            raise

    async def _called(
        self, continuation: Callable[..., Any], client_call_details: aio.ClientCallDetails, request: Any
    ) -> Any:
        session = self._session
        if session is None or not _needs_token(client_call_details):
            return await _made(continuation, client_call_details, request)
        # One id for both tries. The first one was refused before it took effect, but a write is never sent without.
        request = with_request_id(request)
        token = await session.token()
        try:
            return await _made(continuation, _aio_details(client_call_details, token), request)
        except ShopError as error:
            if not _is_refused(error):
                raise
            session.refuse(token)
            token = await session.token()
        return await _made(continuation, _aio_details(client_call_details, token), request)


async def _made(continuation: Callable[..., Any], details: aio.ClientCallDetails, request: Any) -> Any:
    """Return the call after it has succeeded."""
    call = await continuation(details, request)
    try:
        await call
    except aio.AioRpcError as error:
        raise ShopError.of(error) from error
    return call


def _aio_details(given: aio.ClientCallDetails, token: str) -> aio.ClientCallDetails:
    return aio.ClientCallDetails(
        method=given.method,
        timeout=given.timeout,
        metadata=aio.Metadata(*(given.metadata or ()), ("authorization", f"Bearer {token}")),
        credentials=given.credentials,
        wait_for_ready=given.wait_for_ready,
    )


class AioStreams(aio.UnaryStreamClientInterceptor):
    """Opens streams. Arguments as in AioCalls. If a token is refused, the next stream gets another one."""

    def __init__(self, session: AioSession | None, closing: AioClosing) -> None:
        self._session = session
        self._closing = closing

    @override
    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: aio.ClientCallDetails, request: Any
    ) -> Any:
        warn_if_deprecated(client_call_details.method)
        self._closing.require_open()
        try:
            return await self._opened(continuation, client_call_details, request)
        except asyncio.CancelledError:
            self._closing.require_cancelled(times=1)
            raise

    async def _opened(
        self, continuation: Callable[..., Any], client_call_details: aio.ClientCallDetails, request: Any
    ) -> Any:
        session = self._session
        if session is None or not _needs_token(client_call_details):
            return _aio_messages(await continuation(client_call_details, request), _no_token, self._closing)
        token = await session.token()
        call = await continuation(_aio_details(client_call_details, token), request)
        return _aio_messages(call, functools.partial(session.refuse, token), self._closing)


async def _aio_messages(call: Any, refuse_token: Callable[[], None], closing: AioClosing) -> AsyncIterator[Any]:
    try:
        async for message in call:
            yield message
    except asyncio.CancelledError:
        closing.require_cancelled(times=0)  # messages are read in the caller's task
        raise
    except aio.AioRpcError as failure:
        error = ShopError.of(failure)
        if _is_refused(error):
            refuse_token()
        raise error from failure


def _no_token() -> None:
    """There is no token to refuse."""


@dataclass
class SyncCallDetails(grpc.ClientCallDetails):
    """The details of a call without asyncio; grpcio has no class for them."""

    method: Any
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class SyncDefaults(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Gives calls and streams without asyncio what AioUnaryDefaults and AioStreamDefaults give; it does not hedge."""

    def __init__(self, policy: CallPolicy, token: Token | None) -> None:
        self._policy = policy
        self._token = token

    @override
    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        timeout_s = timeout_within_call(client_call_details.timeout, self._policy)
        return continuation(self._details(client_call_details, timeout_s=timeout_s), with_request_id(request))

    @override
    def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        named_s = client_call_details.timeout
        timeout_s = None if named_s is None else finite_timeout(named_s)
        return continuation(self._details(client_call_details, timeout_s=timeout_s), request)

    def _details(self, given: Any, *, timeout_s: float | None) -> SyncCallDetails:
        return _sync_details(given, timeout_s=timeout_s, metadata=with_metadata(given.metadata, self._token))


class SyncCalls(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Makes calls and opens streams without asyncio, as AioCalls and AioStreams do."""

    def __init__(self, session: SyncSession | None) -> None:
        self._session = session

    @override
    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        warn_if_deprecated(client_call_details.method)
        session = self._session
        if session is None or not _needs_token(client_call_details):
            return _Outcome(continuation(client_call_details, request), _no_token)
        request = with_request_id(request)
        token = session.token()
        call = continuation(_with_token(client_call_details, token), request)
        # A future is still running and is not made again: a callback may not wait for a second call.
        if _has_been_refused(call):
            session.refuse(token)
            token = session.token()
            call = continuation(_with_token(client_call_details, token), request)
        return _Outcome(call, functools.partial(session.refuse, token))

    @override
    def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        warn_if_deprecated(client_call_details.method)
        session = self._session
        if session is None or not _needs_token(client_call_details):
            return _Messages(continuation(client_call_details, request), _no_token)
        token = session.token()
        call = continuation(_with_token(client_call_details, token), request)
        return _Messages(call, functools.partial(session.refuse, token))


def _has_been_refused(call: Any) -> bool:
    return isinstance(call, grpc.RpcError) and call.done() and _is_refused(ShopError.of(call))  # type: ignore[attr-defined]  # it is a future too


class _Outcome:
    """The outcome of a call, which may still run; everything else is the call's.

    An exception that is not gRPC's, such as one of the token function, is raised as it is.
    """

    def __init__(self, call: Any, refuse_token: Callable[[], None]) -> None:
        self._call = call
        self._refuse_token = refuse_token

    def result(self, timeout: float | None = None) -> Any:
        try:
            return self._call.result(timeout)
        except grpc.RpcError as failure:
            raise self._error_of(failure) from failure

    def exception(self, timeout: float | None = None) -> Exception | None:
        failure: Exception | None = self._call.exception(timeout)
        return self._error_of(failure) if isinstance(failure, grpc.RpcError) else failure

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._call.add_done_callback(lambda _call: callback(self))

    def _error_of(self, failure: grpc.RpcError) -> ShopError:
        error = ShopError.of(failure)
        if _is_refused(error):
            self._refuse_token()
        return error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


def _with_token(given: Any, token: str) -> SyncCallDetails:
    metadata = [*(given.metadata or ()), ("authorization", f"Bearer {token}")]
    return _sync_details(given, timeout_s=given.timeout, metadata=metadata)


def _sync_details(given: Any, *, timeout_s: float | None, metadata: Any) -> SyncCallDetails:
    return SyncCallDetails(
        method=given.method,
        timeout=timeout_s,
        metadata=metadata,
        credentials=given.credentials,
        wait_for_ready=given.wait_for_ready,
        compression=given.compression,
    )


class _Messages(_Outcome):
    """The messages of a stream; everything else is the call's."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as failure:
            raise self._error_of(failure) from failure
