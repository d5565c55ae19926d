"""The order service's settings: its own, and its name for the common ones."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from chassis.settings import Section
from chassis.telemetry.settings import TelemetrySettings


class OrderTelemetrySettings(TelemetrySettings):
    """Names the service."""

    service_name: str = "order_svc"


class UserServiceSettings(Section, env_prefix="USER_SERVICE_"):
    """The user service, as the order service calls it."""

    # Any gRPC target; several replicas as `ipv4:10.0.0.1:50051,10.0.0.2:50051`, or a name with several addresses.
    url: Annotated[str, Field(min_length=1)]
    # The DNS name in its certificate. Not the one in its address, which may be any replica's.
    tls_name: Annotated[str, Field(min_length=1)] = "user-svc"
    # A lookup takes milliseconds. Who waits longer than this waits for a fault, and the breaker should hear of it.
    timeout_s: Annotated[float, Field(gt=0, le=30)] = 2
    # When a replica is silent for this long the next one is asked too: far above what a lookup takes, and three tries
    # fit into timeout_s.
    hedge_after_s: Annotated[float, Field(gt=0, le=30)] = 0.5
