"""Where a server listens, how long its calls may last, and how it stops."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from chassis.settings import Seconds, Section


class ServerSettings(Section):
    """Where the server listens and how it stops. Drain, stop and the pools must fit into 30 s together."""

    host: str = "0.0.0.0"  # noqa: S104  a container is reached from outside itself
    port: Annotated[int, Field(ge=1, le=65535)] = 50051
    # Serves grpc.health.v1 alone, in clear text: Kubernetes' probes know no TLS. 0 is off.
    health_port: Annotated[int, Field(ge=0, le=65535)] = 0
    # Off unless switched on: production has no need to tell strangers what it serves.
    grpc_reflection: bool = False
    # Three health checks of the edge (1 s apart, 2 to be unhealthy): by then nobody sends new calls.
    drain_s: Annotated[float, Field(ge=0, le=15)] = 3
    # Longer than the slowest call that is allowed to finish (statement_timeout_s, 5 s).
    stop_grace_s: Annotated[float, Field(ge=0, le=12)] = 10
    # What a call may take when its caller names no deadline.
    max_call_s: Seconds = 30
    # How old a connection may get; gRPC spreads that by a tenth. Then its caller makes a new one and asks DNS again, so
    # that a replica that was added gets calls within 30 s: 1 s between two questions and 5 s in a cache included.
    max_connection_age_s: Seconds = 20
    # How long a stream may last if the token it was opened with does, as the edge has it. Streams that end spread
    # evenly over the replicas when they are opened again.
    max_stream_s: Seconds = 3600
