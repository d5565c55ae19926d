"""Ports of the loopback interface, kept for the stack while it runs."""

from __future__ import annotations

import errno
import socket
import sys
import time
from typing import Final

from devstack.errors import StackError

LOOPBACK: Final = "127.0.0.1"
# How long a killed process may still hold its ports, in seconds.
_LETS_GO_S: Final = 1.0


class ReservedPort:
    """A TCP port kept for one of the stack's processes, also while that process is dead.

    A socket stays bound to the port and never listens. Linux lets a server with SO_REUSEADDR (gRPC, PostgreSQL and
    Envoy set it) listen there all the same, and gives the port neither to a program that asks for any free port nor
    to an outgoing connection. Elsewhere the port is only known to have been free a moment ago.
    """

    def __init__(self, number: int = 0) -> None:
        """Reserve the port with this number, or any free one.

        Raises:
            OSError: the port is taken, or not ours to take.
        """
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((LOOPBACK, number))
        except OSError:
            self._socket.close()
            raise
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()

    def release(self) -> None:
        """Give the port back; releasing it again does nothing."""
        self._socket.close()


def reserve_edge_port(number: int, *, variable: str) -> ReservedPort:
    """Return a port that callers use, and that this variable sets; any free one for 0.

    Raises:
        StackError: another program listens there, or the port is for root only.
    """
    # The edge of a stack that was killed a moment ago may still be on its way out.
    deadline = time.monotonic() + _LETS_GO_S
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
