"""The largest resources that the contract allows, through a channel that takes 4 MiB as stock ones do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import pytest
from google.protobuf import descriptor_pool
from shop.order.v1 import order_service_pb2 as orders_pb
from shop.user.v1 import user_service_pb2 as users_pb

from chassis.client import CallPolicy, connect
from chassis.client.breaker import Breaker, BreakerSettings
from chassis.client.errors import is_dependency_failure
from chassis.clock import new_id
from chassis.server import contract
from chassis.server.pagination import MAX_BYTES
from chassis.testing import new_uuid, refusal_of, services_token
from order_svc.buyer_client import GrpcBuyerDirectory
from order_svc.model import BuyerId
from tests.support.guards import all_facts
from user_svc.model import MAX_PROFILE_BYTES, require_small_profile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from tests.integration.conftest import TestDatabase

# Four bytes of UTF-8.
WIDE: Final = "\U0001f600"
STOCK_BYTES: Final = 4 * 1024 * 1024
# Kept as JSON, a number takes two bytes; in a message eleven.
LARGEST_PROFILE: Final = {"a": [1] * ((MAX_PROFILE_BYTES - len('{"a":[]}') + 1) // 2)}


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


def write_users(database: TestDatabase, number: int) -> list[str]:
    """Write users with everything as large as it may be; return their ids, newest first."""
    require_small_profile(LARGEST_PROFILE)
    rows = database.query(
        "INSERT INTO users (id, email, email_key, display_name, profile, state, roles, password_hash,"
        " created_at, updated_at, version)"
        " SELECT gen_random_uuid(), repeat('a', 240) || n, n::text, repeat(%s, 100), CAST(%s AS jsonb), 'ACTIVE',"
        " '{USER}', 'x', now(), now(), 1 FROM generate_series(1, %s) AS n RETURNING id::text",
        WIDE,
        json.dumps(LARGEST_PROFILE),
        number,
    )
    return sorted((user_id for (user_id,) in rows), reverse=True)


async def walked(page_after: Callable[[str], Awaitable[Any]], field: str) -> tuple[list[str], list[int]]:
    """Return the ids on all pages, and how many bytes each page has."""
    ids: list[str] = []
    sizes: list[int] = []
    token = ""
    while True:
        page = await page_after(token)
        assert getattr(page, field), "a page without rows is no page"
        ids += [each.id for each in getattr(page, field)]
        sizes.append(page.ByteSize())
        token = page.next_page_token
        if not token:
            return ids, sizes


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


async def test_pages_of_users_fit_and_give_each_once(users: UserServiceAsyncStub, users_database: TestDatabase) -> None:
    written = write_users(users_database, 60)

    ids, sizes = await walked(
        lambda token: users.ListUsers(users_pb.ListUsersRequest(page_size=200, page_token=token)), "users"
    )

    assert ids == written
    assert max(sizes) <= MAX_BYTES + 200 * 8
    assert sum(sizes) > STOCK_BYTES


def test_every_list_of_the_contract_is_walked_or_says_why_not() -> None:
    lists = {
        method.name
        for service in contract.service_names()
        for method in descriptor_pool.Default().FindServiceByName(service).methods
        if "next_page_token" in method.output_type.fields_by_name
    }

    known = all_facts("pages").keys()
    assert lists - known == set(), "say in [pages] of the service's guards.toml where it is walked, or why not"
    assert known - lists == set(), "no list any more"


async def test_the_largest_order_comes_alone(orders: OrderServiceAsyncStub, orders_database: TestDatabase) -> None:
    [order_id] = write_orders(orders_database, 1, items=items_json(100, text=WIDE))

    order = await orders.GetOrder(orders_pb.GetOrderRequest(id=order_id))

    assert 100_000 < order.ByteSize() < STOCK_BYTES


async def test_users_asked_for_by_id_fit_or_are_too_many_at_a_time(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    written = write_users(users_database, 60)

    refusal = await refusal_of(users.BatchGetUsers(users_pb.BatchGetUsersRequest(ids=written)))
    few = await users.BatchGetUsers(users_pb.BatchGetUsersRequest(ids=[*written[:40], new_uuid()]))

    assert (refusal.reason, refusal.fields) == ("INVALID_FIELDS", ("ids",))
    assert "fewer at a time" in refusal.message
    assert [user.id for user in few.users] == written[:40]
    assert len(few.missing_ids) == 1


async def test_200_users_with_profiles_of_16_kib_of_text_fit(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    written = write_users(users_database, 200)
    text = {"a": "a" * (MAX_PROFILE_BYTES - len('{"a":""}'))}
    users_database.query("UPDATE users SET profile = CAST(%s AS jsonb)", json.dumps(text))

    answer = await users.BatchGetUsers(users_pb.BatchGetUsersRequest(ids=written))

    assert len(answer.users) == 200


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
