"""Effects of one service's events in the other, and orders while the user service is down."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders_pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1 import user_service_pb2 as users_pb

from chassis.testing import new_uuid, plain_channel, refusal_from, refusal_of, until
from order_svc.buyer_projection import KnownUser, UserState, put_users
from order_svc.consumer import look_for_late_orders
from order_svc.model import BuyerId
from tests.integration.event_flow import opened, running
from tests.integration.inprocess import database_settings
from tests.integration.order_svc.flow import flowing
from tests.integration.order_svc.inprocess import order_service
from tests.integration.user_svc.inprocess import user_service
from tests.services.order_svc.placing import create_order_request
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from chassis.testing import ManualClock
    from tests.integration.databases import TestDatabase

PENDING, CONFIRMED = order_pb2.ORDER_STATUS_PENDING, order_pb2.ORDER_STATUS_CONFIRMED
PROCESSING, SHIPPED = order_pb2.ORDER_STATUS_PROCESSING, order_pb2.ORDER_STATUS_SHIPPED
CANCELLED = order_pb2.ORDER_STATUS_CANCELLED


@pytest.fixture
async def flow(users_database: TestDatabase, orders_database: TestDatabase, redis_url: str) -> AsyncIterator[None]:
    """Events flow between the services."""
    async with flowing(users=users_database.url, orders=orders_database.url, redis=redis_url):
        yield


async def test_a_user_is_shown_with_the_number_of_their_orders(
    flow: None, users: UserServiceAsyncStub, orders: OrderServiceAsyncStub, buyer: User
) -> None:
    placed = [await orders.CreateOrder(create_order_request(buyer.id)) for _ in range(3)]
    await orders.CancelOrder(orders_pb.CancelOrderRequest(id=placed[0].id))

    async def is_counted() -> bool:
        return (await users.GetUser(users_pb.GetUserRequest(id=buyer.id))).order_count == 3

    await until(is_counted)
    changed = await users.UpdateUser(users_pb.UpdateUserRequest(id=buyer.id, display_name="Grace", etag=buyer.etag))
    assert changed.order_count == 3
    assert (await users.GetUser(users_pb.GetUserRequest(id=buyer.id))).order_count == 3


async def test_the_open_orders_of_a_deleted_user_are_cancelled_and_the_others_are_left(
    flow: None,
    users: UserServiceAsyncStub,
    orders: OrderServiceAsyncStub,
    orders_database: TestDatabase,
    buyer: User,
) -> None:
    way = [PENDING, CONFIRMED, PROCESSING, SHIPPED]
    ids = {}
    for status in way:
        order = await orders.CreateOrder(create_order_request(buyer.id))
        for step in way[1 : way.index(status) + 1]:
            await orders.UpdateOrderStatus(orders_pb.UpdateOrderStatusRequest(id=order.id, status=step))
        ids[status] = order.id
    other = await users.CreateUser(create_user_request())
    theirs = await orders.CreateOrder(create_order_request(other.id))

    await users.DeleteUser(users_pb.DeleteUserRequest(id=buyer.id))

    async def statuses() -> list[int]:
        return [(await _get(orders, order_id)).status for order_id in ids.values()]

    async def are_cancelled() -> bool:
        return await statuses() == [CANCELLED, CANCELLED, CANCELLED, SHIPPED]

    await until(are_cancelled)
    assert (await _get(orders, theirs.id)).status == PENDING
    history = await orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(id=ids[CONFIRMED]))
    last = history.events[-1]
    assert (last.from_status, last.to_status, last.reason) == (CONFIRMED, CANCELLED, "The user was deleted.")
    told = orders_database.query("SELECT subject::text, data ->> 'from' FROM outbox WHERE type = 'order.cancelled'")
    assert dict(told) == {ids[PENDING]: "PENDING", ids[CONFIRMED]: "CONFIRMED", ids[PROCESSING]: "PROCESSING"}


@pytest.mark.parametrize("workers_were_away_for", ["0 s", "6 days"])
async def test_an_order_that_slipped_in_while_its_buyer_was_deleted_is_cancelled(
    flow: None,
    users: UserServiceAsyncStub,
    orders: OrderServiceAsyncStub,
    orders_database: TestDatabase,
    buyer: User,
    workers_were_away_for: str,
) -> None:
    order = await orders.CreateOrder(create_order_request(buyer.id))
    await users.DeleteUser(users_pb.DeleteUserRequest(id=buyer.id))

    async def is_cancelled() -> bool:
        return (await _get(orders, order.id)).status == CANCELLED

    await until(is_cancelled)
    # As it stands if it was committed a moment later.
    orders_database.query("UPDATE orders SET status = 'PENDING', version = 10, cancel_reason = ''")
    orders_database.query("UPDATE known_users SET applied_at = now() - %s::interval", workers_were_away_for)
    async with opened(orders_database.url) as database, running(partial(look_for_late_orders, database)):
        await until(is_cancelled)


async def test_many_orders_of_a_deleted_user_are_cancelled_in_several_transactions(
    flow: None, users: UserServiceAsyncStub, orders_database: TestDatabase, buyer: User
) -> None:
    orders_database.query(
        "INSERT INTO orders (id, user_id, status, currency_code, items, total_amount, cancel_reason, created_at,"
        " updated_at, version) SELECT gen_random_uuid(), %s, 'PENDING', 'EUR', '[]', 0, '', now(), now(), 1"
        " FROM generate_series(1, 1200)",
        buyer.id,
    )

    def at_once() -> list[int]:
        rows = orders_database.query("SELECT count(*) FROM outbox GROUP BY transaction ORDER BY min(position)")
        return [count for (count,) in rows]

    await users.DeleteUser(users_pb.DeleteUserRequest(id=buyer.id))

    async def is_applied() -> bool:
        return orders_database.query("SELECT state FROM known_users WHERE id = %s", buyer.id) == [("DELETED",)]

    await until(is_applied)
    assert at_once() == [500]
    # Longer ago than a late order could be.
    orders_database.query("UPDATE known_users SET applied_at = now() - interval '1 hour'")
    async with opened(orders_database.url) as database, running(partial(look_for_late_orders, database)):

        async def are_cancelled() -> bool:
            return orders_database.query("SELECT count(*) FROM orders WHERE status <> 'CANCELLED'") == [(0,)]

        await until(are_cancelled, timeout_s=30)
    assert at_once() == [500, 500, 200]


async def test_deleting_a_user_while_they_order_leaves_no_open_order(
    flow: None,
    users: UserServiceAsyncStub,
    orders: OrderServiceAsyncStub,
    orders_database: TestDatabase,
    buyer: User,
) -> None:
    placed = 0

    async def order_on() -> None:
        nonlocal placed
        while True:
            refused = await _refusal_or_none(orders.CreateOrder(create_order_request(buyer.id)))
            if refused:
                assert refused == "USER_NOT_ACTIVE"
                return
            placed += 1

    async def is_over() -> bool:
        rows = orders_database.query("SELECT count(*) FROM orders WHERE status <> 'CANCELLED'")
        return rows == [(0,)]

    async with opened(orders_database.url) as database, running(partial(look_for_late_orders, database)):
        buyers = [asyncio.create_task(order_on()) for _ in range(4)]

        async def some_are_placed() -> bool:
            return placed >= 20

        await until(some_are_placed)
        await users.DeleteUser(users_pb.DeleteUserRequest(id=buyer.id))
        for each in buyers:
            await each
        await until(is_over, timeout_s=20)


@pytest.mark.parametrize(
    ("state", "minutes", "expected"),
    [
        ("ACTIVE", 4, None),
        ("ACTIVE", 6, "USER_SERVICE_UNAVAILABLE"),
        ("SUSPENDED", 4, "USER_NOT_ACTIVE"),
        ("SUSPENDED", 6, "USER_SERVICE_UNAVAILABLE"),
        ("DELETED", 4, "USER_NOT_ACTIVE"),
        ("DELETED", 600, "USER_NOT_ACTIVE"),
        # By clocks that differ: how old it is no one knows.
        ("ACTIVE", -1, "USER_SERVICE_UNAVAILABLE"),
        ("DELETED", -1, "USER_NOT_ACTIVE"),
        (None, 4, "USER_SERVICE_UNAVAILABLE"),
    ],
)
async def test_without_the_user_service_a_fresh_projection_decides(
    users_database: TestDatabase, orders_database: TestDatabase, state: str | None, minutes: int, expected: str | None
) -> None:
    user_id = new_uuid()
    known = "INSERT INTO known_users VALUES (%s, %s, now(), now())"
    if state:
        orders_database.query(known, user_id, state)
    as_of = "INSERT INTO inbox_state VALUES ('shop:events:user', now() - %s)"
    orders_database.query(as_of, timedelta(minutes=minutes))

    async with _without_user_service(users_database, orders_database) as orders:
        refused = await _refusal_or_none(orders.CreateOrder(create_order_request(user_id)))

    assert refused == expected


async def test_without_the_user_service_a_projection_of_unknown_age_places_no_order(
    users_database: TestDatabase, orders_database: TestDatabase
) -> None:
    user_id = new_uuid()
    orders_database.query("INSERT INTO known_users VALUES (%s, 'ACTIVE', now(), now())", user_id)

    async with _without_user_service(users_database, orders_database) as orders:
        refusal = await refusal_of(orders.CreateOrder(create_order_request(user_id)))

    assert (refusal.code, refusal.reason) == (StatusCode.UNAVAILABLE, "USER_SERVICE_UNAVAILABLE")
    assert refusal.retry_after_s == 1


async def test_the_projection_follows_the_users_and_a_tombstone_stays(
    flow: None, users: UserServiceAsyncStub, orders_database: TestDatabase, clock: ManualClock
) -> None:
    user = await users.CreateUser(create_user_request())
    clock.advance(timedelta(seconds=7))
    await users.DeleteUser(users_pb.DeleteUserRequest(id=user.id))

    async def is_known() -> bool:
        rows = orders_database.query("SELECT id::text, state, updated_at FROM known_users")
        return rows == [(user.id, "DELETED", clock.now())]

    await until(is_known)
    async with opened(orders_database.url) as database:
        late = KnownUser(id=BuyerId(UUID(user.id)), state=UserState.ACTIVE, updated_at=clock.now())
        await database.transaction(lambda connection: put_users(connection, [late]))
    assert await is_known()


async def _get(orders: OrderServiceAsyncStub, order_id: str) -> order_pb2.Order:
    return await orders.GetOrder(orders_pb.GetOrderRequest(id=order_id))


async def _refusal_or_none(call: Awaitable[order_pb2.Order]) -> str | None:
    """Return the reason why no order was placed; None if one was."""
    try:
        await call
    except AioRpcError as error:
        return refusal_from(error).reason
    return None


@contextlib.asynccontextmanager
async def _without_user_service(
    users_database: TestDatabase, orders_database: TestDatabase
) -> AsyncIterator[OrderServiceAsyncStub]:
    """Serve orders while the user service is away, which was there for long enough to publish its keys."""
    async with contextlib.AsyncExitStack() as rest:
        async with user_service(database_settings(users_database.url)) as users:
            settings = database_settings(orders_database.url)
            address = await rest.enter_async_context(order_service(settings, users=users))
        yield OrderServiceStub(await rest.enter_async_context(plain_channel(address)))
