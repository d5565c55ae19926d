"""The edge's configuration, as the real Envoy understands it, and what the edge answers with no service behind it."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import itertools
import json
import re
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx
import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.api.annotations_pb2 import http as http_rule
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from shop.system.v1.error_reason_pb2 import ErrorReason

from chassis.auth.access_tokens import TokenSettings
from chassis.server.validation import json_name
from chassis.service import services
from devstack.certificates import Certificates
from envoy.binary import find_envoy
from envoy.contract import DESCRIPTOR_SET, Binding, Contract
from envoy.edge import SERVED_BY, Address, Cluster, Edge
from envoy.environments import compose, kubernetes, laptop
from envoy.errors import EDGE_ERRORS, EdgeError
from envoy.files import FILES, REPOSITORY, File, FileMissing
from envoy.render import MethodNotGuarded, ServiceNotRouted, render, render_secrets
from tests.support.ports import closed_ports, free_port
from tests.support.waiting import until
from user_svc.keys import KeySettings
from user_svc.model import require_small_profile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTRACT = Contract(DESCRIPTOR_SET.read_bytes())

LIMITER = Address("rate-limiter", 8081)

PORTS = {service.name: [2 * n + 1, 2 * n + 2] for n, service in enumerate(services())}

ENVIRONMENTS = {
    "laptop": laptop(port=18080, admin_port=19901, keys_port=19902, service_ports=PORTS),
    "compose": compose(),
    "kubernetes": kubernetes(),
    "optional": replace(
        kubernetes(), traces_to=Address("otel-collector", 4317), trace_sampling=0.5, rate_limiter=LIMITER
    ),
}

JSON = {"content-type": "application/json"}

KEY = Ed25519PrivateKey.generate()
X = base64.urlsafe_b64encode(KEY.public_key().public_bytes_raw()).decode().rstrip("=")
JWKS = f'{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": "{X}"}}]}}'


@functools.cache
def configuration(edge: Edge) -> Any:
    return yaml.load(render(edge), Loader=yaml.CSafeLoader)


def connection_manager(edge: Edge) -> Any:
    plain, *_ = configuration(edge)["static_resources"]["listeners"]
    return plain["filter_chains"][0]["filters"][0]["typed_config"]


def http_filter(edge: Edge, name: str) -> Any:
    filters = connection_manager(edge)["http_filters"]
    return next(each["typed_config"] for each in filters if each["name"] == name)


def route_lists(edge: Edge) -> dict[str, Any]:
    """Return the list of routes for each prefix of a path."""
    [host] = connection_manager(edge)["route_config"]["virtual_hosts"]
    lists = host["matcher"]["matcher_tree"]["prefix_match_map"]["map"]
    return {prefix: each["action"]["typed_config"]["routes"] for prefix, each in lists.items()}


def routes(edge: Edge) -> Any:
    return [route for each in route_lists(edge).values() for route in each]


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def edge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Edge:
    # Images hold the files and the certificates elsewhere; Envoy reads them when it validates.
    tmp_path = tmp_path_factory.mktemp("certificates")
    certificates = Certificates(tmp_path / "tls")
    certificates.prepare()
    edge = replace(
        ENVIRONMENTS[request.param],
        descriptor_path=DESCRIPTOR_SET,
        files_root=REPOSITORY,
        inside=certificates.folder_of("edge"),
        outside=certificates.folder_of("localhost"),
        secrets_folder=tmp_path,
    )
    for name, secret in render_secrets(edge).items():
        (tmp_path / name).write_text(secret)
    return edge


def test_envoy_accepts_the_configuration_of_every_environment(edge: Edge, tmp_path: Path) -> None:
    config = tmp_path / "edge.yaml"
    config.write_text(render(edge))

    envoy = subprocess.run(
        [find_envoy(), "--mode", "validate", "--config-path", config],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert envoy.returncode == 0, envoy.stderr


def test_each_cluster_is_reached_by_mutual_tls_and_by_its_own_name(edge: Edge) -> None:
    names = {service.name for service in services()}
    every = configuration(edge)["static_resources"]["clusters"]
    clusters = {each["name"]: each for each in every if each["name"].removesuffix("_streams") in names}

    assert clusters.keys() >= names
    for cluster_name, cluster in clusters.items():
        context = cluster["transport_socket"]["typed_config"]["common_tls_context"]
        validation = context["combined_validation_context"]
        (name,) = validation["default_validation_context"]["match_typed_subject_alt_names"]
        assert name == {
            "san_type": "URI",
            "matcher": {"exact": f"spiffe://shop/{cluster_name.removesuffix('_streams')}"},
        }
        assert validation["validation_context_sds_secret_config"]["name"] == "inside_authorities"
        assert [each["name"] for each in context["tls_certificate_sds_secret_configs"]] == ["inside_certificate"]


def addresses(cluster: Any) -> list[Any]:
    return [each["endpoint"] for each in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]]


def test_the_tls_port_does_what_the_plain_one_does(edge: Edge) -> None:
    plain, encrypted, *_others = configuration(edge)["static_resources"]["listeners"]

    assert encrypted["filter_chains"][0]["filters"] == plain["filter_chains"][0]["filters"]
    assert "transport_socket" not in plain["filter_chains"][0]
    context = encrypted["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    assert context["tls_params"] == {"tls_minimum_protocol_version": "TLSv1_2"}


def test_without_certificates_there_is_no_tls() -> None:
    edge = ENVIRONMENTS["laptop"]

    assert [each["name"] for each in configuration(edge)["static_resources"]["listeners"]] == ["edge", "keys"]
    assert not render_secrets(edge)


@pytest.mark.parametrize("environment", ["compose", "kubernetes"])
def test_containers_have_tls_on_both_sides(environment: str) -> None:
    edge = ENVIRONMENTS[environment]

    assert edge.inside
    assert edge.outside
    assert edge.inside.path != edge.outside.path


def test_the_admin_interface_is_on_loopback_only(edge: Edge) -> None:
    address = configuration(edge)["admin"]["address"]["socket_address"]["address"]

    assert address == "127.0.0.1"


def test_prometheus_reaches_the_metrics_and_nothing_else_of_the_admin_interface() -> None:
    edge = ENVIRONMENTS["kubernetes"]
    [metrics] = [each for each in configuration(edge)["static_resources"]["listeners"] if each["name"] == "metrics"]

    manager = metrics["filter_chains"][0]["filters"][0]["typed_config"]
    [route] = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert route["match"]["path"] == "/metrics"
    assert metrics["address"]["socket_address"]["port_value"] == 9903


def test_nothing_is_traced_without_a_receiver() -> None:
    assert "tracing" not in connection_manager(ENVIRONMENTS["kubernetes"])
    assert connection_manager(ENVIRONMENTS["optional"])["tracing"]["random_sampling"] == {"value": 0.5}


def test_a_traced_request_keeps_its_id_and_its_query_is_in_no_span() -> None:
    manager = connection_manager(ENVIRONMENTS["optional"])

    assert manager["request_id_extension"]["typed_config"]["pack_trace_reason"] is False
    assert manager["tracing"]["max_path_tag_length"] == 0


def test_trace_headers_of_a_caller_are_dropped(edge: Edge) -> None:
    mutations = connection_manager(edge)["early_header_mutation_extensions"][0]["typed_config"]["mutations"]

    removed = {each.get("remove") for each in mutations}
    assert {"traceparent", "tracestate", "baggage"} <= removed


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("otel:4317", Address("otel", 4317)),
        ("http://127.0.0.1:1", Address("127.0.0.1", 1)),
        ("https://[::1]:1/", Address("::1", 1, has_tls=True)),
    ],
)
def test_an_address_has_a_host_and_a_port(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize("text", ["otel", "ftp://otel:4317", "otel:port", ":4317", ""])
def test_a_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Address.parse(text)


def test_calls_never_go_to_replicas_that_are_known_to_be_down(edge: Edge) -> None:
    clusters = [each for each in configuration(edge)["static_resources"]["clusters"] if each["name"] in SERVED_BY]

    assert {cluster["name"] for cluster in clusters} == set(SERVED_BY)
    for cluster in clusters:
        assert cluster["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}
        (check,) = cluster["health_checks"]
        assert check["grpc_health_check"]["service_name"] in SERVED_BY[cluster["name"]]


def test_containers_are_found_by_name_and_processes_by_address() -> None:
    types = {
        name: {
            cluster["type"]
            for cluster in configuration(edge)["static_resources"]["clusters"]
            if cluster["name"] in SERVED_BY
        }
        for name, edge in ENVIRONMENTS.items()
    }

    by_name = {"STRICT_DNS"}
    assert types == {"laptop": {"STATIC"}, "compose": by_name, "kubernetes": by_name, "optional": by_name}


@pytest.mark.parametrize("service", CONTRACT.services)
def test_every_service_of_the_contract_is_transcoded_and_routed(service: str, edge: Edge) -> None:
    transcoder = http_filter(edge, "envoy.filters.http.grpc_json_transcoder")
    paths = {route["match"].get("path") for route in routes(edge)}

    assert service in transcoder["services"]
    assert f"/{service}/" in route_lists(edge)
    assert {f"/{service}/{method}" for method in CONTRACT.methods(service)} <= paths


@pytest.mark.parametrize("binding", CONTRACT.bindings, ids=lambda binding: f"{binding.method} {binding.path}")
def test_every_binding_of_the_contract_has_a_route_of_its_own(binding: Binding, edge: Edge) -> None:
    path = re.sub(r"\{[^}]+\}", "0197", binding.path)

    for query in ("", "?a=b"):
        route = route_of(edge, verb=binding.verb, path=path + query)
        assert is_let_in(route)
        assert route["metadata"]["filter_metadata"]["shop.edge"]["body"] == ("json" if binding.body else "none")


def test_creations_over_rest_are_201_and_nothing_else_is(edge: Edge) -> None:
    lua = "envoy.filters.http.lua"
    created = [
        route["match"]
        for route in routes(edge)
        if route.get("typed_per_filter_config", {}).get(lua, {}).get("name") == "created"
    ]

    assert sorted(match["path"] for match in created) == sorted(
        f"/{service}/{method}"
        for service in CONTRACT.services
        for method in CONTRACT.methods(service)
        if method.startswith("Create")
    )
    assert all(match["headers"][0]["name"] == "x-envoy-original-path" for match in created)


@pytest.mark.parametrize("binding", CONTRACT.bindings, ids=lambda binding: f"{binding.method} {binding.path}")
def test_lua_is_on_where_the_route_after_transcoding_names_a_script(binding: Binding, edge: Edge) -> None:
    lua = "envoy.filters.http.lua"
    path = re.sub(r"\{[^}]+\}", "0197", binding.path)
    over_rest = [route_of(edge, verb=binding.verb, path=path + query) for query in ("", "?a=b")]
    transcoded = [each for each in routes(edge) if each["match"].get("path") == binding.rpc]

    assert transcoded
    if any(lua in each.get("typed_per_filter_config", {}) for each in transcoded):
        assert all(lua in each["typed_per_filter_config"] for each in over_rest)


def test_reflection_is_reachable_in_development_only() -> None:
    reflected = {
        name
        for name, edge in ENVIRONMENTS.items()
        if "/grpc.reflection." in [route["match"].get("prefix") for route in routes(edge)]
    }

    assert reflected == {"laptop"}


def route_of(edge: Edge, *, verb: str, path: str, **headers: str) -> Any:
    """Return the first route that fits, as Envoy picks it, for the conditions that are in use here."""
    headers = {":method": verb, ":path": path, **headers}
    prefix = max((each for each in route_lists(edge) if path.startswith(each)), key=len)
    for route in route_lists(edge)[prefix]:
        if _is_path(route["match"], path.partition("?")[0]) and all(
            _is_header(each, headers) for each in route["match"].get("headers", ())
        ):
            return route
    raise AssertionError("the last route fits everything")


def _is_path(match: Any, path: str) -> bool:
    if "safe_regex" in match:
        return re.fullmatch(match["safe_regex"]["regex"], path) is not None
    return path == match["path"] if "path" in match else path.startswith(match["prefix"])


def _is_header(condition: Any, headers: dict[str, str]) -> bool:
    value = headers.get(condition["name"])
    if "string_match" not in condition:
        return value is not None
    if value is None:  # Envoy inverts nothing that is not there
        return False
    ((kind, expected),) = condition["string_match"].items()
    fits = {
        "exact": lambda: value == expected,
        "prefix": lambda: value.startswith(expected),
        "contains": lambda: expected in value,
        "safe_regex": lambda: re.fullmatch(expected["regex"], value) is not None,
    }[kind]()
    return fits is not condition.get("invert_match", False)


def is_let_in(route: Any) -> bool:
    """Return whether a service gets what takes the route."""
    return "cluster" in route.get("route", {})


def needs_token(edge: Edge, *, verb: str, path: str) -> bool:
    """Return whether the route leaves the check on, and a rule asks for a token."""
    own = route_of(edge, verb=verb, path=path).get("typed_per_filter_config", {})
    rules = http_filter(edge, "envoy.filters.http.jwt_authn")["rules"]
    is_guarded = any("requires" in rule for rule in rules if _is_path(rule["match"], path))
    return is_guarded and "envoy.filters.http.jwt_authn" not in own


@pytest.mark.parametrize("binding", CONTRACT.bindings, ids=lambda binding: f"{binding.method} {binding.path}")
def test_a_token_is_required_for_every_method_that_is_not_public(binding: Binding, edge: Edge) -> None:
    path = re.sub(r"\{[^}]+\}", "0197", binding.path)

    assert needs_token(edge, verb=binding.verb, path=path) is not binding.is_public
    assert needs_token(edge, verb="POST", path=binding.rpc) is not binding.is_public


@pytest.mark.parametrize("path", ["/api/", "/api/v1/users/", "/api/v1/users:export", "/shop.user.v1.UserService/New"])
def test_paths_outside_the_contract_reach_no_service(path: str, edge: Edge) -> None:
    assert not is_let_in(route_of(edge, verb="POST", path=path, **{"content-type": "application/grpc"}))


def test_without_a_token_a_service_gets_only_what_the_contract_calls_public(edge: Edge) -> None:
    public = {each for binding in CONTRACT.bindings if binding.is_public for each in (binding.path, binding.rpc)}

    for route in routes(edge):
        is_open = "envoy.filters.http.jwt_authn" in route.get("typed_per_filter_config", {})
        if is_open and is_let_in(route):
            assert route["match"]["path"] in public, route["match"]


def test_a_method_at_a_path_without_a_token_check_is_refused(tmp_path: Path) -> None:
    contract = FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes())
    (get_user,) = [
        method
        for file in contract.file
        for service in file.service
        for method in service.method
        if method.name == "GetUser"
    ]
    get_user.options.Extensions[http_rule].get = "/elsewhere/{id}"
    descriptor_set = tmp_path / "shop.binpb"
    descriptor_set.write_bytes(contract.SerializeToString())

    with pytest.raises(MethodNotGuarded, match="/elsewhere/"):
        render(ENVIRONMENTS["compose"], descriptor_set=descriptor_set)


def test_the_edge_and_the_services_have_the_same_requirements_for_tokens(edge: Edge) -> None:
    provider = http_filter(edge, "envoy.filters.http.jwt_authn")["providers"]["shop"]
    services = TokenSettings()

    assert (provider["issuer"], provider["audiences"]) == (services.issuer, [services.audience])
    assert provider["clock_skew_seconds"] == services.leeway_s
    assert {location["name"] for location in provider["from_headers"]} == {"authorization"}


def removed_from_every_request(edge: Edge) -> set[str]:
    (extension,) = connection_manager(edge)["early_header_mutation_extensions"]
    return {
        each.get("remove") or str(next(iter(each["remove_on_match"]["key_matcher"].values())))
        for each in extension["typed_config"]["mutations"]
    }


def test_identity_headers_of_callers_are_removed(edge: Edge) -> None:
    removed = removed_from_every_request(edge)

    assert {"x-user-", "x-jwt-", "x-edge-", "x-envoy-", "x-forwarded-client-cert", "x-request-id"} <= removed
    assert {"forwarded", "x-forwarded-host", "x-original-url", "baggage", "-bin"} <= removed
    assert "authorization" not in removed


def test_x_forwarded_for_is_trusted_for_the_configured_number_of_proxies() -> None:
    alone = ENVIRONMENTS["kubernetes"]
    behind_one = replace(alone, trusted_hops=1)

    assert "x-forwarded-for" in removed_from_every_request(alone)
    assert "x-forwarded-for" not in removed_from_every_request(behind_one)
    assert connection_manager(behind_one)["xff_num_trusted_hops"] == 1


def test_no_page_may_call_unless_its_origin_is_named() -> None:
    assert (
        "typed_per_filter_config"
        not in connection_manager(ENVIRONMENTS["kubernetes"])["route_config"]["virtual_hosts"][0]
    )


@pytest.mark.parametrize(
    "origin", ["*", "shop.example", "https://shop.example/", "https://*.example", "https://", "file://shop"]
)
def test_a_malformed_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="must be an origin"):
        replace(ENVIRONMENTS["compose"], cors_origins=(origin,))


def test_100_calls_in_15_minutes_are_the_limit_unless_set(edge: Edge) -> None:
    limits = http_filter(edge, "envoy.filters.http.local_ratelimit")

    buckets = [
        (each["token_bucket"]["max_tokens"], each["token_bucket"]["fill_interval"]) for each in limits["descriptors"]
    ]
    assert buckets == [(100, "900s"), (20, "900s")]


def test_a_service_without_a_cluster_is_refused(tmp_path: Path) -> None:
    contract = FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes())
    file = contract.file.add(name="shop/stock/v1/stock.proto", package="shop.stock.v1")
    file.service.add(name="StockService")
    descriptor_set = tmp_path / "shop.binpb"
    descriptor_set.write_bytes(contract.SerializeToString())

    with pytest.raises(ServiceNotRouted, match=r"shop\.stock\.v1\.StockService"):
        render(ENVIRONMENTS["compose"], descriptor_set=descriptor_set)


def test_an_edge_without_one_of_the_clusters_is_refused() -> None:
    with pytest.raises(ValueError, match="user_svc"):
        laptop(port=1, admin_port=2, keys_port=4, service_ports={})


def test_a_cluster_has_either_addresses_or_a_name() -> None:
    address = Address("127.0.0.1", 1)

    with pytest.raises(ValueError, match="either"):
        Cluster(name="user_svc")
    with pytest.raises(ValueError, match="either"):
        Cluster(name="user_svc", replicas=(address,), dns=address)


@pytest.mark.parametrize("reason", sorted({error.reason for error in EDGE_ERRORS}))
def test_the_reasons_of_the_edge_are_declared_in_the_contract(reason: str) -> None:
    assert f"ERROR_REASON_{reason}" in ErrorReason.keys()  # noqa: SIM118 - an enum wrapper, no dict


@pytest.fixture(scope="module")
def lonely_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A running edge with no service behind it: whatever it answers, it answers itself."""
    edge = laptop(port=free_port(), admin_port=free_port(), keys_port=free_port(), service_ports=closed_ports())
    edge = replace(edge, rate_limit=100_000, public_write_limit=100_000)
    with running(with_a_key(edge), tmp_path_factory.mktemp("edge"), port=edge.port) as client:
        yield client


def with_a_key(edge: Edge) -> Any:
    """Return the configuration with the key that `running` signs with: no service is there to publish one."""
    provider = http_filter(edge, "envoy.filters.http.jwt_authn")["providers"]["shop"]
    del provider["remote_jwks"]
    provider["local_jwks"] = {"inline_string": JWKS}
    return configuration(edge)


@pytest.fixture(scope="module")
def keyless_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The same, without any key."""
    edge = laptop(port=free_port(), admin_port=free_port(), keys_port=free_port(), service_ports=closed_ports())
    with running(configuration(edge), tmp_path_factory.mktemp("edge"), port=edge.port) as client:
        yield client


@contextmanager
def running(config: Any, folder: Path, *, port: int) -> Iterator[httpx.Client]:
    """Run Envoy and yield a client of it who has a good token."""
    path = folder / "edge.yaml"
    path.write_text(yaml.safe_dump(config))
    arguments = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "off"]
    token = jwt.encode(
        {"iss": "https://shop.local", "aud": "shop", "exp": int(time.time()) + 600}, KEY, algorithm="EdDSA"
    )
    headers = {"authorization": f"Bearer {token}"}
    with (
        subprocess.Popen([find_envoy(), "--config-path", path, *arguments], stdout=subprocess.DEVNULL) as envoy,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client,
    ):
        try:
            await_answer(client)
            yield client
        finally:
            envoy.terminate()


def await_answer(client: httpx.Client) -> None:
    def has_answered() -> bool:
        try:
            client.get("/healthz")
        except httpx.TransportError:
            return False
        return True

    until(has_answered)


def reason_of(response: httpx.Response) -> str:
    status = response.json()
    assert set(status) == {"code", "message", "details"}
    assert status["message"]
    error_info = status["details"][0]
    assert error_info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert error_info["domain"] == "shop.system.v1"
    return str(error_info["reason"])


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/nowhere", 404, "ROUTE_NOT_FOUND"),
        ("GET", "/api/v1/nowhere", 404, "ROUTE_NOT_FOUND"),
        ("PUT", "/api/v1/users/1", 404, "ROUTE_NOT_FOUND"),
        ("GET", "/api/v1/users?nope=1", 400, "MALFORMED_REQUEST"),
        ("GET", "/api/v1/users?pageSize=many", 400, "MALFORMED_REQUEST"),
        ("GET", "/api/v1/users/a%2Fb", 400, "MALFORMED_REQUEST"),
        ("GET", "/api/v1/users/a%00b", 400, "MALFORMED_REQUEST"),
        ("GET", "/api/v1/users/1", 503, "SERVICE_UNAVAILABLE"),
        ("GET", "/health/users", 503, "SERVICE_UNAVAILABLE"),
        ("GET", "/healthz", 503, "SERVICE_UNAVAILABLE"),
    ],
)
def test_refusals_of_the_edge_have_the_shape_of_a_services_error(
    lonely_edge: httpx.Client, method: str, path: str, status: int, reason: str
) -> None:
    response = lonely_edge.request(method, path)

    assert (response.status_code, reason_of(response)) == (status, reason)


@pytest.mark.parametrize(
    "body",
    [
        '{"nope": 1}',
        '{"displayName": "a \\" {[", "currency": 1}',
    ],
)
def test_a_field_that_is_not_in_the_contract_is_named_and_refused(lonely_edge: httpx.Client, body: str) -> None:
    response = lonely_edge.patch("/api/v1/users/1", content=body, headers=JSON)

    assert (response.status_code, reason_of(response)) == (400, "MALFORMED_REQUEST")
    assert "There is no field" in response.json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        '{"displayName": "a", "current_password": "b"}',
        '{"profile": {}, "requestId": "nope\\": {"}',
    ],
)
def test_every_field_of_the_contract_passes(lonely_edge: httpx.Client, body: str) -> None:
    response = lonely_edge.patch("/api/v1/users/1", content=body, headers=JSON)

    assert reason_of(response) == "SERVICE_UNAVAILABLE"


def test_a_struct_may_hold_any_name(lonely_edge: httpx.Client) -> None:
    body = {"profile": {"any": [{"thing": {"email": 1}}]}, "displayName": "Ada"}

    response = lonely_edge.patch("/api/v1/users/1", json=body)

    assert reason_of(response) == "SERVICE_UNAVAILABLE"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_without_a_json_content_type_is_refused(lonely_edge: httpx.Client, content_type: str) -> None:
    headers = {"content-type": content_type} if content_type else {}

    response = lonely_edge.patch("/api/v1/users/1", content="{}", headers=headers)

    assert (response.status_code, reason_of(response)) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_a_call_without_a_body_needs_no_content_type(lonely_edge: httpx.Client) -> None:
    response = lonely_edge.post("/api/v1/users/1:delete")

    assert reason_of(response) == "SERVICE_UNAVAILABLE"


def test_a_body_over_10_mib_is_refused(lonely_edge: httpx.Client) -> None:
    body = '{"email": "' + "a" * 11 * 1024 * 1024 + '"}'

    response = lonely_edge.post("/api/v1/users", content=body, headers=JSON)

    assert (response.status_code, reason_of(response)) == (413, "PAYLOAD_TOO_LARGE")


def with_a_body_of(size: int) -> bytes:
    return b"{" + b" " * (size - 2) + b"}"


@pytest.mark.parametrize("binding", [each for each in CONTRACT.bindings if each.body], ids=lambda binding: binding.path)
def test_a_body_may_be_as_large_as_a_valid_request(lonely_edge: httpx.Client, binding: Binding) -> None:
    limit = CONTRACT.body_limit(binding.service, binding.method)
    path = binding.path.replace("{id}", "1")

    fits, does_not = (
        lonely_edge.request(binding.verb, path, content=with_a_body_of(size), headers=JSON)
        for size in (limit, limit + 1)
    )

    assert reason_of(fits) == "SERVICE_UNAVAILABLE"
    assert (does_not.status_code, reason_of(does_not)) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(
    "rpc", [f"/{service}/{method}" for service in CONTRACT.services for method in CONTRACT.methods(service)]
)
def test_a_message_may_be_as_large_as_a_valid_request(lonely_edge: httpx.Client, rpc: str) -> None:
    service, method = rpc[1:].split("/")
    limit = CONTRACT.body_limit(service, method)

    fits, does_not = (
        lonely_edge.post(rpc, content=bytes(size), headers={"content-type": "application/grpc", "te": "trailers"})
        for size in (limit, limit + 1)
    )

    assert (fits.headers["grpc-status"], does_not.headers["grpc-status"]) == ("14", "8")


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/nowhere", "/.well-known/jwks.json", "/api/v1/users/"])
def test_a_route_without_a_body_buffers_at_most_64_kib(lonely_edge: httpx.Client, path: str) -> None:
    # Of a body that is not finished nothing is known but its size.
    with socket.create_connection(("127.0.0.1", lonely_edge.base_url.port or 0), timeout=10) as connection:
        head = f"POST {path} HTTP/1.1\r\nhost: shop\r\nauthorization: {lonely_edge.headers['authorization']}\r\n"
        connection.sendall(f"{head}content-length: 100000\r\n\r\n".encode() + bytes(64 * 1024 + 1))

        status = connection.recv(12)[-3:]

    assert status in {b"404", b"413"}


def test_a_compressed_message_is_refused(lonely_edge: httpx.Client) -> None:
    headers = {"content-type": "application/grpc", "te": "trailers", "grpc-encoding": "gzip"}

    response = lonely_edge.post("/shop.user.v1.UserService/GetUser", content=b"\1\0\0\0\0", headers=headers)

    assert response.headers["grpc-status"] == "3"


@pytest.mark.parametrize(("method", "status"), [("Check", "14"), ("Watch", "12")])
def test_health_can_be_checked_and_not_watched(lonely_edge: httpx.Client, method: str, status: str) -> None:
    headers = {"content-type": "application/grpc", "te": "trailers"}

    response = lonely_edge.post(f"/grpc.health.v1.Health/{method}", content=bytes(5), headers=headers)

    assert response.headers["grpc-status"] == status


def test_an_address_may_fetch_the_page_20_times_and_ask_for_health_300_times_a_minute(edge: Edge) -> None:
    limits = http_filter(edge, "envoy.filters.http.local_ratelimit.apart")
    page_kib = sum(file.size_kib for file in FILES)

    pages, health = (each["token_bucket"] for each in limits["descriptors"])

    assert pages["max_tokens"] // page_kib >= 20
    assert (health["max_tokens"], health["fill_interval"]) == (300, "60s")


def test_a_higher_rate_limit_raises_the_limits_of_the_page_and_of_health() -> None:
    generous = replace(ENVIRONMENTS["kubernetes"], rate_limit=1_000_000_000)
    limits = http_filter(generous, "envoy.filters.http.local_ratelimit.apart")

    pages, health = (each["token_bucket"]["max_tokens"] for each in limits["descriptors"])

    # No more than Envoy can count.
    assert (pages, health) == (2**32 - 1, 3_000_000_000)


def test_every_file_is_counted_by_its_size(edge: Edge) -> None:
    limits = http_filter(edge, "envoy.filters.http.local_ratelimit.apart")["rate_limits"]
    charged = {
        each["actions"][0]["header_value_match"]["headers"][0]["string_match"]["safe_regex"]["regex"]: each[
            "hits_addend"
        ]["number"]
        for each in limits
        if "hits_addend" in each
    }

    assert charged == {f"{re.escape(file.path)}(\\?.*)?": file.size_kib for file in FILES}


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("helm/shop/values.yaml", ("edge", "resources", "limits")),
        ("docker/compose.prod.yaml", ("services", "edge", "deploy", "resources", "limits")),
    ],
)
def test_the_edges_container_has_room_for_more_than_envoys_heap(file: str, place: tuple[str, ...]) -> None:
    limits = yaml.safe_load((REPOSITORY / file).read_text())
    for name in place:
        limits = limits[name]
    monitors = configuration(ENVIRONMENTS["kubernetes"])["overload_manager"]["resource_monitors"]
    (heap,) = (each["typed_config"]["max_heap_size_bytes"] for each in monitors if "fixed_heap" in each["name"])

    # Lua's heap, which Envoy does not count, and Python, which has rendered the configuration.
    assert int(limits["memory"].rstrip("Mi")) * 2**20 - heap >= 384 * 2**20


def test_callers_are_told_when_to_retry(lonely_edge: httpx.Client) -> None:
    response = lonely_edge.get("/api/v1/users/1")

    assert response.headers["retry-after"] == "1"
    assert response.json()["details"][1]["retryDelay"] == "1s"


def test_a_callers_own_request_id_is_not_taken(lonely_edge: httpx.Client) -> None:
    response = lonely_edge.get("/api/v1/users/1", headers={"x-request-id": "mine"})

    assert response.headers["x-request-id"] != "mine"


def test_the_edge_does_not_reveal_its_software(lonely_edge: httpx.Client) -> None:
    response = lonely_edge.get("/api/v1/users/1")

    assert "server" not in response.headers
    assert "envoy" not in response.text.lower()
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.path)
def test_the_page_and_its_files_are_served(lonely_edge: httpx.Client, file: File) -> None:
    response = lonely_edge.get(file.path)

    assert response.status_code == 200
    assert response.headers["content-type"] == file.content_type
    assert response.content == (REPOSITORY / file.source).read_bytes()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.path)
def test_the_page_may_run_and_load_only_its_own_files(lonely_edge: httpx.Client, file: File) -> None:
    policy = lonely_edge.get(file.path).headers["content-security-policy"]

    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.path)
def test_a_file_that_has_not_changed_is_not_sent_again(lonely_edge: httpx.Client, file: File) -> None:
    etag = lonely_edge.get(file.path).headers["etag"]

    again = lonely_edge.get(file.path, headers={"if-none-match": etag})
    older = lonely_edge.get(file.path, headers={"if-none-match": 'W/"0123456789abcdef"'})

    assert (again.status_code, again.content) == (304, b"")
    assert "location" not in again.headers
    assert older.status_code == 200


def test_the_page_is_compressed_for_clients_that_accept_it(lonely_edge: httpx.Client) -> None:
    compressed = lonely_edge.get("/docs/swagger-ui.css", headers={"accept-encoding": "gzip"})
    plain = lonely_edge.get("/docs/swagger-ui.css", headers={"accept-encoding": "identity"})

    assert compressed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers


def test_every_file_that_the_page_names_is_served() -> None:
    page = (REPOSITORY / "envoy" / "page" / "index.html").read_text()

    named = set(re.findall(r'(?:href|src)="([^"]+)"', page))
    assert named == {file.path for file in FILES} - {"/docs"}


@pytest.mark.parametrize("path", ["/", "/docs/"])
def test_the_root_leads_to_the_page(lonely_edge: httpx.Client, path: str) -> None:
    response = lonely_edge.get(path)

    assert (response.status_code, response.headers["location"]) == (302, "/docs")


def test_a_page_file_that_is_not_installed_is_refused() -> None:
    file = File(path="/docs/nowhere.js", source="node_modules/nowhere.js", content_type="text/javascript")

    with pytest.raises(FileMissing, match="make setup"):
        _ = file.etag


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_the_page_is_only_for_reading(lonely_edge: httpx.Client, method: str) -> None:
    response = lonely_edge.request(method, "/docs")

    assert (response.status_code, reason_of(response)) == (404, "ROUTE_NOT_FOUND")


def test_while_tokens_cannot_be_verified_the_answer_is_unavailable(
    keyless_edge: httpx.Client,
) -> None:
    response = keyless_edge.get("/api/v1/users/1")

    assert (response.status_code, reason_of(response)) == (503, "SERVICE_UNAVAILABLE")
    assert response.headers["retry-after"] == "1"


def test_an_unavailable_service_is_answered_with_the_security_headers_too(lonely_edge: httpx.Client) -> None:
    response = lonely_edge.get("/api/v1/users/1")

    assert response.status_code == 503
    assert response.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert response.headers["cache-control"] == "no-store"


def spoken(client: httpx.Client, request: bytes) -> tuple[int, Any]:
    """Send the bytes as they are, and return status and body of the answer."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10) as connection:
        with contextlib.suppress(ConnectionError):  # a body that is too large is answered before all of it is sent
            connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, json.loads(answer.read())


def written(line: str, *headers: str, body: bytes = b"", token: str = "") -> bytes:
    """Return a request of HTTP/1.1."""
    authorization = (f"authorization: Bearer {token}",) if token else ()
    length = (f"content-length: {len(body)}",) if body else ()
    head = "\r\n".join((f"{line} HTTP/1.1", "host: shop.example", *authorization, *length, *headers, "", ""))
    return head.encode() + body


def signed(*, expires_in_s: int = 600) -> str:
    claims = {"iss": "https://shop.local", "aud": "shop", "exp": int(time.time()) + expires_in_s}
    return jwt.encode(claims, KEY, algorithm="EdDSA")


_JSON_TYPE = "content-type: application/json"
_LARGE = b'{"email": "' + b"a" * 11 * 1024 * 1024 + b'"}'
CREATE_USER = "/shop.user.v1.UserService/CreateUser"

PROVOKED: dict[str, tuple[str, int, bytes]] = {
    "no path": ("There is no such path", 404, written("GET /nowhere")),
    "no path of the API": ("There is no such path", 404, written("GET /api/v1/users/")),
    "another verb": ("There is no such path", 404, written("PUT /api/v1/users/1")),
    "gRPC-Web of a REST path": (
        "There is no such path",
        404,
        written("POST /health", "content-type: application/grpc-web+proto", body=b"{}"),
    ),
    "OPTIONS": ("There is no such path", 404, written("OPTIONS /api/v1/users")),
    "no token": ("There is no token", 401, written("GET /api/v1/users/1")),
    "a bad token": ("There is no token", 401, written("GET /api/v1/users/1", token="x.y.z")),
    "an old token": ("The token has expired", 401, written("GET /api/v1/users/1", token=signed(expires_in_s=-60))),
    "a body where none is": ("This call takes no body", 400, written("GET /health", body=b"{}")),
    "a large body": ("The body is larger", 413, written("POST /api/v1/users", _JSON_TYPE, body=_LARGE)),
    "JSON over gRPC": ("A gRPC call must be", 415, written(f"POST {CREATE_USER}", _JSON_TYPE, body=b"{}")),
    "text": ("A body must be JSON", 415, written("POST /api/v1/users", "content-type: text/plain", body=b"{}")),
    "gzip": (
        "A body must be JSON",
        415,
        written("POST /api/v1/users", _JSON_TYPE, "content-encoding: gzip", body=b"{}"),
    ),
    "no JSON": ("The body is not JSON", 400, written("POST /api/v1/users", _JSON_TYPE, body=b"{")),
    "no field": ("There is no field", 400, written("POST /api/v1/users", _JSON_TYPE, body=b'{"nope":1}')),
    "no parameter": ("Could not find field", 400, written("GET /health?nope=1")),
    "HTTP/1.0": ("The request is HTTP/1.0", 400, b"GET /health HTTP/1.0\r\n\r\n"),
    "long headers": ("Path and headers are more", 400, written("GET /health", f"x-a: {'a' * 40_000}")),
    "many headers": ("Path and headers are more", 400, written("GET /health", *(f"x-{n}: a" for n in range(101)))),
    "a long path": ("Path and headers are more", 400, written(f"GET /health?{'a' * 40_000}")),
    "an underscore": ("The verb, the path or a header cannot", 400, written("GET /health", "x_a: b")),
    "an escaped slash": ("The verb, the path or a header cannot", 400, written("GET /health%2fusers")),
    "no host": ("The verb, the path or a header cannot", 400, b"GET /health HTTP/1.1\r\n\r\n"),
    "two hosts": ("There must be one Host", 400, written("GET /health", "host: b")),
    "two hosts, of a list for users": ("There must be one Host", 400, written("GET /api/v1/users", "host: b")),
    "two hosts, with a bad token": (
        "There must be one Host",
        400,
        written("GET /api/v1/users", "host: b", token="x.y.z"),
    ),
    "bad chunks": ("The verb, the path or a header cannot", 400, written("POST /api/v1/users", "transfer-encoding: x")),
    "an unknown verb": ("The verb, the path or a header cannot", 400, written("BREW /health")),
    "nobody there": ("No replica of the service", 503, written("GET /health")),
    "nobody healthy": ("No replica of the service", 503, written("GET /healthz")),
}
"""Mistakes of callers and replicas, each with the beginning and the status of its refusal."""

PROVOKED_ELSEWHERE = {
    "The call took too long": "e2e/test_reasons, and test_edge_hardening for slow senders: takes seconds",
    "Too many calls wait already": "test_busy_replicas: needs as many calls as the edge holds",
    "Tokens cannot be checked": "test_while_tokens_cannot_be_verified_the_answer_is_unavailable: no keys there",
    "A header or the body": "only over gRPC, where the edge's own message is not sent: e2e/test_bad_input",
    "grpc-timeout must be": "only over gRPC: test_a_malformed_grpc_call_is_told_so_with_any_token_and_without",
    "grpc-encoding must be": "only over gRPC: test_a_malformed_grpc_call_is_told_so_with_any_token_and_without",
    "Something went wrong at the edge": "no known cause: a script of the edge would have to fail",
}


@pytest.mark.parametrize(("begin", "status", "request_bytes"), PROVOKED.values(), ids=PROVOKED)
def test_every_refusal_says_whether_the_caller_or_the_service_is_at_fault(
    lonely_edge: httpx.Client, begin: str, status: int, request_bytes: bytes
) -> None:
    answered, body = spoken(lonely_edge, request_bytes)

    assert (answered, body["message"][: len(begin)]) == (status, begin)
    reason = body["details"][0]["reason"]
    assert (reason == "SERVICE_UNAVAILABLE") is (status >= 500)
    assert {each.http for each in EDGE_ERRORS if each.reason == reason} >= {status}


@pytest.mark.parametrize("rpc", [CREATE_USER, "/shop.user.v1.UserService/ListUsers"], ids=["public", "for users"])
@pytest.mark.parametrize(
    ("name", "value", "begin"),
    [
        ("grpc-timeout", "soon", "grpc-timeout must be"),
        ("grpc-timeout", "123456789S", "grpc-timeout must be"),
        ("grpc-encoding", "gzip", "grpc-encoding must be"),
        ("host", "a,b", "There must be one Host"),
    ],
)
def test_a_malformed_grpc_call_is_told_so_with_any_token_and_without(
    lonely_edge: httpx.Client, name: str, value: str, begin: str, rpc: str
) -> None:
    sent = {"content-type": "application/grpc", "te": "trailers", name: value}

    answers = [
        lonely_edge.post(rpc, headers=sent | token, content=bytes(5))
        for token in ({}, {"authorization": "Bearer x.y.z"}, {"authorization": f"Bearer {signed()}"})
    ]

    assert {answer.headers["grpc-status"] for answer in answers} == {"3"}
    [message] = {unquote(answer.headers["grpc-message"]) for answer in answers}
    assert message.startswith(begin)


WRITES = [binding for binding in CONTRACT.bindings if binding.verb != "GET"]


@pytest.mark.parametrize("binding", WRITES, ids=lambda binding: f"{binding.verb} {binding.path}")
@pytest.mark.parametrize("header", ["if-none-match", "if-unmodified-since"])
def test_a_write_on_a_condition_that_is_not_looked_at_is_refused(
    lonely_edge: httpx.Client, binding: Binding, header: str
) -> None:
    path = re.sub(r"\{[^}]+\}", "1", binding.path)

    response = lonely_edge.request(binding.verb, path, headers={header: "*"})

    assert (response.status_code, reason_of(response)) == (400, "MALFORMED_REQUEST")
    assert header in response.json()["message"]


def of_another_shape(message: str) -> Iterator[tuple[str, str]]:
    """Yield bodies with a field of a message in another shape than the contract's, and the field's name."""
    for name, field in CONTRACT.fields()[message].items():
        if field.is_free:
            continue
        good = "{}" if field.holds else "1"
        lists = [f"[{good},[{good}]]", "[[]]", f"[[{good}],{good}]"]
        for value in [*lists, "{}", '"a"', "true"] if field.is_list else [*lists, f"[{good}]", "[]"]:
            yield f'{{"{name}":{value}}}', name
        for inner, inner_name in of_another_shape(field.holds) if field.holds else ():
            yield f'{{"{name}":{f"[{{}},{inner}]" if field.is_list else inner}}}', inner_name


@pytest.mark.parametrize("binding", [each for each in WRITES if each.body], ids=lambda each: f"{each.verb} {each.path}")
def test_a_list_for_one_value_or_one_value_for_a_list_is_refused(lonely_edge: httpx.Client, binding: Binding) -> None:
    assert binding.body
    path = re.sub(r"\{[^}]+\}", "1", binding.path)
    token = {"authorization": f"Bearer {signed()}"}

    for body, name in of_another_shape(binding.body):
        response = lonely_edge.request(binding.verb, path, content=body, headers=JSON | token)
        assert (response.status_code, reason_of(response)) == (400, "MALFORMED_REQUEST"), body
        assert response.json()["message"].startswith(f'"{name}" takes '), (body, response.json())


@pytest.mark.parametrize("error", EDGE_ERRORS, ids=lambda error: error.message[:30])
def test_every_refusal_of_the_edge_is_provoked(error: EdgeError) -> None:
    begins = {begin for begin, _, _ in PROVOKED.values()} | PROVOKED_ELSEWHERE.keys()

    assert any(error.message.startswith(begin) for begin in begins)


# Settings that a slip of one line would change


def test_filters_come_in_the_order_in_which_they_depend_on_each_other(edge: Edge) -> None:
    called_by_pages = connection_manager(replace(edge, cors_origins=("https://shop.example",)))
    names = [each["name"].removeprefix("envoy.filters.http.") for each in called_by_pages["http_filters"]]

    # Refusals can be read by pages; strangers are counted, then asked for a token, before bodies are read; a body is
    # bounded, then checked, then transcoded.
    in_order = ["header_mutation", "health_check", "cors", "grpc_web", "local_ratelimit", "jwt_authn"]
    in_order += ["buffer", "lua", "grpc_json_transcoder", "router"]
    assert [name for name in names if name in in_order] == in_order


def test_a_read_is_retried_on_another_replica_and_a_write_only_if_no_replica_received_it(edge: Edge) -> None:
    reads = {binding.rpc for binding in CONTRACT.bindings if binding.verb == "GET"}

    for route in routes(edge):
        path = route["match"].get("path", "")
        if path not in {binding.rpc for binding in CONTRACT.bindings}:
            continue
        policy = route["route"]["retry_policy"]
        broken = "reset" if path in reads or "SystemService" in path else "reset-before-request"
        assert set(policy["retry_on"].split(",")) in (
            {"connect-failure", "refused-stream", broken},
            {"connect-failure", "refused-stream", "reset-before-request"},
        )
        assert policy["num_retries"] == 2
        assert [each["name"] for each in policy["retry_host_predicate"]] == [
            "envoy.retry_host_predicates.previous_hosts"
        ]
        assert policy["host_selection_retry_max_attempts"] >= 30


def test_every_list_of_routes_refuses_two_hosts_first_and_unknown_paths_last(edge: Edge) -> None:
    for prefix, listed in route_lists(edge).items():
        assert listed[0]["match"]["headers"][0]["string_match"] == {"contains": ","}, prefix
        assert listed[-1]["match"] == {"prefix": "/"}, prefix
        assert listed[-1]["route"]["cluster_not_found_response_code"] == "NOT_FOUND", prefix


def test_an_expression_is_evaluated_only_for_answers_with_its_status(edge: Edge) -> None:
    mappers = connection_manager(edge)["local_reply_config"]["mappers"]
    filters = [each["filter"] for each in mappers]
    with_expression = [each["and_filter"]["filters"] for each in filters if "extension_filter" in str(each)]

    assert with_expression
    for first, *_others in with_expression:
        assert "status_code_filter" in str(first)
        assert "extension_filter" not in str(first)


def test_keys_are_known_before_they_sign(edge: Edge) -> None:
    jwks = http_filter(edge, "envoy.filters.http.jwt_authn")["providers"]["shop"]["remote_jwks"]

    cached_s = float(jwks["cache_duration"].removesuffix("s"))
    assert cached_s * 2 <= KeySettings.model_fields["publish_lead_s"].default


@pytest.mark.parametrize("binding", CONTRACT.bindings, ids=lambda binding: f"{binding.method} {binding.path}")
def test_every_route_names_its_rate_limit(binding: Binding, edge: Edge) -> None:
    path = re.sub(r"\{[^}]+\}", "0197", binding.path)
    over_rest = route_of(edge, verb=binding.verb, path=path)
    over_grpc = route_of(edge, verb="POST", path=binding.rpc, **{"content-type": "application/grpc"})

    for route in (over_rest, over_grpc):
        limit = route.get("metadata", {}).get("filter_metadata", {}).get("shop.edge", {}).get("limit")
        assert (limit == "public_write") is (binding.is_public and binding.verb != "GET")


def test_rate_limits_count_by_route_and_address(edge: Edge) -> None:
    limits = http_filter(edge, "envoy.filters.http.local_ratelimit")

    of_all, of_public_writes = ([next(iter(each)) for each in limit["actions"]] for limit in limits["rate_limits"])
    assert (of_all, of_public_writes) == (["masked_remote_address"], ["metadata", "masked_remote_address"])
    assert limits["rate_limits"][1]["actions"][0]["metadata"]["source"] == "ROUTE_ENTRY"


def test_every_route_is_counted_by_the_limiter_as_by_the_edge() -> None:
    edge = ENVIRONMENTS["optional"]
    filters = {each["name"]: each["typed_config"] for each in connection_manager(edge)["http_filters"]}

    for route in routes(edge):
        of = route.get("typed_per_filter_config", {})
        for apart in ("", ".apart"):
            assert of.get(f"envoy.filters.http.ratelimit{apart}") == of.get(
                f"envoy.filters.http.local_ratelimit{apart}"
            )
    for apart in ("", ".apart"):
        shared = filters[f"envoy.filters.http.ratelimit{apart}"]
        local = filters[f"envoy.filters.http.local_ratelimit{apart}"]
        # The number of the window comes first; the rest is the edge's own, but for files, which have no service.
        counted = [{**each, "actions": each["actions"][1:]} for each in shared["rate_limits"]]
        assert counted == [each for each in local["rate_limits"] if "hits_addend" not in each]
        assert shared["failure_mode_deny"] is False
    names = [each["name"] for each in connection_manager(edge)["http_filters"]]
    first = names.index("envoy.filters.http.ratelimit")
    assert names[first - 2 : first] == [
        "envoy.filters.http.local_ratelimit",
        "envoy.filters.http.local_ratelimit.apart",
    ]


def test_no_edge_asks_a_limiter_unless_it_is_told_of_one() -> None:
    assert "rate_limiter" not in str(configuration(ENVIRONMENTS["kubernetes"]))


@pytest.mark.parametrize("value", ["a:b", "a/b", ""])
@pytest.mark.parametrize("binding", [each for each in CONTRACT.bindings if each.variables], ids=lambda each: each.path)
def test_a_variable_is_one_segment_without_a_colon(binding: Binding, value: str, edge: Edge) -> None:
    path = re.sub(r"\{[^}]+\}", value, binding.path)

    assert not is_let_in(route_of(edge, verb=binding.verb, path=path))


def test_routes_without_a_service_are_not_transcoded(edge: Edge) -> None:
    transcoder = "envoy.filters.http.grpc_json_transcoder"

    for route in routes(edge):
        if route.get("route", {}).get("cluster_header"):
            assert route["route"]["cluster_header"].startswith("x-edge-")
            assert route["typed_per_filter_config"][transcoder]["disabled"] is True


def test_calls_to_replicas_have_the_headers_of_grpc_also_if_the_caller_omits_them(edge: Edge) -> None:
    [host] = connection_manager(edge)["route_config"]["virtual_hosts"]

    assert {"key": "te", "value": "trailers"} in [each["header"] for each in host["request_headers_to_add"]]
    assert connection_manager(edge)["http_protocol_options"]["ignore_http_11_upgrade"]


@pytest.mark.parametrize(
    ("body", "begin"),
    [
        ('{"email":"a",}', "The body is not JSON"),
        ('{"email":"a"} x', "The body is not JSON"),
        ('{"email":"\\ud83d"}', "The body is not JSON"),
        ('{"profile":{"a":01}}', "The body is not JSON"),
        ('{"email":"a","email":"a"}', 'The name "email" is there twice'),
        ('{"displayName":"a","display_name":"a"}', 'The name "display_name" is there twice'),
        ('{"email":"a","\\u0065mail":"a"}', 'The name "email" is there twice'),
        ('{"profile":{"a":1,"\\u0061":1}}', 'The name "a" is there twice'),
        ('{"profile":{"a":9007199254740993}}', "An integer beyond 2^53"),
        ('{"profile":{"a":' + "[" * 31 + "]" * 31 + "}}", "The body is nested deeper"),
        (
            '{"profile":{' + ",".join(f'"{number}":1' for number in range(2_501)) + "}}",
            "There are more than 2500 names",
        ),
        ('{"profile":{"' + "a" * 100_001 + '":1}}', "A name is too long"),
    ],
)
def test_a_body_that_is_not_strictly_json_is_refused(lonely_edge: httpx.Client, body: str, begin: str) -> None:
    response = lonely_edge.post("/api/v1/users", content=body, headers=JSON)

    assert (response.status_code, response.json()["message"][: len(begin)]) == (400, begin)


@pytest.mark.parametrize("target", ["example.com:443", "shop.example:80"])
def test_a_tunnel_is_refused_at_once(lonely_edge: httpx.Client, target: str) -> None:
    address = (lonely_edge.base_url.host, lonely_edge.base_url.port or 0)

    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n".encode())
        answer = connection.recv(65_536)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"The verb, the path or a header cannot be read" in answer


def profile_with_the_most_names() -> dict[str, int]:
    """Return as many names as 16 KiB hold: each is short, and no two are the same."""
    letters = [chr(point) for point in range(32, 127) if chr(point) not in {'"', "\\"}]
    profile = {}
    left = 16 * 1024 - len("{}") + len(",")
    for name in ["", *letters, *map("".join, itertools.product(letters, repeat=2))]:
        left -= len(f'"{name}":1,')
        if left < 0:
            break
        profile[name] = 1
    return profile


def test_a_profile_with_as_many_names_as_may_be_is_read(lonely_edge: httpx.Client) -> None:
    profile = profile_with_the_most_names()
    require_small_profile(profile)

    response = lonely_edge.post("/api/v1/users", json={"profile": profile})

    # The edge has no service that could take it.
    assert (response.status_code, reason_of(response)) == (503, "SERVICE_UNAVAILABLE")
    assert len(profile) == 2_354


@pytest.mark.parametrize("query", ["id=1", "%69d=1", "etag=a&etag=b", "requestId=a&request_id=b", "etag"])
def test_a_query_with_a_repeated_parameter_is_refused(lonely_edge: httpx.Client, query: str) -> None:
    response = lonely_edge.delete(f"/api/v1/users/1?{query}")

    assert (response.status_code, reason_of(response)) == (400, "MALFORMED_REQUEST")


SECRETS_IN_QUERIES = [
    (binding.verb, re.sub(r"\{[^}]+\}", "1", binding.path), spelling)
    for binding in CONTRACT.bindings
    if not binding.body
    for name in binding.secrets
    for spelling in (name, json_name(name))
]


def test_some_calls_without_a_body_have_secrets() -> None:
    assert SECRETS_IN_QUERIES


@pytest.mark.parametrize(("verb", "path", "name"), SECRETS_IN_QUERIES)
def test_a_secret_in_an_address_is_refused(lonely_edge: httpx.Client, verb: str, path: str, name: str) -> None:
    answer = lonely_edge.request(verb, f"{path}?{name}=x")

    assert answer.status_code == 400
    assert "is a secret: send it in a body" in answer.json()["message"]


def test_hsts_is_off_unless_an_operator_turns_it_on(edge: Edge) -> None:
    def says_so(edge: Edge) -> bool:
        return "strict-transport-security" in str(http_filter(edge, "envoy.filters.http.header_mutation"))

    assert not says_so(edge)
    assert says_so(replace(edge, hsts=True))
