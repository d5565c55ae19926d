"""The order service's settings of its own."""

from __future__ import annotations

from chassis.client.settings import PeerSettings


class UserServiceSettings(PeerSettings, env_prefix="USER_SERVICE_"):
    """The user service, as the order service calls it."""
