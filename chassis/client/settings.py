"""The settings of a client of another service."""

import re
from typing import Annotated, Final

from pydantic import Field, field_validator

from chassis.settings import Constant, Section

_PORT: Final = r"(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])"
_IPV4: Final = rf"\d+(?:\.\d+){{3}}:{_PORT}"
_IPV6: Final = rf"\[[\w:.%]+\]:{_PORT}"
_NAMED: Final = rf"[\w.-]+:{_PORT}"
# https://grpc.github.io/grpc/core/md_doc_naming.html. A target with another scheme is looked up in DNS as a whole.
_TARGET: Final = re.compile(
    rf"(?:dns:(?://[^/]*/)?)?(?:{_NAMED}|{_IPV6})"
    rf"|ipv4:{_IPV4}(?:,{_IPV4})*"
    rf"|ipv6:{_IPV6}(?:,{_IPV6})*"
    r"|unix(?:-abstract)?:.+|xds:///.+"
)


class PeerSettings(Section):
    """Another service, as this one calls it. A section of its own, with a prefix, for each of them."""

    url: Annotated[str, Field(min_length=1)]
    """Its address, `host:port`, or another gRPC target. `dns:///user-svc:50051` finds every replica; so does
    `ipv4:10.0.0.1:50051,10.0.0.2:50051`."""
    tls_name: Constant[str] = ""
    """The DNS name in its certificate. Empty: the service's own, `user-svc`. The name in the address may be any
    replica's."""
    timeout_s: Constant[float] = 2
    """The deadline of a call. A call takes milliseconds: after 2 s the replica has a fault, and the circuit breaker
    counts it."""
    hedge_after_s: Constant[float] = 0.5
    """If a replica has not answered a read after this time, the next replica is asked too. It is far above what a read
    takes, and three tries fit into `timeout_s`."""

    @field_validator("url")
    @classmethod
    def _is_target(cls, url: str) -> str:
        # Empty where a section lets it be, because its peer is optional.
        if url and not _TARGET.fullmatch(url):
            raise ValueError("must be host:port or dns:///host:port")
        return url
