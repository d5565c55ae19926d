"""Calls of a gRPC service by typed stubs: channels with deadlines, retries and safe writes, and a circuit breaker.

The client wheel carries the modules that need only grpcio and protobuf: `channel`, `errors`, `hedging`, `interceptors`
and `policy`. The services use the others too: `breaker`, `renewable` and `telemetry`.
"""

from chassis.client.channel import connect
from chassis.client.errors import reason_of
from chassis.client.policy import CallPolicy

__all__ = ["CallPolicy", "connect", "reason_of"]
