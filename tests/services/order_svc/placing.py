"""Orders to test with: requests for them, and orders of a running system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shop.order.v1 import order_service_pb2
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from tests.support.builders import OTHER_ID

if TYPE_CHECKING:
    from shop.order.v1 import order_pb2

    from tests.e2e.world import World


def create_order_request(user_id: str = OTHER_ID, **changes: Any) -> order_service_pb2.CreateOrderRequest:
    """Return a request for an order of one item, in euros; the default buyer need not exist."""
    fields = {"user_id": user_id, "currency_code": "EUR", "items": [order_item()]}
    return order_service_pb2.CreateOrderRequest(**{**fields, **changes})


def order_item(*, units: int = 12, nanos: int = 0, quantity: int = 1, **changes: Any) -> dict[str, Any]:
    """Return an item of a CreateOrderRequest, as keyword arguments or JSON."""
    fields = {
        "product_id": "tea-1",
        "name": "Tea",
        "quantity": quantity,
        "unit_price": {"units": units, "nanos": nanos},
    }
    return {**fields, **changes}


def place_order(world: World, user_id: str = "", **changes: Any) -> order_pb2.Order:
    """Place an order in a running system, for a new user if none is named."""
    request = create_order_request(user_id or world.user().id, **changes)
    return OrderServiceStub(world.edge.channel).CreateOrder(request, timeout=10)
