"""Requests about orders at the bounds of the contract: the last that are accepted and the first that are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.type.money_pb2 import Money
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as order_pb

from tests.services.order_svc.placing import create_order_request, order_item
from tests.support.builders import OTHER_ID, SOME_ID

if TYPE_CHECKING:
    from google.protobuf.message import Message


def with_item(**changes: object) -> order_pb.CreateOrderRequest:
    return create_order_request(items=[order_item(**changes)])


def with_price(**changes: object) -> order_pb.CreateOrderRequest:
    return with_item(unit_price=Money(**changes))


def move_order(**changes: object) -> order_pb.UpdateOrderStatusRequest:
    fields = {"id": SOME_ID, "status": order_pb2.ORDER_STATUS_CONFIRMED}
    return order_pb.UpdateOrderStatusRequest(**(fields | changes))


ACCEPTED: Final[list[Message]] = [
    create_order_request(),
    create_order_request(items=[order_item()] * 100),
    with_item(quantity=1),
    with_item(quantity=10_000),
    with_item(product_id="p"),
    with_item(product_id="p" * 64),
    with_item(name=""),
    with_item(name="n" * 255),
    with_price(),
    with_price(nanos=999_999_999),
    with_price(units=2**63 - 1),  # how much an order can hold, the service says
    with_price(currency_code=""),
    with_price(currency_code="USD"),
    order_pb.ListOrdersRequest(),
    order_pb.ListOrdersRequest(user_id=OTHER_ID, status=order_pb2.ORDER_STATUS_CANCELLED),
    move_order(reason="r" * 500, etag="e" * 64),
    order_pb.CancelOrderRequest(id=SOME_ID, reason="r" * 500),
    order_pb.ListOrderEventsRequest(id=SOME_ID, page_size=200),
]

REFUSED: Final[list[tuple[Message, str, str]]] = [
    (create_order_request(user_id="1"), "userId", "string.uuid"),
    (create_order_request(currency_code=""), "currencyCode", "currency_code.iso_4217"),
    (create_order_request(currency_code="eur"), "currencyCode", "currency_code.iso_4217"),
    (create_order_request(currency_code="EURO"), "currencyCode", "currency_code.iso_4217"),
    (create_order_request(currency_code="EUR\n"), "currencyCode", "currency_code.iso_4217"),
    (create_order_request(items=[]), "items", "repeated.min_items"),
    (create_order_request(items=[order_item()] * 101), "items", "repeated.max_items"),
    (with_item(quantity=0), "items[0].quantity", "int32.gte_lte"),
    (with_item(quantity=-1), "items[0].quantity", "int32.gte_lte"),
    (with_item(quantity=10_001), "items[0].quantity", "int32.gte_lte"),
    (with_item(product_id=""), "items[0].productId", "string.not_blank"),
    (with_item(product_id="p" * 65), "items[0].productId", "string.max_len"),
    (with_item(product_id="p\0"), "items[0].productId", "string.no_nul"),
    (with_item(name="n" * 256), "items[0].name", "string.max_len"),
    (with_item(unit_price=None), "items[0].unitPrice", "required"),
    (with_price(nanos=1_000_000_000), "items[0].unitPrice", "money.nanos"),
    (with_price(nanos=2_000_000_000), "items[0].unitPrice", "money.nanos"),
    (with_price(nanos=-1), "items[0].unitPrice", "money.not_negative"),
    (with_price(units=1, nanos=-1), "items[0].unitPrice", "money.not_negative"),
    (with_price(units=-1), "items[0].unitPrice", "money.not_negative"),
    (with_price(currency_code="usd"), "items[0].unitPrice", "money.currency_code"),
    (with_price(currency_code="USD\n"), "items[0].unitPrice", "money.currency_code"),
    (order_pb.ListOrdersRequest(page_size=-1), "pageSize", "int32.gte"),
    (order_pb.ListOrdersRequest(user_id="1"), "userId", "string.uuid"),
    (order_pb.ListOrdersRequest(status=7), "status", "enum.defined_only"),
    (move_order(status=0), "status", "required"),
    (move_order(status=7), "status", "enum.defined_only"),
    (move_order(reason="r" * 501), "reason", "string.max_len"),
    (order_pb.CancelOrderRequest(id=SOME_ID, reason="r" * 501), "reason", "string.max_len"),
    (order_pb.ListOrderEventsRequest(id=SOME_ID, page_size=-(2**31)), "pageSize", "int32.gte"),
]
