"""Ports for servers that start later in a test, or again."""

from __future__ import annotations

import random
from typing import Final

from chassis.service import services
from devstack.ports import ReservedPort

# Below Linux' default range of ephemeral ports (32768 and up). A client that connects to a stopped server can be given
# the server's own port from that range: it is then connected to itself, and the server cannot start again.
_RANGE: Final = range(15_000, 32_000)


def free_port() -> int:
    """Return a free port outside of the ephemeral range."""
    while True:
        try:
            reserved = ReservedPort(random.choice(_RANGE))
        except OSError:  # taken
            continue
        reserved.release()
        return reserved.number


def closed_ports() -> dict[str, list[int]]:
    """Return ports for the replicas of every service, at which nothing listens."""
    return {service.name: [free_port()] for service in services()}
