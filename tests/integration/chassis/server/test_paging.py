"""Lists in pages: every entry once, whatever happens between two pages."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders_pb
from shop.user.v1 import user_pb2
from shop.user.v1 import user_service_pb2 as users_pb

from chassis.testing import new_uuid, refusal_of
from tests.support.requests import create_order_request, create_user_request

if TYPE_CHECKING:
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from chassis.testing import ManualClock
    from tests.integration.conftest import TestDatabase


async def test_pages_give_every_order_once_newest_first(orders: OrderServiceAsyncStub, buyer: User) -> None:
    placed = [(await orders.CreateOrder(create_order_request(buyer.id))).id for _ in range(7)]

    pages = []
    token = ""
    while True:
        answer = await orders.ListOrders(orders_pb.ListOrdersRequest(page_size=3, page_token=token))
        pages.append([order.id for order in answer.orders])
        token = answer.next_page_token
        if not token:
            break

    newest_first = placed[::-1]
    assert pages == [newest_first[:3], newest_first[3:6], newest_first[6:]]


async def test_a_last_page_that_is_full_says_that_it_is_the_last(orders: OrderServiceAsyncStub, buyer: User) -> None:
    for _ in range(2):
        await orders.CreateOrder(create_order_request(buyer.id))

    answer = await orders.ListOrders(orders_pb.ListOrdersRequest(page_size=2))

    assert len(answer.orders) == 2
    assert not answer.next_page_token


async def test_an_empty_list_is_one_empty_page(orders: OrderServiceAsyncStub, users: UserServiceAsyncStub) -> None:
    assert await orders.ListOrders(orders_pb.ListOrdersRequest()) == orders_pb.ListOrdersResponse()
    assert await users.ListUsers(users_pb.ListUsersRequest()) == users_pb.ListUsersResponse()


async def test_orders_added_between_two_pages_double_and_hide_nothing(
    orders: OrderServiceAsyncStub, buyer: User
) -> None:
    placed = {(await orders.CreateOrder(create_order_request(buyer.id))).id for _ in range(12)}

    seen: list[str] = []
    token = ""
    while True:
        answer = await orders.ListOrders(orders_pb.ListOrdersRequest(user_id=buyer.id, page_size=5, page_token=token))
        seen += [order.id for order in answer.orders]
        token = answer.next_page_token
        if not token:
            break
        for _ in range(3):
            await orders.CreateOrder(create_order_request(buyer.id))

    assert len(seen) == len(set(seen))
    assert set(seen) == placed


async def test_users_deleted_between_two_pages_hide_no_other_user(users: UserServiceAsyncStub) -> None:
    created = [(await users.CreateUser(create_user_request())).id for _ in range(9)][::-1]
    first = await users.ListUsers(users_pb.ListUsersRequest(page_size=4))

    # One who was shown, the very one at whom the next page begins, and one who was not shown yet.
    for gone in (created[0], created[3], created[6]):
        await users.DeleteUser(users_pb.DeleteUserRequest(id=gone))
    second = await users.ListUsers(users_pb.ListUsersRequest(page_size=4, page_token=first.next_page_token))

    assert [user.id for user in first.users] == created[:4]
    assert [user.id for user in second.users] == [created[4], created[5], created[7], created[8]]


async def test_an_order_that_changes_between_two_pages_is_neither_doubled_nor_skipped(
    orders: OrderServiceAsyncStub, buyer: User
) -> None:
    placed = [(await orders.CreateOrder(create_order_request(buyer.id))).id for _ in range(6)][::-1]
    pending = order_pb2.ORDER_STATUS_PENDING
    first = await orders.ListOrders(orders_pb.ListOrdersRequest(status=pending, page_size=2))

    for changed in (placed[1], placed[3]):
        await orders.CancelOrder(orders_pb.CancelOrderRequest(id=changed))
    second = await orders.ListOrders(
        orders_pb.ListOrdersRequest(status=pending, page_size=9, page_token=first.next_page_token)
    )

    assert [order.id for order in second.orders] == [placed[2], placed[4], placed[5]]


async def test_a_history_comes_in_pages_oldest_first(orders: OrderServiceAsyncStub, buyer: User) -> None:
    order = await orders.CreateOrder(create_order_request(buyer.id))
    for status in (2, 3, 4, 5):
        request = orders_pb.UpdateOrderStatusRequest(id=order.id)
        request.status = order_pb2.OrderStatus.ValueType(status)
        await orders.UpdateOrderStatus(request)

    first = await orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(id=order.id, page_size=3))
    second = await orders.ListOrderEvents(
        orders_pb.ListOrderEventsRequest(id=order.id, page_size=3, page_token=first.next_page_token)
    )

    assert [event.to_status for event in first.events] == [1, 2, 3]
    assert [event.to_status for event in second.events] == [4, 5]
    assert not second.next_page_token


async def test_a_page_has_50_entries_by_default_and_at_most_200(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    users_database.query(
        "INSERT INTO users (id, email, email_key, display_name, profile, state, roles, password_hash,"
        " created_at, updated_at, version)"
        " SELECT gen_random_uuid(), n::text, n::text, 'Ada', '{}', 'ACTIVE', '{USER}', 'x', now(), now(), 1"
        " FROM generate_series(1, 201) AS n"
    )

    async def shown(page_size: int) -> int:
        return len((await users.ListUsers(users_pb.ListUsersRequest(page_size=page_size))).users)

    assert [await shown(size) for size in (0, 1, 200, 201, 2**31 - 1)] == [50, 1, 200, 200, 200]


async def test_a_page_token_is_of_its_list_and_filter_only(
    orders: OrderServiceAsyncStub, users: UserServiceAsyncStub, buyer: User
) -> None:
    for _ in range(2):
        order = await orders.CreateOrder(create_order_request(buyer.id))
        await users.CreateUser(create_user_request())
    answer = await orders.ListOrders(orders_pb.ListOrdersRequest(user_id=buyer.id, page_size=1))
    token = answer.next_page_token
    assert token

    refusals = [
        await refusal_of(orders.ListOrders(orders_pb.ListOrdersRequest(page_token=token))),
        await refusal_of(orders.ListOrders(orders_pb.ListOrdersRequest(user_id=new_uuid(), page_token=token))),
        await refusal_of(orders.ListOrders(orders_pb.ListOrdersRequest(user_id=buyer.id, status=1, page_token=token))),
        await refusal_of(orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(id=order.id, page_token=token))),
        await refusal_of(users.ListUsers(users_pb.ListUsersRequest(page_token=token))),
        await refusal_of(
            users.ListUsers(users_pb.ListUsersRequest(state=user_pb2.USER_STATE_ACTIVE, page_token=token))
        ),
    ]

    for refusal in refusals:
        assert (refusal.code, refusal.domain) == (StatusCode.INVALID_ARGUMENT, "shop.system.v1")
        assert (refusal.reason, refusal.fields) == ("INVALID_PAGE_TOKEN", ("pageToken",))


async def test_the_page_size_may_change_from_page_to_page(orders: OrderServiceAsyncStub, buyer: User) -> None:
    placed = [(await orders.CreateOrder(create_order_request(buyer.id))).id for _ in range(4)][::-1]
    first = await orders.ListOrders(orders_pb.ListOrdersRequest(page_size=1))

    second = await orders.ListOrders(orders_pb.ListOrdersRequest(page_size=9, page_token=first.next_page_token))

    assert [order.id for order in second.orders] == placed[1:]


async def test_a_page_token_lasts_a_day(users: UserServiceAsyncStub, clock: ManualClock) -> None:
    for _ in range(2):
        await users.CreateUser(create_user_request())
    token = (await users.ListUsers(users_pb.ListUsersRequest(page_size=1))).next_page_token
    request = users_pb.ListUsersRequest(page_size=1, page_token=token)
    clock.advance(timedelta(hours=23, minutes=59))
    assert len((await users.ListUsers(request)).users) == 1
    clock.advance(timedelta(minutes=2))

    refusal = await refusal_of(users.ListUsers(request))

    assert refusal.reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize("token", ["x", "x" * 44, "AAAA", "=", "ä", "' OR 1=1 --"])
async def test_a_forged_page_token_is_refused(users: UserServiceAsyncStub, token: str) -> None:
    refusal = await refusal_of(users.ListUsers(users_pb.ListUsersRequest(page_token=token)))

    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")
