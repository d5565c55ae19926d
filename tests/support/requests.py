"""Messages to send with defaults, so that a test shows only the values that matter to it."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from shop.order.v1 import order_service_pb2
from shop.user.v1 import user_service_pb2

from chassis.testing import new_uuid
from tests.support.builders import OTHER_ID

FROM_THE_BEGINNING: Final = str(UUID(int=0))
"""The resume token of a stream that delivers every change."""

PASSWORD: Final = "correct horse battery"  # of every user that a test creates


def create_user_request(**changes: Any) -> user_service_pb2.CreateUserRequest:
    """Return a request for a user with an unused email."""
    fields = {"email": f"ada-{new_uuid()}@example.com", "password": PASSWORD, "display_name": "Ada Lovelace"}
    return user_service_pb2.CreateUserRequest(**{**fields, **changes})


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
