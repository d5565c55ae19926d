"""Bad requests about orders are answered with a 4xx of one shape, never a 5xx, and reveal nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

import pytest
from google.protobuf import json_format
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders

from chassis.server.pagination import ListRequest
from chassis.testing import new_uuid
from tests.e2e.bad_requests import INVALID, MALFORMED, get, post, post_raw
from tests.e2e.callers import require_clean, require_clean_error
from tests.e2e.contract import BY_NAME, with_value
from tests.e2e.world import request_json
from tests.services.order_svc.placing import create_order_request, order_item, place_order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.e2e.callers import Edge
    from tests.e2e.contract import Json
    from tests.e2e.world import World


def an_order_json(*, item: Mapping[str, object] | None = None, **changes: Any) -> Json:
    request: Json = {**request_json(create_order_request(new_uuid())), **changes}
    return with_value(request, ("items", 0), {**request["items"][0], **item}) if item else request


# Values of another kind than the field.


@pytest.mark.parametrize(
    ("field", "value"),
    [("items", {}), ("items", "tea"), ("items", [[]]), ("items", [1]), ("items", ["tea"]), ("currencyCode", ["EUR"])],
)
def test_an_order_of_another_shape_is_refused(edge: Edge, field: str, value: object) -> None:
    assert post(edge, "/api/v1/orders", an_order_json(**{field: value})).reason in {MALFORMED, INVALID}


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "9" * 5000, "0x10", "1.5", "2147483648"])
def test_a_number_outside_of_its_fields_type_is_malformed(edge: Edge, number: str) -> None:
    body = json.dumps(an_order_json()).replace('"quantity": 1', f'"quantity": {number}')

    assert post_raw(edge, "/api/v1/orders", body.encode()).reason == MALFORMED


# Paths, verbs and fields outside of the contract.


def test_an_unknown_field_deep_inside_is_refused(edge: Edge) -> None:
    outcome = post(edge, "/api/v1/orders", an_order_json(item={"totalPrice": {"units": 1}}))

    assert outcome.reason == MALFORMED


def test_the_path_decides_which_order_is_meant(world: World) -> None:
    order = place_order(world)
    path = f"/api/v1/orders/{order.id}/status"

    response = world.edge.http.patch(path, json={"id": new_uuid(), "status": "ORDER_STATUS_CONFIRMED"})

    assert require_clean_error(response).reason == MALFORMED


@pytest.mark.parametrize(
    "status", ["LOST", "ORDER_STATUS_LOST", "PENDING", "", 99, -1, 2**31, 1.5, True, ["x"], {}, None]
)
def test_an_unknown_status_is_refused(world: World, status: object) -> None:
    response = world.edge.http.patch(f"/api/v1/orders/{new_uuid()}/status", json={"status": status})

    assert require_clean_error(response).reason in {MALFORMED, INVALID}


@pytest.mark.parametrize("number", [0, 7, 99, -1])
def test_an_unknown_status_is_refused_over_grpc(edge: Edge, number: Any) -> None:
    request = orders.UpdateOrderStatusRequest(id=new_uuid(), status=number)

    outcome = edge.grpc(BY_NAME["UpdateOrderStatus"], request)

    require_clean(outcome)
    assert outcome.fields == ["status"]


# Pages.


def test_a_page_token_of_another_filter_is_refused(world: World) -> None:
    first = place_order(world)
    place_order(world, first.user_id)
    page = world.edge.http.get("/api/v1/orders", params={"userId": first.user_id, "pageSize": 1})
    token = quote(page.json()["nextPageToken"])

    for path in (f"/api/v1/orders?pageToken={token}", f"/api/v1/users?pageToken={token}"):
        assert get(world.edge, path).reason == ("shop.system.v1", "INVALID_PAGE_TOKEN")


@pytest.mark.parametrize(("days", "http"), [(0, 200), (2, 400)], ids=["today's", "the day before yesterday's"])
def test_a_page_token_is_good_for_a_day(world: World, days: int, http: int) -> None:
    order = place_order(world)
    issued = datetime.now(UTC) - timedelta(days=days)
    request = orders.ListOrdersRequest(user_id=order.user_id)
    token = ListRequest(request, now=issued).tokens.after(UUID(order.id))

    response = world.edge.http.get("/api/v1/orders", params={"userId": order.user_id, "pageToken": token})

    assert response.status_code == http
    if response.is_error:
        assert require_clean_error(response).reason == ("shop.system.v1", "INVALID_PAGE_TOKEN")


# Orders that do not add up.


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"unitPrice": {"units": 1, "nanos": 10**9}}, "items[0].unitPrice"),
        ({"unitPrice": {"units": 1, "nanos": 2 * 10**9}}, "items[0].unitPrice"),
        ({"unitPrice": {"units": 1, "nanos": -1}}, "items[0].unitPrice"),
        ({"unitPrice": {"units": -1, "nanos": 0}}, "items[0].unitPrice"),
        ({"unitPrice": {"units": str(-(2**63))}}, "items[0].unitPrice"),
        ({"unitPrice": {"units": str(2**63 - 1)}}, "items[0].unitPrice"),
        ({"unitPrice": {"units": "1000000000000"}}, "items[0].unitPrice"),
        ({"unitPrice": {"units": "999999999999"}, "quantity": 10_000}, "items"),
        ({"unitPrice": {"currencyCode": "USD"}}, "items[0].unitPrice.currencyCode"),
        ({"unitPrice": {"currencyCode": "eur"}}, "items[0].unitPrice"),
        ({"unitPrice": None}, "items[0].unitPrice"),
        ({"quantity": 0}, "items[0].quantity"),
        ({"quantity": -1}, "items[0].quantity"),
        ({"quantity": 10_001}, "items[0].quantity"),
        ({"productId": ""}, "items[0].productId"),
        ({"productId": "a" * 65}, "items[0].productId"),
        ({"name": "a" * 256}, "items[0].name"),
    ],
)
def test_an_item_that_breaks_a_rule_is_named(edge: Edge, item: Json, field: str) -> None:
    body = an_order_json(item=item)

    by_rest = post(edge, "/api/v1/orders", body)
    by_grpc = edge.grpc(BY_NAME["CreateOrder"], json_format.ParseDict(body, orders.CreateOrderRequest()))

    assert set(by_rest.fields) == set(by_grpc.fields) == {field}
    assert by_rest.reason == by_grpc.reason


@pytest.mark.parametrize("units", ["9" * 30, str(2**63), "1.5", "1e400", "", "one"])
def test_units_outside_of_int64_are_malformed(edge: Edge, units: str) -> None:
    assert post(edge, "/api/v1/orders", an_order_json(item={"unitPrice": {"units": units}})).reason == MALFORMED


@pytest.mark.parametrize("count", [0, 101])
def test_an_order_has_1_to_100_items(edge: Edge, count: int) -> None:
    request = create_order_request(new_uuid(), items=[order_item()] * count)

    outcome = post(edge, "/api/v1/orders", request_json(request))

    assert outcome.fields == ["items"]


@pytest.mark.parametrize("currency", ["", "eur", "EURO", "€", "EU1", "E R"])
def test_an_unknown_currency_is_refused(edge: Edge, currency: str) -> None:
    assert "currencyCode" in post(edge, "/api/v1/orders", an_order_json(currencyCode=currency)).fields


def test_an_illegal_transition_names_the_legal_ones(world: World) -> None:
    order = place_order(world)
    path = f"/api/v1/orders/{order.id}/status"

    outcome = require_clean_error(world.edge.http.patch(path, json={"status": "ORDER_STATUS_SHIPPED"}))

    assert outcome.reason == ("shop.order.v1", "INVALID_STATUS_TRANSITION")
    assert outcome.detail("ErrorInfo")["metadata"] == {
        "from": "PENDING",
        "to": "SHIPPED",
        "allowed": "CONFIRMED,CANCELLED",
    }


# Headers.


def test_a_stale_etag_is_answered_with_the_current_one(world: World) -> None:
    order = place_order(world)
    path = f"/api/v1/orders/{order.id}/status"
    body = {"status": order_pb2.OrderStatus.Name(order_pb2.ORDER_STATUS_CONFIRMED), "etag": "v0"}

    outcome = require_clean_error(world.edge.http.patch(path, json=body))

    assert outcome.detail("ErrorInfo")["metadata"] == {"etag": order.etag}
