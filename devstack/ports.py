"""Ports of the loopback interface, reserved for the stack while it runs."""

from __future__ import annotations

import errno
import socket
import sys
import time
from typing import Final

from devstack.errors import StackError

LOOPBACK: Final = "127.0.0.1"
# How long a killed process may still hold its ports, in seconds.
_RELEASE_TIMEOUT_S: Final = 1.0


class ReservedPort:
    """A TCP port reserved for a process of the stack, even while that process does not run.

    A socket stays bound to the port and never listens. On Linux a server that sets SO_REUSEADDR, as gRPC, PostgreSQL
    and Envoy do, can still listen on the port; but Linux gives the port neither to a program that asks for any free
    port nor to an outgoing connection. On other systems the port is only known to have been free a moment ago.
    """

    def __init__(self, number: int = 0, *, host: str = LOOPBACK) -> None:
        """Reserve the port with this number, or any free one, at the address on which the process will listen.

        Raises:
            OSError: the port is in use, or only root may use it.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, number))
        except OSError:
            self._socket.close()
            raise
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()

    def release(self) -> None:
        """Release the port; releasing it again does nothing."""
        self._socket.close()


def reserve_edge_port(number: int, *, variable: str) -> ReservedPort:
    """Reserve a port for callers; with 0, any free one. `variable` names the setting in messages.

    Raises:
        StackError: another program listens on the port, or only root may use it.
    """
    # The edge of a stack that was killed a moment ago may not have released the port yet.
    deadline = time.monotonic() + _RELEASE_TIMEOUT_S
    while True:
        try:
            return ReservedPort(number)
        except PermissionError:
            raise StackError(f"port {number} is for root only: set {variable} to one above 1023") from None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if time.monotonic() > deadline:
                message = f"port {number} is taken: stop what listens there, or set {variable} to another"
                raise StackError(message) from None
        time.sleep(0.05)
