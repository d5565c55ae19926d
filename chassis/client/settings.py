"""The settings of a client of another service."""

from typing import Annotated

from pydantic import Field

from chassis.settings import Constant, Section


class PeerSettings(Section):
    """Another service, as this one calls it. A section of its own, with a prefix, for each of them."""

    url: Annotated[str, Field(min_length=1)]
    """Any gRPC target. `dns:///user-svc:50051` finds every replica; so does `ipv4:10.0.0.1:50051,10.0.0.2:50051`."""
    tls_name: Constant[str] = ""
    """The DNS name in its certificate. Empty: the service's own, `user-svc`. The name in the address may be any
    replica's."""
    timeout_s: Constant[float] = 2
    """The deadline of a call. A call takes milliseconds: after 2 s the replica has a fault, and the circuit breaker
    counts it."""
    hedge_after_s: Constant[float] = 0.5
    """If a replica has not answered a read after this time, the next replica is asked too. It is far above what a read
    takes, and three tries fit into `timeout_s`."""
