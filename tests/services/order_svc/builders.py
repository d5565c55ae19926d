"""Orders with defaults, so that a test shows only the values that matter to it."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any
from uuid import UUID

from order_svc.model import BuyerId, Item, NewItem, Order, OrderId, OrderStatus
from tests.support.builders import NOON, OTHER_ID, SOME_ID


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
