"""A piece of network that can be cut: what is under way is neither delivered nor refused, on either side."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Final

from chassis.testing import LOOPBACK
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Link:
    """Leads from a port of its own to another one.

    Attributes:
        port: to connect to.
    """

    def __init__(self, target: int) -> None:
        self.port: Final = free_port()
        self._target: Final = target
        self._is_whole: Final = threading.Event()
        self._is_whole.set()
        self._sockets: Final[list[socket.socket]] = []
        self._listener: Final = socket.create_server((LOOPBACK, self.port))
        self._start(self._accept)

    def cut(self) -> None:
        """Deliver nothing any more, not even the end of a connection."""
        self._is_whole.clear()
        # One or two connections more wait to be accepted, and Linux drops what else wants to connect.
        self._listener.listen(0)

    def mend(self) -> None:
        """Deliver the bytes that were held back, and forward again."""
        self._listener.listen()
        self._is_whole.set()

    def close(self) -> None:
        """Close every connection, and listen no more."""
        self.mend()
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):  # has ended by itself
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                self._is_whole.wait()
                try:
                    far = socket.create_connection((LOOPBACK, self._target))
                except OSError:  # no listener there
                    near.close()
                    continue
                self._sockets.extend((near, far))
                self._start(self._carry, near, far)
                self._start(self._carry, far, near)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):  # reset by one of the two
            while words := source.recv(65536):
                self._is_whole.wait()
                sink.sendall(words)
        self._is_whole.wait()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def cut(links: list[Link]) -> Iterator[None]:
    """Cut all of them while the block runs."""
    for link in links:
        link.cut()
    try:
        yield
    finally:
        for link in links:
            link.mend()
