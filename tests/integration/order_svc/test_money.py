"""Money of the contract: every field that takes an amount or a currency, and orders from before they were checked."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import pytest
from google.protobuf import json_format, message_factory
from google.type.money_pb2 import Money
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as pb
from shop.user.v1 import session_service_pb2, user_service_pb2

from chassis.testing import refusal_of
from protos.codegen.examples import example_of
from tests.services.order_svc.placing import create_order_request, order_item

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User

    from tests.integration.databases import TestDatabase

Place = tuple[str | int, ...]
"""Where a field stands in a request's JSON: ("items", 0, "unitPrice")."""

MONEY: Final = Money.DESCRIPTOR.full_name

# Each is three letters and no currency that anything can be paid in.
NO_CURRENCIES: Final = ["ZZZ", "AAA", "DEM", "HRK", "XAU", "XDR", "XTS", "XXX"]
# A currency, and an amount of it that is finer than its minor unit.
TOO_FINE: Final = [
    ("JPY", {"units": "1", "nanos": 500_000_000}),
    ("JPY", {"units": "0", "nanos": 1}),
    ("EUR", {"units": "1", "nanos": 5_000_000}),
    ("HUF", {"units": "1", "nanos": 999_999_999}),
    ("KWD", {"units": "1", "nanos": 500_000}),
    ("CLF", {"units": "1", "nanos": 50_000}),
]


def places(message: Descriptor, *, prefix: Place = ()) -> Iterator[tuple[Place, FieldDescriptor]]:
    """Yield where a request has amounts and currencies, those of amounts too."""
    for field in message.fields:
        place = (*prefix, field.json_name, *((0,) if field.is_repeated else ()))
        if field.name == "currency_code":
            yield place, field
        elif field.message_type is not None and field.message_type.full_name == MONEY:
            yield place, field
            yield (*place, "currencyCode"), field.message_type.fields_by_name["currency_code"]
        elif field.message_type is not None and field.message_type.full_name.startswith("shop."):
            yield from places(field.message_type, prefix=place)


METHODS: Final = [
    method
    for module in (pb, user_service_pb2, session_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
AMOUNTS: Final = [
    (method, place)
    for method in METHODS
    for place, field in places(method.input_type)
    if field.message_type is not None
]
CURRENCIES: Final = [
    (method, place) for method in METHODS for place, field in places(method.input_type) if field.message_type is None
]


def path_of(place: Place) -> str:
    """Return the place as errors name it: `items[0].unitPrice`."""
    path = ""
    for step in place:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path.removeprefix(".")


def label(value: object) -> str:
    return path_of(value) if isinstance(value, tuple) else getattr(value, "name", str(value))


def request_of(method: MethodDescriptor, *, currency_code: str, **changes: Any) -> dict[str, Any]:
    """Return a request that is good, as JSON, with this currency wherever the request itself names one."""
    request = copy.deepcopy(dict(example_of(method.input_type, is_request=True)))
    if "currency_code" in method.input_type.fields_by_name:
        request["currencyCode"] = currency_code
    for place, field in places(method.input_type):
        if field.message_type is not None:
            put(request, place, {"units": "4", "nanos": 0})
    return {**request, **changes}


def put(request: Any, place: Place, value: object) -> None:
    *way, last = place
    for step in way:
        request = request[step]
    request[last] = value


def message_of(method: MethodDescriptor, request: dict[str, Any]) -> Any:
    return json_format.ParseDict(request, message_factory.GetMessageClass(method.input_type)())


async def refused(orders: OrderServiceAsyncStub, method: MethodDescriptor, request: dict[str, Any]) -> tuple[str, ...]:
    """Return the reason and the fields that a refusal names."""
    refusal = await refusal_of(getattr(orders, method.name)(message_of(method, request)))
    assert refusal.code.name == "INVALID_ARGUMENT"
    return (refusal.reason, *refusal.fields)


def test_the_contract_takes_amounts_and_currencies() -> None:
    assert ("items", 0, "unitPrice") in [place for _, place in AMOUNTS]
    assert {("currencyCode",), ("items", 0, "unitPrice", "currencyCode")} <= {place for _, place in CURRENCIES}
    assert {method.containing_service.name for method, _ in (*AMOUNTS, *CURRENCIES)} == {"OrderService"}


@pytest.mark.parametrize(("method", "place"), CURRENCIES, ids=label)
async def test_an_invalid_currency_is_refused_in_every_field_that_takes_one(
    orders: OrderServiceAsyncStub, buyer: User, method: MethodDescriptor, place: Place
) -> None:
    for code in NO_CURRENCIES:
        request = request_of(method, currency_code="EUR", userId=buyer.id)
        put(request, place, code)

        reason, *fields = await refused(orders, method, request)

        assert reason in {"INVALID_FIELDS", "CURRENCY_MISMATCH"}
        assert fields == [path_of(place)]


@pytest.mark.parametrize(("method", "place"), AMOUNTS, ids=label)
async def test_an_amount_that_is_too_fine_is_refused_wherever_one_is_taken(
    orders: OrderServiceAsyncStub, buyer: User, method: MethodDescriptor, place: Place
) -> None:
    for code, amount in TOO_FINE:
        request = request_of(method, currency_code=code, userId=buyer.id)
        put(request, place, amount)

        assert await refused(orders, method, request) == ("INVALID_FIELDS", path_of(place))


async def test_a_refused_price_leaves_nothing(
    orders: OrderServiceAsyncStub, orders_database: TestDatabase, buyer: User
) -> None:
    await refusal_of(orders.CreateOrder(create_order_request(buyer.id, currency_code="ZZZ")))
    await refusal_of(orders.CreateOrder(create_order_request(buyer.id, items=[order_item(nanos=1)])))

    for table in ("orders", "order_events", "outbox", "idempotency_keys"):
        assert orders_database.query(f"SELECT * FROM {table}") == []


async def test_an_order_from_before_the_check_is_read_moved_and_cancelled(
    orders: OrderServiceAsyncStub, orders_database: TestDatabase, buyer: User
) -> None:
    placed = [await orders.CreateOrder(create_order_request(buyer.id)) for _ in range(2)]
    orders_database.query(
        """UPDATE orders SET currency_code = 'ZZZ', total_amount = 3.000000003,
        items = '[{"productId": "\u00a0", "name": "", "quantity": 3, "unitPrice": "1.000000001"}]'"""
    )

    found = await orders.GetOrder(pb.GetOrderRequest(id=placed[0].id))
    listed = await orders.ListOrders(pb.ListOrdersRequest(user_id=buyer.id))
    confirmed = await orders.UpdateOrderStatus(
        pb.UpdateOrderStatusRequest(id=placed[0].id, status=order_pb2.ORDER_STATUS_CONFIRMED)
    )
    cancelled = await orders.CancelOrder(pb.CancelOrderRequest(id=placed[1].id))

    total = Money(currency_code="ZZZ", units=3, nanos=3)
    assert found.total_amount == confirmed.total_amount == cancelled.total_amount == total
    assert [order.items[0].product_id for order in listed.orders] == ["\u00a0", "\u00a0"]
    assert (confirmed.status, cancelled.status) == (
        order_pb2.ORDER_STATUS_CONFIRMED,
        order_pb2.ORDER_STATUS_CANCELLED,
    )
