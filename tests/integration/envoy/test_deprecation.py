"""The edge's own answers to calls of deprecated rpcs, with no service behind it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from envoy.contract import Contract
from envoy.environments import laptop
from envoy.render import render
from tests.integration.envoy.test_edge_config import JSON, JWKS, reason_of, running
from tests.support.deprecated import NAMES, contract_with, headers_of
from tests.support.ports import closed_ports, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import httpx

PLAIN = {"content-type": "text/plain"}
ORIGIN = "https://shop.example"
ID = "01a20730-3323-7733-b644-bd61d5b9c7ab"
RPCS = ("GetUser", "UpdateUser", "DeleteUser")
# A further path of an rpc has an operation of its own; the link leads to that of the first one.
OPERATIONS = {"GET": "getUser", "PATCH": "updateUser", "DELETE": "deleteUser", "POST": "deleteUser"}


@pytest.fixture(scope="module")
def lonely_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("edge")
    with edge_where_are_deprecated(RPCS, folder) as client:
        yield client


@contextlib.contextmanager
def edge_where_are_deprecated(rpcs: Sequence[str], folder: Path) -> Iterator[httpx.Client]:
    """Run an edge without services, for which these rpcs and SessionService are deprecated."""
    contract = contract_with(folder, rpcs=rpcs, services=["SessionService"])
    edge = laptop(port=free_port(), admin_port=free_port(), keys_port=free_port(), service_ports=closed_ports())
    edge = replace(edge, cors_origins=(ORIGIN,), public_write_limit=5)
    config = yaml.load(render(edge, descriptor_set=contract), Loader=yaml.CSafeLoader)
    with running(with_our_key(config), folder, port=edge.port) as client:
        yield client


def with_our_key(config: Any) -> Any:
    """Return the configuration with the key that `running` signs with."""
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    [tokens] = [each for each in manager["http_filters"] if each["name"] == "envoy.filters.http.jwt_authn"]
    provider = tokens["typed_config"]["providers"]["shop"]
    del provider["remote_jwks"]
    provider["local_jwks"] = {"inline_string": JWKS}
    return config


def said(response: httpx.Response) -> dict[str, str]:
    """Return the headers about a deprecation."""
    return {name: value for name, value in response.headers.items() if name in NAMES}


@pytest.mark.parametrize(
    ("verb", "path", "arguments", "reason"),
    [
        ("GET", f"/api/v1/users/{ID}", {"headers": {"authorization": ""}}, "TOKEN_INVALID"),
        ("GET", f"/api/v1/users/{ID}", {}, "SERVICE_UNAVAILABLE"),
        ("GET", f"/api/v1/users/{ID}?colour=red", {}, "MALFORMED_REQUEST"),
        ("PATCH", f"/api/v1/users/{ID}", {"content": "{}", "headers": JSON}, "SERVICE_UNAVAILABLE"),
        ("PATCH", f"/api/v1/users/{ID}", {"content": "{", "headers": JSON}, "MALFORMED_REQUEST"),
        ("PATCH", f"/api/v1/users/{ID}", {"content": "{}", "headers": PLAIN}, "UNSUPPORTED_MEDIA_TYPE"),
        ("PATCH", f"/api/v1/users/{ID}", {"content": "x" * 11 * 2**20, "headers": JSON}, "PAYLOAD_TOO_LARGE"),
        ("DELETE", f"/api/v1/users/{ID}", {}, "SERVICE_UNAVAILABLE"),
        ("POST", f"/api/v1/users/{ID}:delete", {"content": "{}", "headers": JSON}, "SERVICE_UNAVAILABLE"),
    ],
)
def test_a_refusal_of_the_edge_says_that_the_rpc_is_deprecated(
    lonely_edge: httpx.Client, verb: str, path: str, arguments: dict[str, Any], reason: str
) -> None:
    response = lonely_edge.request(verb, path, **arguments)

    assert reason_of(response) == reason
    assert said(response) == headers_of(f"Users/{OPERATIONS[verb]}")


def test_so_does_a_refusal_because_of_a_limit(lonely_edge: httpx.Client) -> None:
    responses = [lonely_edge.post("/api/v1/sessions", content="{}", headers=JSON) for _ in range(6)]

    assert reason_of(responses[-1]) == "RATE_LIMITED"
    assert all(said(each) == headers_of("Sessions/createSession", has_sunset=False) for each in responses)


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc-web+proto"])
@pytest.mark.parametrize("rpc", ["UserService/GetUser", "UserService/UpdateUser", "UserService/DeleteUser"])
@pytest.mark.parametrize(("token", "status"), [({}, "14"), ({"authorization": ""}, "16")])
def test_so_does_a_refusal_of_a_grpc_call(
    lonely_edge: httpx.Client, kind: str, rpc: str, token: dict[str, str], status: str
) -> None:
    is_web = {"x-grpc-web": "1"} if "web" in kind else {}
    headers = {"content-type": kind, **is_web, **token}

    response = lonely_edge.post(f"/shop.user.v1.{rpc}", content=b"\0" * 5, headers=headers)

    assert response.headers["grpc-status"] == status
    method = rpc.partition("/")[2]
    assert said(response) == headers_of(f"Users/{method[0].lower()}{method[1:]}")


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/api/v1/users"),
        ("PUT", f"/api/v1/users/{ID}"),  # not in the contract
        ("HEAD", f"/api/v1/users/{ID}"),  # nor is this
        ("GET", "/docs"),
    ],
)
def test_nothing_else_is_said_to_be_deprecated(lonely_edge: httpx.Client, verb: str, path: str) -> None:
    response = lonely_edge.request(verb, path)

    assert said(response) == {}


def test_a_page_of_another_origin_can_read_it(lonely_edge: httpx.Client) -> None:
    preflight = {"origin": ORIGIN, "access-control-request-method": "GET"}
    asked = lonely_edge.options(f"/api/v1/users/{ID}", headers=preflight)
    called = lonely_edge.get(f"/api/v1/users/{ID}", headers={"origin": ORIGIN})

    # A preflight is about every method of the path, and its answer is kept for any of them.
    assert said(asked) == {}
    assert said(called) == headers_of("Users/getUser")
    assert set(called.headers["access-control-expose-headers"].split(",")) >= NAMES


def test_a_contract_without_deprecations_costs_no_route_a_header(tmp_path: Path) -> None:
    edge = laptop(port=1, admin_port=2, keys_port=3, service_ports=closed_ports())

    assert "rel=" not in render(edge, descriptor_set=contract_with(tmp_path))


def test_every_rpc_of_a_deprecated_service_is_deprecated(tmp_path: Path) -> None:
    contract = Contract(contract_with(tmp_path, services=["SystemService"]).read_bytes())

    system = {binding.rpc for binding in contract.bindings if "SystemService" in binding.rpc}
    deprecated = {binding.rpc for binding in contract.bindings if contract.deprecation(binding.rpc)}
    assert deprecated == system
