"""The order service's settings: its own, and its name for the common ones."""

from __future__ import annotations

from chassis.client.settings import PeerSettings
from chassis.telemetry.settings import TelemetrySettings


class OrderTelemetrySettings(TelemetrySettings):
    """Names the service."""

    service_name: str = "order_svc"


class UserServiceSettings(PeerSettings, env_prefix="USER_SERVICE_"):
    """The user service, as the order service calls it."""
