"""Ports for servers that start later in a test, or again."""

from __future__ import annotations

import random
from typing import Final

from devstack.ports import ReservedPort

# Below what Linux gives to outgoing connections and to who asks for any port (32768 and up, unless it is told
# otherwise). From there, a client that knocks at a server that is away can be given the server's own port: it is then
# connected to itself, and the server cannot come back.
_RANGE: Final = range(15_000, 32_000)


def free_port() -> int:
    """Return a port that is free and that nobody gets by chance."""
    while True:
        try:
            reserved = ReservedPort(random.choice(_RANGE))
        except OSError:  # taken
            continue
        reserved.release()
        return reserved.number
