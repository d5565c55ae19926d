"""Orders, users and calls of the domain with defaults, so that a test shows only the values that matter to it.

Messages to send are in `requests.py`.
"""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from chassis.context import Call, Role
from order_svc.model import BuyerId, Item, NewItem, Order, OrderId, OrderStatus
from user_svc.model import Email, User, UserId, UserState

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
