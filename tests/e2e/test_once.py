"""A resource is created once, however often its request is sent with one key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chassis.testing import new_uuid
from tests.e2e.callers import rest_outcome
from tests.e2e.contract import RPCS, name_of
from tests.e2e.world import request_json

if TYPE_CHECKING:
    from tests.e2e.callers import Outcome
    from tests.e2e.contract import Rpc
    from tests.e2e.world import World

CREATIONS = [rpc for rpc in RPCS if rpc.creates and rpc.has_request_id]


def without_a_request_id(world: World, rpc: Rpc) -> Any:
    request: Any = world.request(rpc.name)
    request.ClearField("request_id")
    return request


def create(world: World, rpc: Rpc, request: Any, **headers: str) -> Outcome:
    call = rpc.bindings[0].call(request_json(request))
    response = world.edge.http.request(call.verb, call.path, json=call.body, headers=headers)
    assert response.status_code == 201, response.text
    return rest_outcome(response)


@pytest.mark.parametrize("name", ["idempotency-key", "Idempotency-Key"])
@pytest.mark.parametrize("rpc", CREATIONS, ids=name_of)
def test_the_same_key_twice_is_one_creation(world: World, rpc: Rpc, name: str) -> None:
    request, key = without_a_request_id(world, rpc), {name: new_uuid()}

    assert create(world, rpc, request, **key).body == create(world, rpc, request, **key).body


@pytest.mark.parametrize("rpc", CREATIONS, ids=name_of)
def test_the_same_request_id_twice_is_one_creation(world: World, rpc: Rpc) -> None:
    request = without_a_request_id(world, rpc)
    request.request_id = new_uuid()

    assert create(world, rpc, request).body == create(world, rpc, request).body


@pytest.mark.parametrize("rpc", CREATIONS, ids=name_of)
def test_a_key_means_the_same_over_rest_and_grpc(world: World, rpc: Rpc) -> None:
    request, key = without_a_request_id(world, rpc), new_uuid()
    first = create(world, rpc, request, **{"idempotency-key": key})

    again = world.edge.grpc(rpc, request, metadata=[("idempotency-key", key)])

    assert again.body["id"] == first.body["id"]


def test_every_answer_has_a_request_id_of_the_edge(world: World) -> None:
    own = new_uuid()

    ids = {world.edge.http.get("/health", headers={"x-request-id": own}).headers["x-request-id"] for _ in range(2)}

    assert len(ids) == 2
    assert own not in ids
