"""A stream of changes without an end: after any interruption it is opened again behind the last message."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, overload

import grpc
from google.protobuf.message import Message
from grpc import aio

from protos.client.errors import REFUSED_TOKEN, ShopError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator


class _WatchRequest(Protocol):
    resume_token: str


class _WatchResponse(Protocol):
    @property
    def resume_token(self) -> str: ...


_Request = TypeVar("_Request", bound=_WatchRequest)
_Response = TypeVar("_Response", bound=_WatchResponse)

# The contract: while nothing changes, a heartbeat comes every 15 s; a stream without a message for 60 s is broken.
_SILENCE_S: Final = 60.0
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 30.0


@overload
def watch(
    rpc: aio.UnaryStreamMultiCallable[_Request, _Response], request: _Request, *, patience_s: float = 300
) -> AsyncGenerator[_Response, None]: ...
@overload
def watch(
    rpc: grpc.UnaryStreamMultiCallable[_Request, _Response], request: _Request, *, patience_s: float = 300
) -> Generator[_Response, None, None]: ...
def watch(rpc: Any, request: Any, *, patience_s: float = 300) -> Any:
    """Yield the messages of a stream, each once and in order; open the stream again when it ends.

    A message without a `change` is a heartbeat: the first comes at once, and what is listed after it misses no change.
    Each message has the `resume_token` from which a later watch() continues.

    The pauses between two tries grow from 0.2 s to 30 s, or are as long as the shop says.

    Args:
        rpc: of a stub: `stub.WatchOrders`; with a stub of grpc.aio the messages come by `async for`.
        request: the filter, and the token to begin after. It is not changed.
        patience_s: how long tries may fail, without a message in between, before the last error is raised.

    Raises:
        ShopError: trying again does not help, as with RESUME_TOKEN_EXPIRED or ROLE_REQUIRED, or the patience has
            ended.
        ValueError: the channel is closed.
    """
    reopening = _Reopening(request, patience_s=patience_s)
    return _aio_watch(rpc, reopening) if isinstance(rpc, aio.UnaryStreamMultiCallable) else _sync_watch(rpc, reopening)


class _Reopening:
    """Where the next stream begins, and when."""

    def __init__(self, request: Any, *, patience_s: float) -> None:
        if not isinstance(request, Message):
            raise TypeError(f"give the request message of a watch, not {type(request).__name__}")
        if "resume_token" not in request.DESCRIPTOR.fields_by_name:
            raise TypeError(f"{request.DESCRIPTOR.full_name} has no resume_token: this rpc is no watch")
        self.request: Any = type(request)()
        self.request.CopyFrom(request)
        self._patience_s = patience_s
        self._failures = 0
        self._failing_since_s = 0.0
        self._was_refused = False

    def is_for_caller(self, message: Any) -> bool:
        """Take note of a message; return whether it is a change or a heartbeat, and not the end of the stream."""
        if message.HasField("end"):
            return False  # the stream's status, which follows, says the same
        self.request.resume_token = message.resume_token
        self._failures = 0
        self._was_refused = False
        return True

    def pause_s(self, error: ShopError) -> float:
        """Return how long to wait before the stream is opened again.

        Raises:
            ShopError: this one, because opening it again does not help.
        """
        # A stream ends when its access token expires, and is refused when the key of the token was withdrawn: the next
        # one is opened with another token, if there is one.
        is_refused = error.reason in REFUSED_TOKEN and not self._was_refused
        if not (error.may_pass or is_refused):
            raise error
        self._was_refused = is_refused
        # An error knows the position better than the last message: it may have passed changes of others.
        self.request.resume_token = error.metadata.get("resumeToken") or self.request.resume_token
        if not self._failures:
            self._failing_since_s = time.monotonic()
        longest_s = min(_FIRST_PAUSE_S * 2**self._failures, _LONGEST_PAUSE_S)
        self._failures = min(self._failures + 1, 16)
        # At random, because a replica that stops ends the streams of all its callers at once.
        pause_s = (error.retry_after or 0) + random.uniform(longest_s / 2, longest_s)  # noqa: S311  no secret
        if time.monotonic() + pause_s - self._failing_since_s > self._patience_s:
            raise error
        return pause_s


def _silent() -> ShopError:
    return ShopError(f"The stream had no message for {_SILENCE_S:g} s.", code=grpc.StatusCode.UNAVAILABLE)


def _ended() -> ShopError:
    return ShopError("The stream has ended.", code=grpc.StatusCode.UNAVAILABLE)


async def _aio_watch(rpc: Any, reopening: _Reopening) -> AsyncGenerator[Any, None]:
    while True:
        ended_by = _ended()
        try:
            async with aclosing(_aio_stream(rpc(reopening.request))) as messages:
                async for message in messages:
                    if reopening.is_for_caller(message):
                        yield message
        except (aio.AioRpcError, ShopError) as error:
            ended_by = _as_shop_error(error)
        await asyncio.sleep(reopening.pause_s(ended_by))


async def _aio_stream(call: Any) -> AsyncGenerator[Any, None]:
    """Yield the messages of one stream until it ends; cancel it if it is silent, or not read to its end."""
    messages = aiter(call)
    try:
        while True:
            async with asyncio.timeout(_SILENCE_S):
                message = await anext(messages, None)
            if message is None:
                return
            yield message
    except TimeoutError:
        raise _silent() from None
    finally:
        call.cancel()


def _sync_watch(rpc: Any, reopening: _Reopening) -> Generator[Any, None, None]:
    while True:
        ended_by = _ended()
        try:
            # Opening a stream may need a log-in, which can fail as the stream can.
            with closing(_sync_stream(rpc(reopening.request))) as messages:
                for message in messages:
                    if reopening.is_for_caller(message):
                        yield message
        except (grpc.RpcError, ShopError) as error:
            ended_by = _as_shop_error(error)
        time.sleep(reopening.pause_s(ended_by))


def _sync_stream(call: Any) -> Generator[Any, None, None]:
    """Yield the messages of one stream, as _aio_stream() does."""
    watchdog = _Watchdog(call)
    try:
        for message in call:
            watchdog.is_reading = False
            yield message
            watchdog.heard()
    except (grpc.RpcError, ShopError):
        if watchdog.has_cancelled:
            raise _silent() from None
        raise
    finally:
        watchdog.stop()
        call.cancel()


def _as_shop_error(error: grpc.RpcError | ShopError) -> ShopError:
    return error if isinstance(error, ShopError) else ShopError.of(error)


class _Watchdog:
    """Cancels a stream that is silent for too long: without asyncio a read has no timeout.

    Attributes:
        has_cancelled: whether it did.
        is_reading: whether the stream is read; its caller may take any time over a message.
    """

    def __init__(self, call: Any) -> None:
        self.has_cancelled = False
        self.is_reading = True
        self._call = call
        self._heard_at_s = time.monotonic()
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="shop-watchdog", daemon=True).start()

    def heard(self) -> None:
        """Take note of a message."""
        self._heard_at_s = time.monotonic()
        self.is_reading = True

    def stop(self) -> None:
        """End its thread."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(max(self._heard_at_s + _SILENCE_S - time.monotonic(), 1)):
            if self.is_reading and time.monotonic() - self._heard_at_s >= _SILENCE_S:
                self.has_cancelled = True
                self._call.cancel()
                return
