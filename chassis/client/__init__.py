"""Calls of a gRPC service by typed stubs: channels with deadlines, retries and safe writes, and a circuit breaker."""

from chassis.client.channel import CallPolicy, connect, connect_sync, reason_of

__all__ = ["CallPolicy", "connect", "connect_sync", "reason_of"]
