"""Deprecated rpcs work as before, and each of their answers says so: on an edge with a contract that has some."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest
from grpc import RpcError

from chassis.testing import new_uuid
from envoy.binary import find_envoy
from envoy.contract import DESCRIPTOR_SET
from envoy.environments import laptop
from envoy.render import render, render_secrets
from tests.e2e.callers import Edge
from tests.e2e.contract import BINDINGS, BY_NAME, RPCS, name_of
from tests.e2e.world import World, request_json
from tests.support.deprecated import NAMES, contract_with, headers_of
from tests.support.ports import free_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devstack.stack import Stack
    from tests.e2e.contract import Binding, Rpc

# A read, a creation, one with two bindings, one with an etag, streams; and every rpc of a service.
DEPRECATED = ("GetUser", "CreateUser", "DeleteUser", "UpdateUser", *(rpc.name for rpc in RPCS if rpc.is_stream))
SERVICE = "SessionService"


def expected(rpc: Rpc) -> dict[str, str]:
    if not rpc.service.endswith(SERVICE) and rpc.name not in DEPRECATED:
        return {}
    return headers_of(quote(operation_of(rpc)), has_sunset=not rpc.service.endswith(SERVICE))


def operation_of(rpc: Rpc) -> str:
    """Return the heading and the name of the rpc's first operation in the OpenAPI document."""
    document = json.loads((DESCRIPTOR_SET.parent / "openapi.json").read_text())
    operations = [each for path in document["paths"].values() for each in path.values()]
    name = rpc.name[0].lower() + rpc.name[1:]
    [heading] = {each["tags"][0] for each in operations if each["operationId"] == name}
    return f"{heading}/{name}"


@pytest.fixture(scope="module")
def edge_beside(stack: Stack, edge: Edge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """A second edge in front of the same replicas, whose contract has deprecated rpcs."""
    folder = tmp_path_factory.mktemp("edge")
    ports = {name: [replica.port for replica in stack.replicas(name)] for name in stack.service_names}
    config = replace(
        laptop(port=free_port(), admin_port=free_port(), keys_port=free_port(), service_ports=ports),
        inside=stack.certificates.folder_of("edge"),
        secrets_folder=folder,
        access_log_path="/dev/null",
        rate_limit=1_000_000_000,
        public_write_limit=500_000_000,
    )
    for name, secret in render_secrets(config).items():
        (folder / name).write_text(secret)
    path = folder / "edge.yaml"
    path.write_text(render(config, descriptor_set=contract_with(folder, rpcs=DEPRECATED, services=[SERVICE])))
    arguments = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "off"]
    with (
        subprocess.Popen([find_envoy(), "--config-path", path, *arguments], stdout=subprocess.DEVNULL) as envoy,
        Edge(f"http://127.0.0.1:{config.port}", edge.token) as beside,
    ):
        try:
            until(lambda: serves(beside), timeout_s=30)
            yield beside
        finally:
            envoy.terminate()


def serves(edge: Edge) -> bool:
    """Return whether the edge reaches every service and knows the keys of tokens."""
    try:
        return all(edge.http.get(path).is_success for path in ("/healthz", "/api/v1/users"))
    except httpx.TransportError:
        return False


@pytest.fixture
def world(stack: Stack, edge_beside: Edge) -> World:
    return World(stack, edge_beside)


def said(headers: Any) -> dict[str, str]:
    """Return what headers or metadata say about a deprecation."""
    return {name: value for name, value in dict(headers).items() if name in NAMES}


@pytest.mark.parametrize("binding", BINDINGS, ids=name_of)
def test_an_answer_over_rest_says_whether_the_rpc_is_deprecated(world: World, binding: Binding) -> None:
    call = binding.call(request_json(world.request(binding.rpc.name)))
    headers = world.edge.as_owner(call.path)

    with world.edge.http.stream(
        call.verb, call.path, params=tuple(call.query), json=call.body, headers=headers
    ) as response:
        assert response.status_code == (201 if binding.rpc.creates else 200)
        assert said(response.headers) == expected(binding.rpc)


@pytest.mark.parametrize("rpc", RPCS, ids=name_of)
def test_an_answer_over_grpc_says_whether_the_rpc_is_deprecated(world: World, rpc: Rpc) -> None:
    request = world.request(rpc.name)
    owner = tuple(world.edge.as_owner(f"{getattr(request, 'id', '')}:{rpc.name}").items())
    channel = world.edge.channel

    if rpc.is_stream:
        call: Any = channel.unary_stream(rpc.path)(request.SerializeToString(), timeout=30)
        next(call)
        call.cancel()
    else:
        _, call = channel.unary_unary(rpc.path).with_call(request.SerializeToString(), metadata=owner, timeout=30)

    assert said(call.initial_metadata()) == expected(rpc)


@pytest.mark.parametrize(
    ("path", "status", "headers"),
    [
        (f"/api/v1/users/{UUID(int=1)}", 404, headers_of("Users/getUser")),
        ("/api/v1/users/x", 400, headers_of("Users/getUser")),
        ("/api/v1/users?pageSize=-1", 400, {}),
    ],
)
def test_an_error_of_a_service_says_it_too(world: World, path: str, status: int, headers: dict[str, str]) -> None:
    response = world.edge.http.get(path)

    assert response.status_code == status
    assert said(response.headers) == headers


def test_a_refused_etag_is_still_412_and_says_it_too(world: World) -> None:
    user = world.user()

    response = world.edge.http.patch(f"/api/v1/users/{user.id}", json={"displayName": "A"}, headers={"if-match": '"x"'})

    assert response.status_code == 412
    assert said(response.headers) == headers_of("Users/updateUser")


def test_an_error_over_grpc_says_it_too(world: World) -> None:
    rpc = BY_NAME["GetUser"]
    request = rpc.request(id=new_uuid())

    with pytest.raises(RpcError) as failed:
        world.edge.channel.unary_unary(rpc.path)(request.SerializeToString(), timeout=30)

    # An answer without a message has only trailers.
    assert said(failed.value.trailing_metadata()) == headers_of("Users/getUser")
