"""Where a server listens, how long its calls may last, and how it stops."""

from typing import Annotated

from pydantic import Field

from chassis.settings import Constant, Seconds, Section


class ServerSettings(Section):
    """Where the server listens and how it stops. Drain, stop and the pools must fit into 30 s together."""

    host: str = "0.0.0.0"  # noqa: S104  a container is reached from outside itself
    port: Annotated[int, Field(ge=1, le=65535)] = 50051
    """The port of calls."""
    health_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """A port with `grpc.health.v1` alone, in clear text, since Kubernetes' probes cannot use mutual TLS. 0 is off; the
    image sets 50052."""
    grpc_reflection: bool = False
    """Whether grpcurl and other clients may ask which methods are served. For development: production need not tell
    strangers."""
    drain_s: Annotated[float, Field(ge=0, le=15)] = 3
    """How long a process serves on after SIGTERM: three health checks of the edge (1 s apart, 2 failures are
    unhealthy). If it is shorter, calls still arrive at a replica that has stopped."""
    stop_grace_s: Annotated[float, Field(ge=0, le=12)] = 10
    """How long calls may take to finish after that. It is longer than `DATABASE_STATEMENT_TIMEOUT_S`, the slowest
    statement that may finish."""
    max_call_s: Constant[float] = 30
    """The deadline of a call that brings none, and the longest one."""
    max_connection_age_s: Seconds = 20
    """Age at which a connection ends, give or take a tenth; its calls finish first. The caller then connects anew and
    asks DNS again, so a replica that was added gets calls within 30 s: 1 s between two questions and 5 s in a DNS cache
    included."""
    max_stream_s: Constant[float] = 3600
    """How long a stream lasts at most; it ends earlier with its access token. Streams that end and are opened again
    spread evenly over the replicas."""
