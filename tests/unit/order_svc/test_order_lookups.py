from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from chassis.database.keyed import Lookup
from order_svc.model import OrderId
from order_svc.repository import find_orders
from tests.support.builders import NOON, OTHER_ID, SOME_ID
from tests.support.turns import counted_turns

if TYPE_CHECKING:
    from chassis.database.statement_pool import Rows

ITEM = {"productId": "sku-1", "name": "Tea", "quantity": 2, "unitPrice": "3.50"}


@pytest.mark.parametrize(("orders", "items", "least_turns"), [(64, 100, 12), (128, 2, 0)])
async def test_reading_many_large_orders_yields_to_other_calls(orders: int, items: int, least_turns: int) -> None:
    async def run(_statement: str, *_parameters: object) -> Rows:
        columns = (UUID(SOME_ID), UUID(OTHER_ID), "PENDING", "EUR", [ITEM] * items, "", NOON, NOON, 1)
        return [(n, *columns) for n in range(orders, 0, -1)]

    async with counted_turns() as turns:
        found = await find_orders(run, [Lookup(OrderId(UUID(SOME_ID)))] * orders)

    assert [len(order.items) for order in found if order] == [items] * orders
    assert turns.count >= least_turns
