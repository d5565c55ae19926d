"""The order service's settings: its own, and its name for the common ones."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from chassis.settings import Constant, Section
from chassis.telemetry.settings import TelemetrySettings


class OrderTelemetrySettings(TelemetrySettings):
    """Names the service."""

    service_name: str = "order_svc"


class UserServiceSettings(Section, env_prefix="USER_SERVICE_"):
    """The user service, as the order service calls it."""

    url: Annotated[str, Field(min_length=1)]
    """Any gRPC target. `dns:///user-svc:50051` finds every replica; so does `ipv4:10.0.0.1:50051,10.0.0.2:50051`."""
    tls_name: Constant[str] = "user-svc"
    """The DNS name in the certificate of the user service. The name in the address may be any replica's."""
    timeout_s: Constant[float] = 2
    """The deadline of a lookup of buyers. A lookup takes milliseconds: after 2 s the replica has a fault, and the
    circuit breaker counts it."""
    hedge_after_s: Constant[float] = 0.5
    """If a replica has not answered a lookup after this time, the next replica is asked too. It is far above what a
    lookup takes, and three tries fit into `timeout_s`."""
