"""The largest orders that the contract allows, through a channel that takes 4 MiB as stock ones do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from shop.order.v1 import order_service_pb2 as orders_pb

from chassis.client import CallPolicy, connect
from chassis.client.breaker import Breaker, BreakerSettings
from chassis.client.errors import is_dependency_failure
from chassis.clock import new_id
from chassis.server.pagination import MAX_BYTES
from chassis.testing import services_token
from order_svc.buyer_client import GrpcBuyerDirectory
from order_svc.model import BuyerId
from tests.integration.user_svc.test_page_bytes import write_users
from tests.support.pages import STOCK_BYTES, WIDE, walked

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub

    from tests.integration.databases import TestDatabase


def items_json(count: int, *, text: str) -> str:
    """Return items as the orders' table keeps them."""
    item = {"productId": text * 64, "name": text * 255, "quantity": 10_000, "unitPrice": "999999999999.999999999"}
    return json.dumps([item] * count)


def write_orders(database: TestDatabase, number: int, *, items: str) -> list[str]:
    """Write orders with these items; return their ids, newest first."""
    rows = database.query(
        "INSERT INTO orders (id, user_id, status, currency_code, items, total_amount, cancel_reason,"
        " created_at, updated_at, version)"
        " SELECT gen_random_uuid(), gen_random_uuid(), 'CANCELLED', 'EUR', CAST(%s AS jsonb), 1, repeat(%s, 500),"
        " now(), now(), 1 FROM generate_series(1, %s) RETURNING id::text",
        items,
        WIDE,
        number,
    )
    return sorted((order_id for (order_id,) in rows), reverse=True)


def write_history(database: TestDatabase, order_id: str, number: int) -> list[str]:
    rows = database.query(
        "INSERT INTO order_events (id, order_id, from_status, to_status, reason, occurred_at, version)"
        " SELECT gen_random_uuid(), CAST(%s AS uuid), 'PENDING', 'CONFIRMED', repeat(%s, 500), now(), n"
        " FROM generate_series(1, %s) AS n RETURNING version, id::text",
        order_id,
        WIDE,
        number,
    )
    return [event_id for _, event_id in sorted(rows)]


@pytest.mark.parametrize(
    ("number", "items", "text", "least"),
    [(25, 100, WIDE, 4), (3, 1, "a", 1), (201, 1, WIDE, 2), (45, 100, "", 3), (41, 50, "", 2), (40, 50, "", 1)],
    ids=["largest", "few", "many small", "empty texts", "over the items", "just the items"],
)
async def test_pages_of_orders_fit_and_give_each_once(
    orders: OrderServiceAsyncStub, orders_database: TestDatabase, number: int, items: int, text: str, least: int
) -> None:
    written = write_orders(orders_database, number, items=items_json(items, text=text))

    ids, sizes = await walked(
        lambda token: orders.ListOrders(orders_pb.ListOrdersRequest(page_size=200, page_token=token)), "orders"
    )

    assert ids == written
    assert max(sizes) <= MAX_BYTES + 200 * 8
    assert len(sizes) >= least


async def test_pages_of_a_history_fit_and_give_each_entry_once(
    orders: OrderServiceAsyncStub, orders_database: TestDatabase
) -> None:
    [order_id] = write_orders(orders_database, 1, items="[]")
    written = write_history(orders_database, order_id, 600)

    def page_after(token: str) -> Awaitable[Any]:
        return orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(id=order_id, page_size=200, page_token=token))

    ids, sizes = await walked(page_after, "events")

    assert ids == written
    assert max(sizes) <= MAX_BYTES


async def test_the_largest_order_comes_alone(orders: OrderServiceAsyncStub, orders_database: TestDatabase) -> None:
    [order_id] = write_orders(orders_database, 1, items=items_json(100, text=WIDE))

    order = await orders.GetOrder(orders_pb.GetOrderRequest(id=order_id))

    assert 100_000 < order.ByteSize() < STOCK_BYTES


async def test_buyers_with_large_profiles_do_not_keep_others_from_ordering(
    users_address: str, users_database: TestDatabase
) -> None:
    buyers = [BuyerId(UUID(user_id)) for user_id in write_users(users_database, 100)]
    nobody = BuyerId(new_id())
    breaker = Breaker("user_svc", BreakerSettings(), is_failure=is_dependency_failure)

    async with connect(users_address, policy=CallPolicy(timeout_s=10), token=services_token) as channel:
        refused = await GrpcBuyerDirectory(channel, breaker).refusals([*buyers, nobody])

    assert list(refused) == [nobody]
    assert breaker.state == "closed"
