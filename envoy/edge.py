"""The edge of one environment: its addresses, the replicas behind it, its certificates and limits."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from chassis.service import services
from envoy.limits import Limit, limits

SERVICES: Final = services()
"""The services that the edge calls. Each has a cluster of its name."""

SERVED_BY: Final = {service.name: service.serves for service in SERVICES}
"""The gRPC services of each cluster. The health of the first one counts as the health of the replica."""


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address or a DNS name, a TCP port, and whether the port uses TLS."""

    host: str
    port: int
    has_tls: bool = False

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Return the address in a text of the form `host:port`, `http://host:port` or `https://host:port`.

        Raises:
            ValueError: the text has another form.
        """
        parts = urlsplit(text if "://" in text else f"//{text}")
        if not parts.hostname or parts.port is None or parts.scheme not in {"", "http", "https"}:
            raise ValueError("must be host:port, http://host:port or https://host:port")
        return cls(parts.hostname, parts.port, has_tls=parts.scheme == "https")

    @property
    def subject(self) -> str:
        """The type of the subject alternative name for the host in a certificate, in Envoy's terms."""
        return "IP_ADDRESS" if re.fullmatch(r"[0-9.]+|.*:.*", self.host) else "DNS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The replicas of one service: either the address of each (`replicas`) or one name for all (`dns`).

    Attributes:
        name: a key of `SERVED_BY`.
        replicas: IP addresses that do not change while the edge runs.
        dns: a name that resolves to the addresses of all replicas; it is resolved periodically. On Kubernetes this must
            be a headless service: behind the IP of another service Envoy could not tell the replicas apart.
    """

    name: str
    replicas: tuple[Address, ...] = ()
    dns: Address | None = None

    def __post_init__(self) -> None:
        """Refuse a cluster without a service or an address."""
        if self.name not in SERVED_BY:
            raise ValueError(f"cluster {self.name} is not one of {', '.join(SERVED_BY)}")
        if bool(self.replicas) == (self.dns is not None):
            raise ValueError(f"cluster {self.name} needs either replicas or a DNS name")

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The endpoints to configure."""
        return self.replicas or ((self.dns,) if self.dns else ())


@dataclass(frozen=True, slots=True)
class CertificateFolder:
    """The folder with a certificate (`tls.crt`), its key (`tls.key`) and the CA of its peers (`ca.crt`).

    Attributes:
        path: the folder, laid out like a mounted secret of cert-manager on Kubernetes.
        watched: Envoy reloads the files after a rename in this folder. On Kubernetes it is the same folder, in which
            `..data` is renamed.
    """

    path: Path
    watched: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """The values that differ between environments.

    Attributes:
        address: the IP address to listen on; `::` for all addresses of both families.
        port: the port for REST and gRPC without TLS.
        admin_port: the port of Envoy's admin interface. It is always on 127.0.0.1, because it can stop the edge.
        keys_port: a port on 127.0.0.1, on which the edge fetches the keys of access tokens from itself.
        descriptor_path: the path of `generated/shop.binpb` for Envoy: absolute, or relative to its working directory.
        files_root: the folder that holds the files of the documentation page for Envoy (files.py).
        clusters: one for every key of `SERVED_BY`.
        inside: the edge's certificate for the services, and their CA. Without it, the edge calls them in clear text.
        outside: the certificate that callers see. Without it, there is no TLS port.
        tls_port: the port for REST and gRPC with TLS 1.2 or newer.
        secrets_folder: the folder in which Envoy finds the files of `render_secrets`.
        access_log_path: the file of the access log, one line of JSON per request.
        drain_s: how long HTTP/2 callers may still send calls after the edge began to drain, in whole seconds. Give
            Envoy the same value as `--drain-time-s`, and wait as long before SIGTERM (README.md, "Stop").
        has_reflection: whether `grpc.reflection.*` is routed; the services must serve it too.
        token_issuer: the required issuer of access tokens; the services' TOKEN_ISSUER.
        token_audience: the required audience of access tokens; the services' TOKEN_AUDIENCE.
        rate_limit: calls per address in 15 minutes. An IPv6 address counts as its /64 network, because a customer gets
            a whole one.
        public_write_limit: the same for calls that need no token and change something: log in, refresh, register.
        rate_limiter: the service that counts for all edges together (docs/adr/0035), in addition to the edge's own
            counts. Without it, each edge counts for itself. With `inside` it is known by `spiffe://shop/rate_limiter`.
        trusted_hops: the number of our own proxies in front of the edge that add to `x-forwarded-for`. If it is too
            high, callers can choose the address that their limit counts; if too low, all callers share a proxy's limit.
        cors_origins: origins, such as `https://shop.example`, whose pages may call from a browser.
        hsts: whether to tell browsers to use only TLS for this name and all names below, for two years. Only with a
            certificate that browsers trust, because browsers then refuse to show a page behind any other.
        metrics_port: the port of `/metrics` for Prometheus; 0 for none. Only in a network that callers cannot reach.
        traces_to: the receiver of traces, OTLP over gRPC. Without it no call is traced.
        traces_authority: the file with the CAs that may sign the receiver's certificate, if it has TLS.
        trace_sampling: the percentage of calls that are traced. The services follow the edge's decision.
    """

    address: str
    port: int
    admin_port: int
    keys_port: int
    descriptor_path: Path
    files_root: Path
    clusters: tuple[Cluster, ...]
    inside: CertificateFolder | None = None
    outside: CertificateFolder | None = None
    tls_port: int = 8443
    secrets_folder: Path = Path("/etc/envoy")
    access_log_path: str = "/dev/stdout"
    drain_s: int = 5
    has_reflection: bool = False
    token_issuer: str = "https://shop.local"  # noqa: S105  a name
    token_audience: str = "shop"  # noqa: S105  a name
    rate_limit: int = 100
    public_write_limit: int = 20
    rate_limiter: Address | None = None
    trusted_hops: int = 0
    cors_origins: tuple[str, ...] = ()
    hsts: bool = False
    metrics_port: int = 0
    traces_to: Address | None = None
    traces_authority: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    trace_sampling: float = 1

    def __post_init__(self) -> None:
        """Refuse an edge that lacks a service, because it would always answer 503 for it, and invalid origins."""
        if sorted(cluster.name for cluster in self.clusters) != sorted(SERVED_BY):
            raise ValueError(f"the edge needs exactly the clusters {', '.join(SERVED_BY)}")
        for origin in self.cors_origins:
            require_origin(origin)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits of one address."""
        return limits(rate_limit=self.rate_limit, public_write_limit=self.public_write_limit)


def require_origin(text: str) -> None:
    """Return if the text is an origin as browsers send it; a pattern or a URL with a path would never match one.

    Raises:
        ValueError: the text is not an origin.
    """
    parts = urlsplit(text)
    is_whole = f"{parts.scheme}://{parts.netloc}" == text and "*" not in text
    if not (is_whole and parts.netloc and parts.scheme in {"http", "https"}):
        raise ValueError("must be an origin, such as https://shop.example")
