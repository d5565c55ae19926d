"""What a closed channel says to its calls. grpcio has several answers, of which one ends the process."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

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
