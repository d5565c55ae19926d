"""Orders in the OpenAPI document."""

from __future__ import annotations

import json
from typing import Any

from envoy.files import REPOSITORY

DOCUMENT: dict[str, Any] = json.loads((REPOSITORY / "generated" / "openapi.json").read_text())
SCHEMAS: dict[str, dict[str, Any]] = DOCUMENT["components"]["schemas"]


def test_a_reason_is_documented_with_its_status_and_an_example() -> None:
    responses = DOCUMENT["paths"]["/api/v1/orders/{id}:cancel"]["post"]["responses"]

    assert "`ORDER_NOT_FOUND`" in responses["404"]["description"]
    assert "ETAG_MISMATCH" in responses["409"]["content"]["application/json"]["examples"]
    example = DOCUMENT["components"]["examples"]["shop.order.v1.INVALID_STATUS_TRANSITION"]["value"]
    assert example["code"] == 9
    assert example["details"][0]["metadata"] == {"from": "SHIPPED", "to": "CANCELLED", "allowed": "CONFIRMED,CANCELLED"}
    assert example["details"][1]["violations"][0]["subject"].startswith("orders/")
    assert [each["@type"].rpartition(".")[2] for each in example["details"]] == ["ErrorInfo", "PreconditionFailure"]


def test_answers_require_the_fields_that_are_always_present() -> None:
    assert SCHEMAS["Money"]["required"] == ["currencyCode", "units", "nanos"]
    assert "createdAt" not in SCHEMAS["Order"]["required"]
    assert SCHEMAS["Money"]["properties"]["units"]["type"] == "string"


def test_the_rules_of_the_contract_are_those_of_the_document() -> None:
    item = SCHEMAS["CreateOrderItemInput"]
    order = SCHEMAS["CreateOrderRequest"]["properties"]

    assert item["required"] == ["productId", "quantity", "unitPrice"]
    assert item["properties"]["quantity"].items() >= {"minimum": 1, "maximum": 10_000}.items()
    assert item["properties"]["productId"].items() >= {"minLength": 1, "maxLength": 64}.items()
    assert "must not contain the NUL character" in item["properties"]["name"]["description"]
    assert order["items"].items() >= {"minItems": 1, "maxItems": 100}.items()
    assert order["currencyCode"]["pattern"] == "^[A-Z]{3}$"
    assert order["userId"]["format"] == "uuid"


def test_a_status_that_no_caller_may_set_is_not_offered() -> None:
    statuses = SCHEMAS["UpdateOrderStatusRequest"]["properties"]["status"]["enum"]

    assert "ORDER_STATUS_UNSPECIFIED" not in statuses
    assert "ORDER_STATUS_UNSPECIFIED" in SCHEMAS["OrderStatus"]["enum"]
