"""Orders, users and requests with defaults, so that a test shows only what matters to it."""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from google.type.money_pb2 import Money
from shop.order.v1 import order_service_pb2 as order_pb
from shop.user.v1 import user_service_pb2 as user_pb

from chassis.context import Call
from order_svc.model import BuyerId, Item, NewItem, Order, OrderId, OrderStatus
from user_svc.model import Email, Role, User, UserId, UserState

NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOME_ID: Final = "01960000-0000-7000-8000-000000000001"
OTHER_ID: Final = "01960000-0000-7000-8000-000000000002"


def an_order(**changes: Any) -> Order:
    order = Order(
        id=OrderId(UUID(SOME_ID)),
        user_id=BuyerId(UUID(OTHER_ID)),
        status=OrderStatus.PENDING,
        currency_code="EUR",
        items=(Item("sku-1", "Tea", 2, Decimal("3.50")),),
        cancel_reason="",
        created_at=NOON,
        updated_at=NOON,
        version=1,
    )
    return dataclasses.replace(order, **changes)


def a_new_item(**changes: Any) -> NewItem:
    return dataclasses.replace(NewItem("sku-1", "Tea", 2, Decimal("3.50"), ""), **changes)


def a_user(**changes: Any) -> User:
    user = User(
        id=UserId(UUID(SOME_ID)),
        email=Email.parse("ada@example.com"),
        display_name="Ada",
        profile={"city": "London"},
        state=UserState.ACTIVE,
        roles=(Role.USER,),
        password_hash="$argon2id$made-up",
        created_at=NOON,
        updated_at=NOON,
        version=1,
    )
    return dataclasses.replace(user, **changes)


def a_call(**changes: Any) -> Call:
    call = Call(method="/shop.order.v1.OrderService/CreateOrder", deadline=time.monotonic() + 30)
    return dataclasses.replace(call, **changes)


def an_item_message(**changes: Any) -> order_pb.CreateOrderItem:
    fields = {"product_id": "sku-1", "name": "Tea", "quantity": 2, "unit_price": Money(units=3, nanos=500_000_000)}
    return order_pb.CreateOrderItem(**(fields | changes))


def a_create_order(**changes: Any) -> order_pb.CreateOrderRequest:
    fields = {"user_id": OTHER_ID, "currency_code": "EUR", "items": [an_item_message()]}
    return order_pb.CreateOrderRequest(**(fields | changes))


def a_create_user(**changes: Any) -> user_pb.CreateUserRequest:
    fields = {"email": "ada@example.com", "password": "correct horse battery", "display_name": "Ada"}
    return user_pb.CreateUserRequest(**(fields | changes))
