"""The edge's configuration as Envoy reads it, made from `edge.yaml.j2` and the contract's descriptor set."""

import json
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from envoy.body_limits import MAX_BODY_BYTES, MIN_BODY_BYTES
from envoy.contract import DESCRIPTOR_SET, Binding, Contract
from envoy.deprecation import deprecation_headers
from envoy.edge import SERVED_BY, SERVICES, Edge
from envoy.errors import EDGE_ERRORS, EdgeError, rate_limited
from envoy.files import FILES, PAGE_HEADERS
from envoy.limits import DOMAIN, rate_limiter_config
from envoy.replies import over_grpc, over_rest

HEALTH_PATHS: Final = {service.name: service.health_path for service in SERVICES}
"""The path of each cluster's SystemService over REST, as its bindings in the contract say."""

DEFAULT_CLUSTER: Final = SERVICES[0].name
"""The cluster for calls that every service answers: `/health`, a health check without a name, reflection."""

GUARDED: Final = ("/api/", "/shop.")
"""The prefixes of paths that require a token, except for methods that the contract calls public."""

REST: Final = ("/api/", "/health", "/.well-known/")
"""The prefixes of paths over REST. A gRPC call is refused there, and so is a path that the contract does not have."""

KEYS: Final = "shop.user.v1.SessionService/GetJwks"
"""The method that publishes the public keys of access tokens."""

GRPC_TYPES: Final = r"application/grpc(\+proto(\s*;.*)?)?|application/grpc-web(-text)?(\+proto)?"
"""The content types of a gRPC call. JSON in gRPC is refused, because no service can decode it. Parameters are allowed
where Envoy takes such a call for gRPC."""

SERVED_BY_ALL: Final = frozenset({"shop.system.v1.SystemService"})
"""The services that every cluster serves."""


class ServiceNotRouted(Exception):
    """The contract has a service that no cluster serves."""


class MethodNotGuarded(Exception):
    """The contract has a method that is not public, at a path that does not require a token."""


def render(edge: Edge, *, descriptor_set: Path = DESCRIPTOR_SET) -> str:
    """Return the YAML for `envoy --config-path`.

    Args:
        edge: the edge to render.
        descriptor_set: the contract that the routes are made from. Envoy itself reads `edge.descriptor_path`.

    Raises:
        ServiceNotRouted: the contract has a gRPC service that no service.toml says it serves, or the other way round.
        FileMissing: a file of the documentation page is not installed.
        MethodNotGuarded: the contract has a method that requires a token, at a path outside `GUARDED`.
    """
    contract = Contract(descriptor_set.read_bytes())
    _require_served(contract)
    _require_guarded(contract)
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  this is YAML: escaping for HTML would break it
    )
    templates.filters["quoted"] = json.dumps  # a JSON text is YAML; Jinja's own `tojson` escapes for HTML
    return templates.get_template("edge.yaml.j2").render(
        edge=edge,
        contract=contract,
        rest_prefixes=sorted({*REST, *(binding.prefix for binding in contract.bindings)}),
        edge_errors=(*_rate_limit_errors(edge), *EDGE_ERRORS),
        over_rest=over_rest,
        over_grpc=over_grpc,
        deprecation_headers=deprecation_headers,
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


def _require_served(contract: Contract) -> None:
    routed = {service for services in SERVED_BY.values() for service in services} | SERVED_BY_ALL
    if routed != set(contract.services):
        names = ", ".join(sorted(routed ^ set(contract.services)))
        raise ServiceNotRouted(f"`serves` in the files service.toml and the contract differ in {names}")


def _require_guarded(contract: Contract) -> None:
    for binding in contract.bindings:
        if not binding.is_public and not (binding.path.startswith(GUARDED) and binding.rpc.startswith(GUARDED)):
            raise MethodNotGuarded(f"{binding.rpc} needs a token, and {binding.path} is not in GUARDED")


def render_rate_limiter(edge: Edge) -> str:
    """Return the rate limiter's file of limits for edges like this one."""
    return rate_limiter_config(edge.limits)


def render_secrets(edge: Edge) -> dict[str, str]:
    """Return files, by name, with the paths of the certificates; Envoy reloads only certificates named in such files.

    Write them to `edge.secrets_folder` before Envoy starts.
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
    """Return an Envoy RouteMatch that matches only the binding: the whole path and the verb."""
    path = {"safe_regex": {"regex": binding.path_regex}} if binding.variables else {"path": binding.path}
    headers = [{"name": ":method", "string_match": {"exact": binding.verb}}]
    if has_query:
        headers.append({"name": ":path", "string_match": {"contains": "?"}})
    return {**path, "headers": headers}


def _query_context(binding: Binding) -> dict[str, str]:
    """Return the context of `query.lua`: by field, why a query may not set it, or may set it more than once."""
    resumed = {"resume_token": "last-event-id"} if binding.is_stream else {}
    said = dict.fromkeys(binding.repeated, "list") | dict.fromkeys(binding.variables, "path")
    return said | dict.fromkeys(binding.secrets, "secret") | resumed


def _rate_limit_errors(edge: Edge) -> tuple[EdgeError, EdgeError]:
    is_public_write = "xds.route_metadata.filter_metadata['shop.edge']['limit'] == 'public_write'"
    return (rate_limited(edge.public_write_limit, condition=is_public_write), rate_limited(edge.rate_limit))
