"""The address that calls and statements are sent to, as telemetry names it: `server.address` and `server.port`."""

import re
from dataclasses import dataclass
from typing import Final, Self

# The scheme of a gRPC target, with an optional DNS server: `dns:///`, `dns://8.8.8.8/`, `ipv4:`, `unix://`.
_SCHEME: Final = re.compile(r"^(?:(?:dns|xds):(?://[^/]*/)?|(?:ipv4|ipv6|unix|unix-abstract):(?://)?)")
_HOST_AND_PORT: Final = re.compile(r"\[?(.+?)\]?:(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server, or a list of servers that counts as one, as the configuration names it.

    Attributes:
        address: a host, an IP address or a socket's path; for several servers the whole list.
        port: None if the address includes the port or has none.
    """

    address: str
    port: int | None = None

    @classmethod
    def of_target(cls, target: str) -> Self:
        """Return the endpoint of a gRPC target, such as `host:port` or `dns:///host:port`."""
        name = _SCHEME.sub("", target, count=1)
        match = _HOST_AND_PORT.fullmatch(name) if "," not in name else None
        return cls(match[1], int(match[2])) if match else cls(name)

    def attributes(self) -> dict[str, str | int]:
        """Return the attributes of a span."""
        port = {} if self.port is None else {"server.port": self.port}
        return {"server.address": self.address, **port}

    def labels(self) -> tuple[str, str]:
        """Return the labels `server_address` and `server_port` of a metric."""
        return self.address, "" if self.port is None else str(self.port)
