"""An order is placed once, however often it is sent; and two orders are two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chassis.testing import new_uuid
from tests.e2e.callers import rest_outcome
from tests.e2e.contract import BY_NAME
from tests.e2e.world import request_json
from tests.services.order_svc.placing import create_order_request

if TYPE_CHECKING:
    from tests.e2e.contract import Json
    from tests.e2e.world import World


@pytest.fixture
def order_json(world: World) -> Json:
    return request_json(create_order_request(world.user().id))


def place(world: World, order: Json, **headers: str) -> str:
    response = world.edge.http.post("/api/v1/orders", json=order, headers=headers)
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def orders_of(world: World, order: Json) -> list[str]:
    response = world.edge.http.get("/api/v1/orders", params={"userId": order["userId"]})
    return [each["id"] for each in rest_outcome(response).body["orders"]]


@pytest.mark.parametrize("name", ["idempotency-key", "Idempotency-Key"])
def test_the_same_key_twice_is_one_order(world: World, order_json: Json, name: str) -> None:
    key = new_uuid()

    first, again = place(world, order_json, **{name: key}), place(world, order_json, **{name: key})

    assert first == again
    assert orders_of(world, order_json) == [first]


def test_the_same_request_id_twice_is_one_order(world: World, order_json: Json) -> None:
    order_json["requestId"] = new_uuid()

    first, again = place(world, order_json), place(world, order_json)

    assert first == again
    assert orders_of(world, order_json) == [first]


def test_a_key_means_the_same_over_rest_and_grpc(world: World, order_json: Json) -> None:
    key = new_uuid()
    first = place(world, order_json, **{"idempotency-key": key})

    again = world.edge.grpc(
        BY_NAME["CreateOrder"], create_order_request(order_json["userId"]), metadata=[("idempotency-key", key)]
    )

    assert again.body["id"] == first


def test_without_a_key_two_requests_are_two_orders(world: World, order_json: Json) -> None:
    first, second = place(world, order_json), place(world, order_json)

    assert first != second
    assert sorted(orders_of(world, order_json)) == sorted([first, second])


def test_a_callers_own_x_request_id_is_not_a_key(world: World, order_json: Json) -> None:
    own = {"x-request-id": new_uuid()}

    first, second = place(world, order_json, **own), place(world, order_json, **own)

    assert first != second
