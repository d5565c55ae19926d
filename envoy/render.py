"""The edge's configuration as Envoy reads it, made from `edge.yaml.j2` and the contract's descriptor set."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from envoy.body_limits import MAX_BODY_BYTES, MIN_BODY_BYTES
from envoy.contract import DESCRIPTOR_SET, Binding, Contract
from envoy.errors import EDGE_ERRORS, EdgeError, rate_limited
from envoy.files import FILES, PAGE_HEADERS
from envoy.limits import DOMAIN, Limit, limits, rate_limiter_config

SERVED_BY: Final = {
    "user_svc": ("shop.user.v1.UserService", "shop.user.v1.SessionService"),
    "order_svc": ("shop.order.v1.OrderService",),
}
"""The gRPC services of each cluster. The health of the first is the health of the replica."""

HEALTH_PATHS: Final = {"user_svc": "/health/users", "order_svc": "/health/orders"}
"""Where the SystemService of each cluster is asked, as its bindings in the contract have it."""

DEFAULT_CLUSTER: Final = "user_svc"
"""Who is asked what any service could answer: `/health`, a health check without a name, reflection."""

GUARDED: Final = ("/api/", "/shop.")
"""The paths under which a token is needed, but for the methods that the contract calls public."""

KEYS: Final = "shop.user.v1.SessionService/GetJwks"
"""The method that publishes the public keys of access tokens."""

GRPC_TYPES: Final = r"application/grpc(\+proto)?(\s*;.*)?|application/grpc-web(-text)?(\+proto)?"
"""The content types of a gRPC call: of JSON in gRPC no service makes a message."""

SERVED_BY_ALL: Final = frozenset({"shop.system.v1.SystemService"})
"""The services that every cluster has."""


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address or a DNS name, a TCP port, and whether TLS is spoken there."""

    host: str
    port: int
    has_tls: bool = False

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Return the address that a text, `host:port`, `http://host:port` or `https://host:port`, names.

        Raises:
            ValueError: it names none.
        """
        parts = urlsplit(text if "://" in text else f"//{text}")
        if not parts.hostname or parts.port is None or parts.scheme not in {"", "http", "https"}:
            raise ValueError("must be host:port, http://host:port or https://host:port")
        return cls(parts.hostname, parts.port, has_tls=parts.scheme == "https")

    @property
    def subject(self) -> str:
        """How a certificate names the host: as Envoy's type of a subject alternative name."""
        return "IP_ADDRESS" if re.fullmatch(r"[0-9.]+|.*:.*", self.host) else "DNS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The replicas of one service: either the address of each (`replicas`) or one name for all (`dns`).

    Attributes:
        name: a key of `SERVED_BY`.
        replicas: IP addresses that stay the same for as long as the edge runs.
        dns: a name that resolves to the addresses of all replicas, looked up again and again. On Kubernetes the name
            of a headless service: behind an IP of the service's own, the replicas could not be told apart.
    """

    name: str
    replicas: tuple[Address, ...] = ()
    dns: Address | None = None

    def __post_init__(self) -> None:
        """Refuse what no edge could send a call to."""
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
    """Where Envoy finds a certificate (`tls.crt`), its key (`tls.key`) and the other side's CA (`ca.crt`).

    Attributes:
        path: the folder, as Kubernetes mounts a secret of cert-manager's.
        watched: the folder in which a rename brings new ones: the same one where Kubernetes renames `..data` in it.
    """

    path: Path
    watched: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What differs from one environment to the next.

    Attributes:
        address: the IP address to listen on. `::` is every address of both families.
        port: the port of REST and gRPC alike, without TLS.
        admin_port: the port of Envoy's admin interface, always on 127.0.0.1: it can stop the edge.
        keys_port: a port on 127.0.0.1 where the edge asks itself for the keys of access tokens.
        descriptor_path: where Envoy finds `generated/shop.binpb`. Absolute, or relative to Envoy's working directory.
        files_root: the folder below which Envoy finds the files of the documentation page (files.py).
        clusters: one for every key of `SERVED_BY`.
        inside: the certificate by which the services know the edge, and their CA. Without it, both talk in clear text.
        outside: the certificate that callers see. Without it, there is no TLS port.
        tls_port: the port of REST and gRPC alike, with TLS 1.2 or newer.
        secrets_folder: where Envoy finds what `render_secrets` returns.
        access_log_path: where one line of JSON a request goes.
        drain_s: how long HTTP/2 callers may still send calls once the edge drains, in whole seconds. Give Envoy the
            same as `--drain-time-s`, and wait as long before SIGTERM (README.md, "Stop").
        has_reflection: whether `grpc.reflection.*` is routed; the services must serve it too.
        token_issuer: who must have issued an access token, as `chassis.auth.access_tokens` has it.
        token_audience: for whom it must be, the same.
        rate_limit: how many calls one address may make in 15 minutes. An IPv6 address stands for its /64 network,
            which is what one customer gets.
        public_write_limit: the same for what anybody may do without a token: to log in, to refresh, to register.
        rate_limiter: the service that counts for all edges together (docs/adr/0035). Without one, each edge counts for
            itself alone, and does so beside it. With `inside` it is known by `spiffe://shop/rate_limiter`.
        trusted_hops: how many proxies of ours stand before the edge and add to `x-forwarded-for`. One too many, and
            callers choose the address that they are limited by; one too few, and all callers share the proxy's.
        cors_origins: the origins, as `https://shop.example`, whose pages may call from a browser.
        hsts: whether browsers are told to use nothing but TLS for two years, here and below this name. Only with a
            certificate that browsers trust: they let nobody past another one then.
        metrics_port: where Prometheus finds `/metrics`, and nothing else; 0 is nowhere. For a network that callers are
            not in.
        traces_to: who takes traces, with OTLP over gRPC. Without one nothing is traced.
        traces_authority: the file of the CAs that may sign for it, if it has TLS.
        trace_sampling: of how many calls in a hundred there is a trace. The services do as the edge says.
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
    token_issuer: str = "https://shop.local"  # noqa: S105 - a name
    token_audience: str = "shop"  # noqa: S105 - a name
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
        """Refuse an edge without a service, which would answer 503 for it for ever, and origins that are none."""
        if sorted(cluster.name for cluster in self.clusters) != sorted(SERVED_BY):
            raise ValueError(f"the edge needs exactly the clusters {', '.join(SERVED_BY)}")
        for origin in self.cors_origins:
            require_origin(origin)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """How much one address may ask for."""
        return limits(rate_limit=self.rate_limit, public_write_limit=self.public_write_limit)


def require_origin(text: str) -> None:
    """Return if the text is an origin as browsers send it: a pattern or a path would never be equal to one.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(text)
    is_whole = f"{parts.scheme}://{parts.netloc}" == text and "*" not in text
    if not (is_whole and parts.netloc and parts.scheme in {"http", "https"}):
        raise ValueError("must be an origin, such as https://shop.example")


class ServiceNotRouted(Exception):
    """The contract has a service that no cluster serves."""


class MethodNotGuarded(Exception):
    """The contract has a method that is not public, at a path where no token would be asked for."""


def render(edge: Edge, *, descriptor_set: Path = DESCRIPTOR_SET) -> str:
    """Return the YAML for `envoy --config-path`.

    Args:
        edge: the environment.
        descriptor_set: the contract to make routes from; Envoy itself reads `edge.descriptor_path` when it starts.

    Raises:
        ServiceNotRouted: the contract has a service that is not in `SERVED_BY`, or the other way round.
        FileMissing: a file of the documentation page is not installed.
        MethodNotGuarded: the contract has a method that needs a token at a path outside `GUARDED`.
    """
    contract = Contract(descriptor_set.read_bytes())
    routed = {service for services in SERVED_BY.values() for service in services} | SERVED_BY_ALL
    if routed != set(contract.services):
        names = ", ".join(sorted(routed ^ set(contract.services)))
        raise ServiceNotRouted(f"SERVED_BY and the contract differ in {names}")
    for binding in contract.bindings:
        if not binding.is_public and not (binding.path.startswith(GUARDED) and binding.rpc.startswith(GUARDED)):
            raise MethodNotGuarded(f"{binding.rpc} needs a token, and {binding.path} is not in GUARDED")
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - this is YAML: escaping for HTML would break it
    )
    templates.filters["quoted"] = json.dumps  # a JSON text is YAML; Jinja's own `tojson` escapes for HTML
    return templates.get_template("edge.yaml.j2").render(
        edge=edge,
        contract=contract,
        edge_errors=(*_rate_limit_errors(edge), *EDGE_ERRORS),
        limits=edge.limits,
        limits_domain=DOMAIN,
        rate_limit_filters=["local_ratelimit", *(["ratelimit"] if edge.rate_limiter else [])],
        max_body_bytes=MAX_BODY_BYTES,
        min_body_bytes=MIN_BODY_BYTES,
        guarded=GUARDED,
        keys=next(binding for binding in contract.bindings if binding.rpc == f"/{KEYS}"),
        match=_match,
        query_context=_query_context,
        grpc_types=GRPC_TYPES,
        served_by_all=SERVED_BY_ALL,
        files=FILES,
        page_headers=PAGE_HEADERS,
        served_by=SERVED_BY,
        streaming=[name for name, services in SERVED_BY.items() if any(map(contract.streams, services))],
        health_paths=HEALTH_PATHS,
        default_cluster=DEFAULT_CLUSTER,
    )


def render_rate_limiter(edge: Edge) -> str:
    """Return the rate limiter's file of limits for edges like this one."""
    return rate_limiter_config(edge.limits)


def render_secrets(edge: Edge) -> dict[str, str]:
    """Return the files, by name, that tell Envoy where the certificates are: it reads those again only by way of these.

    They belong into `edge.secrets_folder` before Envoy starts.
    """
    secrets: dict[str, dict[str, object]] = {}
    for side, certificates in (("inside", edge.inside), ("outside", edge.outside)):
        if certificates is None:
            continue
        secrets[f"{side}_certificate"] = {
            "tls_certificate": {
                "certificate_chain": {"filename": str(certificates.path / "tls.crt")},
                "private_key": {"filename": str(certificates.path / "tls.key")},
                "watched_directory": {"path": str(certificates.watched)},
            }
        }
    if edge.inside:
        secrets["inside_authorities"] = {
            "validation_context": {
                "trusted_ca": {"filename": str(edge.inside.path / "ca.crt")},
                "watched_directory": {"path": str(edge.inside.watched)},
            }
        }
    return {f"{name}.json": _secret(name, secret) for name, secret in secrets.items()}


def _secret(name: str, content: dict[str, object]) -> str:
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    return json.dumps({"resources": [{"@type": kind, "name": name, **content}]}, indent=2) + "\n"


def _match(binding: Binding, *, has_query: bool = False) -> dict[str, object]:
    """Return Envoy's RouteMatch for the binding, and for nothing else: the whole path and the verb."""
    path = {"safe_regex": {"regex": binding.path_regex}} if binding.variables else {"path": binding.path}
    headers = [{"name": ":method", "string_match": {"exact": binding.verb}}]
    if has_query:
        headers.append({"name": ":path", "string_match": {"contains": "?"}})
    return {**path, "headers": headers}


def _query_context(binding: Binding) -> dict[str, str]:
    """Return what `query.lua` must know of fields: who else says something of them, and of which no query may."""
    resumed = {"resume_token": "last-event-id"} if binding.is_stream else {}
    said = dict.fromkeys(binding.repeated, "list") | dict.fromkeys(binding.variables, "path")
    return said | dict.fromkeys(binding.secrets, "secret") | resumed


def _rate_limit_errors(edge: Edge) -> tuple[EdgeError, EdgeError]:
    is_public_write = "xds.route_metadata.filter_metadata['shop.edge']['limit'] == 'public_write'"
    return (rate_limited(edge.public_write_limit, condition=is_public_write), rate_limited(edge.rate_limit))
