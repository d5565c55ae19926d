"""The order service's settings of its own."""

from chassis.client.settings import PeerSettings


class UserServiceSettings(PeerSettings, env_prefix="USER_SERVICE_"):
    """The user service, as the order service calls it."""
