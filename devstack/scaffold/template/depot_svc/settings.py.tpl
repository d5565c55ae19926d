"""The settings of the «depot» service."""

from chassis.client.settings import PeerSettings


class UserServiceSettings(PeerSettings, env_prefix="USER_SERVICE_"):
    """The user service, which publishes the keys of access tokens."""
