"""Requests that the order service answers with success."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders

from chassis.testing import new_uuid
from tests.services.order_svc.placing import create_order_request, place_order
from tests.support.requests import FROM_THE_BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message
    from shop.user.v1.user_pb2 import User

    from tests.e2e.world import World
    from tests.support.access_table import Subject


def _create_order(world: World) -> Message:
    price = {"currency_code": "EUR", "units": 4, "nanos": 500_000_000}
    items: list[Any] = [
        {"product_id": "tea", "name": "Tea", "quantity": 3, "unit_price": price},
        {"product_id": "gift", "quantity": 1, "unit_price": {}},
    ]
    return create_order_request(world.user().id, items=items, request_id=new_uuid())


def _list_orders(world: World) -> Message:
    order = place_order(world)
    place_order(world, order.user_id)
    return orders.ListOrdersRequest(page_size=1, user_id=order.user_id, status=order_pb2.ORDER_STATUS_PENDING)


def _update_order_status(world: World) -> Message:
    order = place_order(world)
    return orders.UpdateOrderStatusRequest(
        id=order.id,
        status=order_pb2.ORDER_STATUS_CONFIRMED,
        reason="in stock",
        etag=order.etag,
        request_id=new_uuid(),
    )


def _cancel_order(world: World) -> Message:
    order = place_order(world)
    return orders.CancelOrderRequest(id=order.id, reason="changed my mind", etag=order.etag, request_id=new_uuid())


def _watch_orders(world: World) -> Message:
    return orders.WatchOrdersRequest(user_id=place_order(world).user_id, resume_token=FROM_THE_BEGINNING)


REQUESTS: Final[Mapping[str, Callable[[World], Message]]] = {
    "CreateOrder": _create_order,
    "GetOrder": lambda world: orders.GetOrderRequest(id=place_order(world).id),
    "ListOrders": _list_orders,
    "UpdateOrderStatus": _update_order_status,
    "CancelOrder": _cancel_order,
    "ListOrderEvents": lambda world: orders.ListOrderEventsRequest(id=place_order(world).id, page_size=5),
    "WatchOrders": _watch_orders,
}

_CREATE: Final = "shop.order.v1.OrderService.CreateOrder"
MADE_FOR: Final[Mapping[str, Callable[[User], Message]]] = {_CREATE: lambda owner: create_order_request(owner.id)}


def _order_of(subject: Subject) -> order_pb2.Order:
    return cast("order_pb2.Order", subject.owned[_CREATE])


OF_SUBJECT: Final[Mapping[str, Callable[[Subject], Message]]] = {
    _CREATE: lambda subject: create_order_request(subject.owner.id),
    "shop.order.v1.OrderService.GetOrder": lambda subject: orders.GetOrderRequest(id=_order_of(subject).id),
    "shop.order.v1.OrderService.ListOrders": lambda subject: orders.ListOrdersRequest(user_id=subject.owner.id),
    "shop.order.v1.OrderService.UpdateOrderStatus": lambda subject: orders.UpdateOrderStatusRequest(
        id=_order_of(subject).id, status=order_pb2.ORDER_STATUS_CONFIRMED
    ),
    "shop.order.v1.OrderService.CancelOrder": lambda subject: orders.CancelOrderRequest(id=_order_of(subject).id),
    "shop.order.v1.OrderService.ListOrderEvents": lambda subject: orders.ListOrderEventsRequest(
        id=_order_of(subject).id
    ),
    "shop.order.v1.OrderService.WatchOrders": lambda subject: orders.WatchOrdersRequest(
        user_id=subject.owner.id, resume_token=FROM_THE_BEGINNING
    ),
}
