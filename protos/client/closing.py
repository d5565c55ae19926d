"""One answer of a closed channel to its calls. grpcio has several, and one of them ends the process."""

from __future__ import annotations

import asyncio
import functools
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

import grpc

from protos.client.errors import ShopError

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpc import aio

_LOOK_UPS: Final = frozenset({"unary_unary", "unary_stream", "stream_unary", "stream_stream"})


def _closed() -> ValueError:
    return ValueError("the channel is closed: make calls before it is closed, or connect again")


class SyncClosing:
    """A channel without asyncio that refuses calls once it is closed; everything else is the channel's.

    It goes below the interceptors, for which it looks a method up at each call. On a closed channel of grpcio the first
    look-up of a method ends the process (SIGSEGV).
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._is_closed = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the channel, after the look-ups of other threads."""
        with self._lock:
            self._is_closed = True
        self._channel.close()

    def _looked_up(self, look_up: Callable[..., Any], *arguments: Any) -> Any:
        with self._lock:
            if self._is_closed:
                raise _closed()
            return look_up(*arguments)

    def __getattr__(self, name: str) -> Any:
        own = getattr(self._channel, name)
        return functools.partial(self._looked_up, own) if name in _LOOK_UPS else own


class AioClosing:
    """The closing of a channel of grpc.aio, for its interceptors. They exist before the channel: see of()."""

    _channel: weakref.ref[aio.Channel]

    def of(self, channel: aio.Channel) -> None:
        """Observe this channel, which may be dropped."""
        self._channel = weakref.ref(channel)

    def require_open(self) -> None:
        """Return if the channel is open.

        Raises:
            ValueError: it is closed.
        """
        if self._is_closed():
            raise _closed()

    def require_cancelled(self, *, times: int) -> None:
        """Return if the task, to which CancelledError has come, was cancelled by another than close().

        Args:
            times: how often close() cancels this task.

        Raises:
            ShopError: close() alone has ended the call.
        """
        task = asyncio.current_task()
        if task is not None and task.cancelling() <= times and self._is_closed():
            raise ShopError("The channel was closed.", code=grpc.StatusCode.CANCELLED)

    def _is_closed(self) -> bool:
        channel = self._channel()
        return channel is None or channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
